"""Experiments on recordings: what the loop is given is what `EventSet.frames` makes with the experiment's options."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import stbp
from stbp.cli.train import Train
from stbp.config import Experiment
from stbp.data import DataError, DataSet
from stbp.data.dataset import Samples, Windows
from stbp.data.events.formats.nmnist import encode
from stbp.data.events.formats.record import empty
from stbp.data.events.frames.options import Augmentation, FrameOptions
from stbp.data.events.windows import EventWindows, window_of
from stbp.experiments import registry, results
from stbp.experiments.datasets import for_experiment, warn_of_part
from stbp.experiments.predict import predict_files
from stbp.ops.spikes import Spikes
from stbp.plot import runs
from stbp.plot.style import save
from stbp.train.progress import Silent

from ..conftest import REAL_DATA

CPU = torch.device("cpu")


def example(**fields: Any) -> Experiment:
    return Experiment.of(**{"name": "x", "dataset": "n-mnist", "network": "34x34x2-8-2", "step_ms": 10.0, **fields})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 training and 6 test recordings: class 0 is seen at the left, class 1 at the right."""
    random = np.random.default_rng(0)
    for split, n in (("Train", 12), ("Test", 6)):
        for i in range(n):
            events = empty(400)
            events["t"] = np.sort(random.integers(0, 300_000, 400))
            events["x"] = random.integers(0, 17, 400) + 17 * (i % 2)
            events["y"] = random.integers(0, 34, 400)
            events["p"] = random.integers(0, 2, 400)
            path = tmp_path / "data" / split / str(i % 2) / f"{i:05}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(events))
    return tmp_path / "data"


@pytest.fixture
def sets(folder) -> tuple[EventWindows, EventWindows]:
    train, test = (windows.samples for windows in for_experiment(example(), folder))
    assert isinstance(train, EventWindows)
    assert isinstance(test, EventWindows)
    return train, test


def window(samples: EventWindows, e: Experiment, epoch: int) -> Tensor | Spikes:
    return Windows(samples, e.window, e.seed).window(IDS, epoch, CPU)


def same(found: Tensor | Spikes, expected: Tensor | Spikes) -> bool:
    a, b = (one.dense() if isinstance(one, Spikes) else one for one in (found, expected))
    return torch.equal(a, b)


IDS = torch.tensor([3, 0, 5])


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, FrameOptions(step_us=10_000)),
        ({"step_ms": 2.5}, FrameOptions(step_us=2500)),
        ({"counts": True}, FrameOptions(step_us=10_000, counts=True)),
        ({"first_saccade": True}, FrameOptions(step_us=10_000, stop_us=105_000)),
        ({"stabilize": True}, FrameOptions(step_us=10_000, stabilize=True)),
    ],
)
def test_each_field_is_the_option_it_says(sets, fields, options):
    e = example(**fields)
    expected = sets[0].recordings.frames(IDS, 30, options)
    found = window(sets[0], e, 0)
    assert isinstance(found, Tensor) == e.counts
    assert same(found, expected)
    if fields:
        assert not same(found, window(sets[0], example(), 0))


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        ({"shift": 4}, Augmentation(shift=4)),
        ({"drop": 0.5}, Augmentation(drop=0.5)),
        ({"jitter_ms": 20.0}, Augmentation(jitter_us=20_000)),
    ],
)
def test_training_epochs_are_augmented_and_evaluation_is_not(sets, fields, change):
    e = example(seed=7, **fields)
    plain = window(sets[0], example(seed=7), 0)
    assert same(window(sets[0], e, 0), plain)
    first = window(sets[0], e, 1)
    assert same(first, sets[0].recordings.frames(IDS, 30, FrameOptions(step_us=10_000), change, seed=7, epoch=1))
    assert not same(first, plain)
    assert not same(first, window(sets[0], e, 2))


def test_it_keeps_the_contract_of_a_data_set(sets):
    samples: Samples = sets[0]
    assert isinstance(samples, Samples)
    assert isinstance(Windows(samples, example().window), DataSet)
    assert len(samples) == 12
    assert samples.classes == ("0", "1")
    assert samples.shape == (2, 34, 34)
    dense = sets[0].recordings.frames(torch.arange(12), 30, FrameOptions(step_us=10_000))
    assert isinstance(dense, Spikes)
    assert samples.encoded_rate(example().window, 0) == pytest.approx(dense.density(), abs=1e-9)
    assert samples.encoded_rate(example(T=1, step_ms=1000.0, counts=True).window, 0) <= 1.0
    right = int((samples.labels == 1).nonzero()[0])
    picture = samples.picture(right)
    assert picture.max() == 255
    assert (picture[..., :17] == 0).all()
    assert (picture[..., 17:] > 0).any()


