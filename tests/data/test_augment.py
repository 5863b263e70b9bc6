"""Shifts, elastic distortion and dropped pixels of training images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stbp.config import Experiment
from stbp.data import ImageSet, load
from stbp.data.augment import FINE, augment, elastic_field, kept, moved, shifts
from stbp.ops.philox import IMAGES, philox
from stbp.ops.spikes import Spikes

CPU = torch.device("cpu")
CHANGES = ({"shift": 2}, {"elastic": 1.4}, {"drop": 0.3}, {"shift": 1, "elastic": 0.7, "drop": 0.1})


def example(**fields) -> Experiment:
    return Experiment.of(**{"name": "x", "dataset": "digits", "network": "64-10", "T": 5, **fields})


def images(n: int = 6, channels: int = 1, height: int = 9, width: int = 13) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, channels, height, width), generator=random, dtype=torch.uint8)


@pytest.mark.parametrize("fields", CHANGES)
@given(
    order=st.permutations(range(6)),
    batch=st.integers(1, 6),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(1, 2**32 - 1),
)
def test_what_becomes_of_an_image_depends_on_seed_epoch_and_id_alone(fields, order, batch, threads, seed, epoch):
    e, ids = example(seed=seed, **fields), torch.tensor([0, 1, 2, 1000, 59_999, 2**32 - 1])
    whole = augment(images(), e.window, seed, epoch, ids)
    torch.set_num_threads(threads)
    for part in torch.tensor(order).split(batch):
        assert torch.equal(augment(images()[part], e.window, seed, epoch, ids[part]), whole[part])


@pytest.mark.parametrize("fields", CHANGES)
def test_every_seed_epoch_and_sample_has_a_change_of_its_own(fields):
    e = example(**fields)
    same = images()[:1].expand(400, 1, 9, 13)
    first = augment(same, e.window, 0, 1, torch.arange(400))
    # of the 25 shifts by up to 2 pixels many are alike; nothing else ever is
    assert len(first.flatten(1).unique(dim=0)) == (25 if fields == {"shift": 2} else 400)
    for other in (
        augment(same, e.window, 0, 2, torch.arange(400)),
        augment(same, e.window, 1, 1, torch.arange(400)),
    ):
        assert (first != other).flatten(1).any(1).float().mean() > 0.9


def test_training_epochs_are_changed_before_the_spikes_are_drawn_and_evaluation_is_not():
    train, _ = load("digits")
    ids = torch.tensor([5, 3, 700])
    for fields in CHANGES:
        e = example(seed=3, **fields)

        def spikes(samples: ImageSet, experiment: Experiment, epoch: int) -> torch.Tensor:
            found = samples.encoded(ids, experiment.window, experiment.seed, epoch, CPU)
            assert isinstance(found, Spikes)
            return found.bits

        assert torch.equal(spikes(train, e, 0), spikes(train, example(seed=3), 0))
        changed = train.images.clone()
        changed[ids] = augment(train.images[ids], e.window, 3, 4, ids)
        assert not torch.equal(changed, train.images)
        expected = spikes(ImageSet(changed, train.labels, train.classes), example(seed=3), 4)
        assert torch.equal(spikes(train, e, 4), expected)
        assert train.encoded_rate(e.window, 3) == train.encoded_rate(example().window, 0)


def test_a_shift_moves_the_image_whole_and_zeros_come_in():
    e, ids = example(shift=3, seed=9), torch.arange(50)
    same = images(channels=2)[:1].expand(50, 2, 9, 13)
    for sample, found in enumerate(augment(same, e.window, e.seed, 2, ids)):
        words = philox((torch.tensor(0), torch.tensor(0), torch.tensor(sample), torch.tensor(2)), (9, IMAGES))
        dx, dy = (int(word) * 7 // 2**32 - 3 for word in words[:2])
        expected = torch.zeros(2, 9, 13, dtype=torch.uint8)
        for y in range(9):
            for x in range(13):
                if 0 <= y - dy < 9 and 0 <= x - dx < 13:
                    expected[:, y, x] = same[0, :, y - dy, x - dx]
        assert torch.equal(found, expected)


def test_all_shifts_are_equally_likely_and_x_and_y_are_drawn_apart():
    field = shifts(torch.arange(70_000), 3, 0, 1) // FINE
    counts = torch.bincount((field[:, 0, 0, 0] + 3) * 7 + field[:, 1, 0, 0] + 3, minlength=49)
    assert len(counts) == 49
    assert ((counts - 70_000 / 49).abs() < 5 * (70_000 / 49) ** 0.5).all()


def test_movement_by_parts_of_a_pixel_is_bilinear():
    random = torch.Generator().manual_seed(2)
    field = torch.randint(-5 * FINE, 5 * FINE, (6, 2, 9, 13), generator=random)
    found = moved(images(channels=3), field)
    y, x = torch.meshgrid(torch.arange(9), torch.arange(13), indexing="ij")
    from_x, from_y = x - field[:, 0] / FINE, y - field[:, 1] / FINE
    grid = torch.stack([(2 * from_x + 1) / 13 - 1, (2 * from_y + 1) / 9 - 1], -1)  # as grid_sample counts pixels
    expected = torch.nn.functional.grid_sample(images(channels=3).double(), grid.double(), align_corners=False)
    assert (found.double() - expected).abs().max() <= 0.5 + 1e-3  # rounded to whole numbers


def test_an_image_of_one_brightness_keeps_it_inside_and_none_overflows():
    white = torch.full((3, 1, 9, 13), 255, dtype=torch.uint8)
    field = torch.randint(-300, 300, (3, 2, 9, 13), generator=torch.Generator().manual_seed(3))
    assert (moved(white, field)[..., 2:-2, 2:-2] == 255).all()
    assert (moved(white, field * 1000 * FINE) == 0).all()


@pytest.mark.parametrize("spread", [0.5, 1.4])
def test_elastic_displacements_have_the_stated_spread_everywhere_and_are_smooth(spread):
    field = elastic_field(torch.arange(4000), 28, 20, spread, 0, 1).double() / FINE
    deviation = field.std(0)  # of every pixel, over samples: relative error 1/sqrt(8000)
    assert ((deviation / spread - 1).abs() < 5 / 8000**0.5).all()
    assert field.mean((0, 2, 3)).abs().max() < 0.02 * spread
    along = (field[..., 10, 12] * field[..., 10, 8]).mean(0) / spread**2  # 4 pixels apart: exp(-(4/4)^2 / 4)
    assert torch.allclose(along, torch.full((2,), 0.78, dtype=torch.float64), atol=0.05)
    both = (field[:, 0] * field[:, 1]).mean() / spread**2
    assert both.abs() < 0.02


def test_pixels_are_dropped_at_the_stated_rate_independently():
    stays = kept(torch.arange(2000), 63, 0.3, 0, 1).double()
    assert stays.shape == (2000, 63)
    assert stays.mean().item() == pytest.approx(0.7, abs=5 * (0.21 / 126_000) ** 0.5)
    correlation = torch.corrcoef(stays.T) - torch.eye(63)
    assert correlation.abs().max() < 6 / 2000**0.5
    assert kept(torch.arange(9), 63, 0.0, 0, 1).all()
    assert not kept(torch.arange(9), 63, 1.0, 0, 1).any()


def test_a_pixel_that_stays_is_as_bright_as_it_was_in_all_channels():
    found = augment(images(channels=2), example(drop=0.5).window, 0, 1, torch.arange(6))
    stays = kept(torch.arange(6), 9 * 13, 0.5, 0, 1).view(6, 1, 9, 13)
    assert torch.equal(found, torch.where(stays, images(channels=2), 0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shift": -1}, "shift must be a number of pixels"),
        ({"elastic": -0.1}, r"elastic must be in \[0, 100\]"),
        ({"elastic": float("nan")}, r"elastic must be in \[0, 100\]"),
        ({"drop": 1.5}, r"drop must be in \[0, 1\], a probability"),
        ({"dataset": "n-mnist", "step_ms": 10.0, "elastic": 1.0}, "elastic has no effect with dataset n-mnist"),
    ],
)
def test_a_field_out_of_range_or_without_effect_is_named(fields, message, unchecked_shapes):
    with pytest.raises(ValueError, match=message):
        example(**fields)
