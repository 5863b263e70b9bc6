import dataclasses

import pytest
import torch

import stbp
from research.gradient_reach import gradient_reach
from stbp.config import Experiment
from stbp.data import load
from stbp.data.dataset import Samples
from stbp.data.sequences import CUE, SHOWN, adding, recall, rows
from stbp.ops.spikes import Spikes
from stbp.train.progress import Silent

CPU = torch.device("cpu")
RECALL = Experiment.of(
    name="x", dataset="recall", network="21-60-8", T=12, readout=3, decay=0.9, threshold=0.5, learning_rate=5e-3
)


def dense(samples: Samples, ids: torch.Tensor, experiment: Experiment, epoch: int = 0) -> torch.Tensor:
    found = samples.encoded(ids, experiment.window, experiment.seed, epoch, CPU)
    return found.dense() if isinstance(found, Spikes) else found


def test_rows_come_in_order_and_a_permutation_is_one_for_all():
    digits, _ = load("digits")
    plain, mixed = rows(digits, permuted=False), rows(digits, permuted=True)
    assert torch.equal(plain.values, digits.images[:, 0])
    first, second = (mixed.values[i].flatten() for i in (0, 1))
    assert not torch.equal(first, digits.images[0].flatten())
    order = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
    place = (
        rows(dataclasses.replace(digits, images=order, labels=digits.labels[:1]), permuted=True).values.flatten().long()
    )
    assert place.sort().values.tolist() == list(range(64))
    assert torch.equal(first, digits.images[0].flatten()[place])
    assert torch.equal(second, digits.images[1].flatten()[place])


def test_a_window_is_a_step_a_row_and_depends_on_seed_epoch_and_id_alone():
    digits, _ = load("digits")
    samples, e = rows(digits, permuted=False), Experiment.of(name="x", dataset="digits", network="8-10", T=8)
    ids = torch.tensor([9, 3, 1000])
    o = dense(samples, ids, e, 1)
    assert o.shape == (8, 3, 1, 1, 8)
    values = samples.values[ids].transpose(0, 1)[:, :, None, None]
    assert o[values == 0].sum() == 0
    assert o[values == 255].min() == 1
    assert torch.equal(dense(samples, ids.flip(0), e, 1), o.flip(1))
    assert torch.equal(dense(samples, ids[1:], e, 1), o[:, 1:])
    assert not torch.equal(dense(samples, ids, e, 2), o)
    assert torch.equal(dense(samples, ids, e.replace(encoding="static")), values / 255)
    assert samples.encoded_rate(e.window, e.seed) == pytest.approx(
        values.new_tensor(0.0).add(samples.values.double().mean() / 255).item(), abs=1 / 255
    )


def test_adding_labels_are_the_sums_of_the_marked_bits():
    for samples in adding(15):
        ids = torch.arange(len(samples))
        o = dense(samples, ids, Experiment.of(name="x", dataset="adding", network="4-3", T=15))[:, :, 0, 0]
        bits, others, markers, cue = o.unbind(-1)
        assert torch.equal(bits + others, torch.ones_like(bits))
        assert (markers[:6].sum(0) == 1).all()
        assert (markers[6:12].sum(0) == 1).all()
        assert torch.equal((bits * markers).sum(0).long(), samples.labels)
        assert cue.sum(1).tolist() == [0] * 12 + [len(samples)] * CUE
        shares = torch.bincount(samples.labels) / len(samples)
        assert torch.allclose(shares, torch.tensor([0.25, 0.5, 0.25]), atol=0.03)
    assert not torch.equal(adding(15)[0].values[:2000], adding(15)[1].values)


def test_recall_shows_one_pattern_a_class_and_then_noise_alone():
    train, test = recall(14)
    assert not torch.equal(train.values[:2000], test.values)
    for samples in (train, test):
        assert torch.bincount(samples.labels, minlength=8).min() > len(samples) / 8 * 0.8
        o = samples.values[..., :-1].double() / 255
        means = torch.stack([o[samples.labels == k].mean(0) for k in range(8)])
        assert ((means[:, :SHOWN] - 0.5).abs() > 0.4).all()
        assert (means[:, SHOWN:] < 0.1).all()
        assert (samples.values[:, -CUE:, -1] == 255).all()
        assert (samples.values[:, :-CUE, -1] == 0).all()
        shown = means[:, :SHOWN].flatten(1).round()
        assert len(shown.unique(dim=0)) == 8


@pytest.mark.slow
def test_gradients_through_time_learn_to_recall_and_spatial_ones_do_not(tmp_path):
    through_time = stbp.fit(RECALL, out=tmp_path, report=Silent())
    assert through_time.test_accuracy > 0.5
    assert stbp.fit(RECALL, gate="spatial", report=Silent()).test_accuracy < 0.3
    assert stbp.evaluate(tmp_path).accuracy == through_time.test_accuracy


def test_the_readout_counts_the_last_steps_alone():
    run = stbp.fit(RECALL, epochs=1, report=Silent())
    _, test = recall(12)
    with torch.no_grad():
        o = run.network(test.encoded(torch.arange(len(test)), RECALL.window, RECALL.seed, 0, CPU))
    right = o[-3:].sum(0).argmax(1) == test.labels
    assert run.test_accuracy == right.double().mean().item()
    assert run.test_accuracy != (o.sum(0).argmax(1) == test.labels).double().mean().item()


def test_the_reach_of_gradients_is_that_of_the_potential():
    """One neuron that stays within reach and never fires: each step back multiplies the gradient by the decay."""
    net = stbp.nn.build("1-1", decay=0.5, threshold=10.0, width=100.0, gate="detached")
    x = torch.full((6, 1, 1), 0.1)
    reach = gradient_reach(net, x, torch.tensor([0]))
    assert reach[0] > 0
    assert torch.allclose(reach / reach[0], 0.5 ** torch.arange(6.0))
    spatial = stbp.nn.build("1-1", decay=0.5, threshold=10.0, width=100.0, gate="spatial")
    reach = gradient_reach(spatial, x, torch.tensor([0]))
    assert reach[0] > 0
    assert (reach[1:] == 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"readout": 12}, "readout must be at least 1 and less than T, 12; got 12"),
        ({"readout": 0}, "readout must be at least 1"),
        ({"shift": 1}, "shift has no effect with dataset recall"),
        ({"drop": 0.1}, "drop has no effect with dataset recall"),
        ({"folds": 2, "fold": 0}, "folds has no effect with dataset recall"),
        ({"dataset": "mnist-rows"}, "T must be 28, the rows of an image, with dataset mnist-rows; got 12"),
    ],
)
def test_a_field_out_of_range_or_without_effect_is_named(fields, message, unchecked_shapes):
    with pytest.raises(ValueError, match=message):
        RECALL.replace(**fields)


def test_a_window_without_room_and_data_without_use_are_errors(tmp_path):
    for dataset, least in (("adding", 5), ("recall", 8)):
        with pytest.raises(ValueError, match=f"T must be at least {least} with dataset {dataset}"):
            stbp.fit(RECALL, dataset=dataset, T=least - 1, report=Silent())
        with pytest.raises(ValueError, match=f"{dataset} needs no files; omit --data"):
            stbp.fit(RECALL, dataset=dataset, data=tmp_path, report=Silent())