def test_a_network_learns_recordings_and_the_run_can_be_read_again(folder, tmp_path, caplog):
    warn_of_part.cache_clear()
    with caplog.at_level(logging.WARNING, logger="stbp.data"):
        run = stbp.fit(
            example(epochs=12, learning_rate=1e-2, batch_size=4, shift=1),
            data=folder,
            out=tmp_path / "run",
            report=Silent(),
        )
        assert run.test_accuracy == 1.0
        assert stbp.evaluate(tmp_path / "run", data=folder).accuracy == 1.0
    assert caplog.text.count("a part of the set, 12 training and 6 test recordings of 60,000 and 10,000") == 1
    assert stbp.load_run(tmp_path / "run").shape == (2, 34, 34)
    test_set = for_experiment(run.experiment, folder)[1]
    assert "2,312 pixels" in runs.raster(run, test_set, 0).axes[0].get_title("left")
    save(runs.weights(run, (2, 34, 34)), tmp_path / "weights.png")


def test_predict_labels_recordings_as_evaluation_does(folder, sets, tmp_path):
    run = stbp.fit(example(epochs=3, learning_rate=1e-2, batch_size=4), data=folder, report=Silent())
    files = [folder / "Test" / name for name in sets[1].recordings.names]
    found = predict_files(run, files)
    outputs = run.network(sets[1].encoded(torch.arange(6), run.experiment.window, 0, 0, CPU)).sum(0)
    assert [list(p.counts.values()) for p in found] == outputs.int().tolist()
    assert {p.remark for p in found} <= {"", "no output neuron fired: the label is a guess"}
    with pytest.raises(ValueError, match="--invert has no effect on the recordings"):
        predict_files(run, files, invert=True)
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\nno recording")
    with pytest.raises(ValueError, match=r"x.png: no recording of a known format"):
        predict_files(run, [tmp_path / "x.png"])


def test_a_recording_of_another_sensor_or_after_71_minutes_is_named():
    events = empty(2)
    events["t"], events["x"], events["y"], events["p"] = [5, 9], [3, 40], [1, 2], [0, 1]
    with pytest.raises(DataError, match=r"a.bin: its events reach 41 x 3 pixels, the network is for 34 x 34"):
        window_of(events, example().window, (34, 34), "a.bin")
    events["x"], events["t"] = [3, 4], [5, 2**32]
    with pytest.raises(DataError, match="times must lie in"):
        window_of(events, example().window, (34, 34), "a.bin")
    nothing = window_of(empty(0), example().window, (34, 34), "a.bin")
    assert isinstance(nothing, Spikes)
    assert nothing.density() == 0


def test_counts_and_a_convolution_train(folder):
    e = example(network="34x34x2-4C5-P2-2", counts=True, epochs=1, T=5, step_ms=60.0)
    assert stbp.fit(e, data=folder, report=Silent()).history[0]["train_loss"] > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"step_ms": None}, "dataset n-mnist needs step_ms; set it"),
        ({"encoding": "static"}, "encoding has no effect with dataset n-mnist, only with .*; omit it; got 'static'"),
        ({"image_size": 34}, "image_size has no effect with dataset n-mnist, only with pedestrian or folder"),
        ({"drop": 1.5}, r"drop must be in \[0, 1\], a probability; got 1.5"),
        ({"shift": -1}, "shift must be a number of pixels"),
        ({"step_ms": 0.0}, "step_ms must be in"),
        ({"counts": 1}, "counts must be bool; got 1"),
        ({"neuron": "relu", "T": 1}, "neuron relu needs init torch"),
    ],
)
def test_a_field_without_effect_or_out_of_range_is_named(fields, message, unchecked_shapes):
    with pytest.raises(ValueError, match=message):
        example(**fields)


@pytest.mark.parametrize(
    "fields", [{"step_ms": 1.0}, {"counts": True}, {"jitter_ms": 1.0}, {"stabilize": True}, {"first_saccade": True}]
)
def test_a_field_of_recordings_is_an_error_on_images(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        Experiment.of(name="x", dataset="digits", network="64-10", **fields)


def test_the_command_of_a_result_says_yes_and_no_as_the_command_line_does():
    e = registry.experiments()["nmnist-mlp"].replace(stabilize=True)
    assert results.command(e) == "stbp train nmnist-mlp --stabilize --data DIR"
    import tyro

    parsed = tyro.cli(Train, args=["--stabilize"], default=Train(registry.experiments()["nmnist-mlp"]))
    assert parsed.experiment == e


@pytest.mark.slow
@pytest.mark.skipif(not REAL_DATA, reason="STBP_DATA does not name a folder of data sets")
def test_real_recordings_are_learnt():
    run = stbp.fit("nmnist-mlp", network="34x34x2-100-10", epochs=8, data=REAL_DATA, report=Silent())
    assert run.test_accuracy > 0.6
