"""Frames against a loop over single events that is written from the documentation alone."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stbp.data.events.frames.op import frames
from stbp.data.events.frames.options import SACCADE_US, Augmentation, FrameOptions
from stbp.ops import dispatch
from stbp.ops.philox import philox
from stbp.ops.spikes import Spikes
from tests.isas import isa as isa

H, W = 34, 34
LENGTHS = (500, 0, 1, 37, 900)
Packed = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


pytestmark = pytest.mark.usefixtures("isa")


def recordings(lengths=LENGTHS, last: int = 340_000, seed: int = 0, sensor: int = 34) -> list[np.ndarray]:
    """Random events `[n, 4]` (t, x, y, p), in order of time, some of them on the very edges of bins and saccades."""
    random = np.random.default_rng(seed)
    made = []
    for n in lengths:
        t = np.where(random.random(n) < 0.3, random.integers(0, last // 5000, n) * 5000, random.integers(0, last, n))
        made.append(np.stack([np.sort(t), *random.integers(0, sensor, (2, n)), random.integers(0, 2, n)], 1))
    return made


def packed(events: list[np.ndarray]) -> Packed:
    """The arguments t, x, y, p, offsets of `frames`."""
    t, x, y, p = np.concatenate(events).T
    offsets = np.cumsum([0, *(len(one) for one in events)])
    bits = np.packbits(p == 1, bitorder="little")
    arrays = t.astype(np.uint32), x.astype(np.uint8), y.astype(np.uint8), bits, offsets
    a, b, c, d, e = map(torch.from_numpy, arrays)
    return a, b, c, d, e


def words_of(n: int, what: int, sample: int, seed: int, epoch: int) -> list[list[int]]:
    """The four words at the counters (0, what, sample, epoch) to (n - 1, what, sample, epoch)."""
    counter = torch.arange(n), torch.tensor(what), torch.tensor(sample), torch.tensor(epoch)
    return torch.stack(philox(counter, (seed, 4)), 1).tolist()


def still(t: float, x: float, y: float) -> tuple[float, float]:
    """The stabilisation in floating point: 4 and 2 px of offset, sides of 105 ms of the camera's path."""
    if t <= 105e3:
        return 4 + x - 3.5 * t / 105e3, 2 + y - 7 * t / 105e3
    if t <= 210e3:
        return 4 + x - 3.5 - 3.5 * (t - 105e3) / 105e3, 2 + y - 7 + 7 * (t - 105e3) / 105e3
    return 4 + x - 7 + 7 * (t - 210e3) / 105e3, 2 + y


@functools.cache
def slow(ids: tuple[int, ...], T: int, o: FrameOptions, a: Augmentation, seed: int, epoch: int) -> torch.Tensor:
    """The counts, one event after the other."""
    events = recordings()
    counts = torch.zeros(T, len(ids), 2, H, W)
    stop = float("inf") if o.stop_us is None else o.stop_us
    for b, sample in enumerate(ids):
        draws = words_of(len(events[sample]), 0, sample, seed, epoch)
        place = words_of(1, 1, sample, seed, epoch)[0]
        dx, dy = (w * (2 * a.shift + 1) // 2**32 - a.shift for w in place[:2])
        inside = [int(t) for t, *_ in events[sample] if o.start_us <= t < stop]
        j = -1
        for e, (t, x, y, p) in enumerate(events[sample].tolist()):
            if not o.start_us <= t < stop:
                continue
            j += 1
            if (draws[e][0] >> 8) / 2**24 < a.drop:
                continue
            byte_sum = sum(w >> s & 255 for w in draws[e][1:] for s in (0, 8, 16, 24))
            late = t + int(np.floor((byte_sum - 1530) * a.jitter_us / 256 + 0.5))
            if o.parts == "step":
                k = (late - o.start_us) // (o.step_us or 10_000)
            elif o.parts == "time":
                k = T * (late - inside[0]) // (inside[-1] + 1 - inside[0])
            else:
                k = T * j // len(inside)
            if o.stabilize:
                x, y = still(t, x, y)
                if not (0 <= x <= W - 1 and 0 <= y <= H - 1):
                    continue
                x, y = round(x), round(y)
            x, y = x + dx, y + dy
            if 0 <= k < T and 0 <= x < W and 0 <= y < H:
                counts[k, b, p, y, x] += 1
    return counts


CASES = [
    (30, FrameOptions()),
    *((20, FrameOptions(step_us=ms * 1000)) for ms in (1, 3, 5, 10)),
    (34, FrameOptions(step_us=10_000)),
    (7, FrameOptions(step_us=13_333, start_us=50_001, stop_us=120_000)),
    (21, FrameOptions(step_us=5_000, stop_us=SACCADE_US)),
    (21, FrameOptions(step_us=5_000, start_us=SACCADE_US, stop_us=2 * SACCADE_US)),
    (10, FrameOptions("time")),
    (129, FrameOptions("time", start_us=20_000, stop_us=90_001)),
    (10, FrameOptions("events")),
    (63, FrameOptions("events", start_us=20_000, stop_us=90_001)),
    (1, FrameOptions("events")),
    (30, FrameOptions(stabilize=True)),
    (5, FrameOptions("events", stabilize=True)),
]
CHANGES = [
    Augmentation(),
    Augmentation(shift=3),
    Augmentation(drop=0.4),
    Augmentation(jitter_us=4_000),
    Augmentation(shift=1, drop=0.1, jitter_us=1_000),
]


@pytest.mark.parametrize(("T", "options"), CASES, ids=lambda value: str(value) if isinstance(value, int) else "")
@pytest.mark.parametrize("augmentation", CHANGES, ids=["none", "shift", "drop", "jitter", "all"])
def test_every_option_equals_the_slow_loop(T, options, augmentation, nan_filled_memory):
    if augmentation.jitter_us and options.parts == "events":
        augmentation = dataclasses.replace(augmentation, jitter_us=0)
    ids = (4, 1, 3, 0, 2)
    arrays = (*packed(recordings()), torch.tensor(ids), T, (H, W))
    expected = slow(ids, T, options, augmentation, seed=7, epoch=3)
    binary = frames(*arrays, options, augmentation, seed=7, epoch=3)
    counts = frames(*arrays, dataclasses.replace(options, counts=True), augmentation, seed=7, epoch=3)
    assert isinstance(binary, Spikes)
    assert isinstance(counts, torch.Tensor)
    assert torch.equal(counts, expected)
    assert torch.equal(binary.dense(), (expected > 0).float())


@pytest.mark.parametrize(
    ("T", "options"),
    [(T, o) for T, o in CASES if o.parts != "events"],
    ids=lambda v: str(v) if isinstance(v, int) else "",
)
def test_the_order_of_events_makes_no_difference(T, options):
    random, options = np.random.default_rng(1), dataclasses.replace(options, counts=True)
    shuffled = [random.permutation(one) for one in recordings()]
    sorted_, mixed = (frames(*packed(e), torch.arange(5), T, (H, W), options) for e in (recordings(), shuffled))
    assert isinstance(sorted_, torch.Tensor)
    assert isinstance(mixed, torch.Tensor)
    assert torch.equal(sorted_, mixed)


@pytest.mark.parametrize(("T", "options"), [(7, FrameOptions("time")), (7, FrameOptions(step_us=13))])
def test_every_microsecond_goes_to_its_step_in_any_order(T, options):
    t = np.random.default_rng(2).permutation(100)
    events = np.stack([t, *np.zeros((3, 100), int)], 1)
    counts = frames(*packed([events]), torch.arange(1), T, (H, W), dataclasses.replace(options, counts=True))
    assert isinstance(counts, torch.Tensor)
    steps = T * t // 100 if options.parts == "time" else t // 13
    assert counts[:, 0, 0, 0, 0].tolist() == np.bincount(steps, minlength=T)[:T].tolist()


def test_the_kernel_is_what_runs_unless_switched_off(isa):
    with dispatch.watch() as seen:
        frames(*packed(recordings()), torch.arange(5), 3, (H, W))
    assert [path.kernel for path in seen] == ([] if isa == "off" else ["events"])


@given(
    order=st.permutations(range(5)),
    batch=st.integers(1, 5),
    threads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 2**32 - 1),
)
def test_a_samples_frames_depend_on_seed_epoch_and_id_alone(order, batch, threads, seed, epoch):
    arrays, change = packed(recordings()), Augmentation(2, 0.3, 3_000)

    def made(ids: torch.Tensor) -> torch.Tensor:
        found = frames(*arrays, ids, 9, (H, W), FrameOptions(step_us=40_000), change, seed=seed, epoch=epoch)
        assert isinstance(found, Spikes)
        return found.bits

    whole = made(torch.arange(5))
    torch.set_num_threads(threads)
    for ids in torch.tensor(order).split(batch):
        assert torch.equal(made(ids), whole[:, ids])


def test_seeds_epochs_and_samples_change_in_different_ways():
    """Four equal recordings, two seeds, two epochs: all frames differ; without augmentation all are equal."""
    arrays, ids = packed(recordings([300]) * 4), torch.arange(4)

    def made(change: Augmentation | None, seed: int, epoch: int) -> torch.Tensor:
        found = frames(*arrays, ids, 30, (H, W), None, change, seed=seed, epoch=epoch)
        assert isinstance(found, Spikes)
        return found.bits.transpose(0, 1).flatten(1)

    for change, different in ((Augmentation(drop=0.5), 16), (Augmentation(jitter_us=9_000), 16), (None, 1)):
        rows = torch.cat([made(change, seed, epoch) for seed in (0, 1) for epoch in (0, 1)])
        assert len(rows.unique(dim=0)) == different


def test_shifts_are_even():
    n = 2_000
    arrays, ids = packed([np.array([[100_000, 17, 17, 1]])] * n), torch.arange(n)
    shifted = frames(*arrays, ids, 1, (H, W), FrameOptions("time", counts=True), Augmentation(shift=2))
    assert isinstance(shifted, torch.Tensor)
    place = shifted.sum((0, 1, 2))[15:20, 15:20]
    assert place.sum() == n
    assert (place - n / 25).abs().max() < 5 * (n / 25) ** 0.5


def test_jitter_is_normal():
    n = 10_000
    arrays, ids = packed([np.array([[100_000, 0, 0, 1]] * n)]), torch.tensor([0])
    late = frames(*arrays, ids, 2000, (1, 1), FrameOptions(step_us=100, counts=True), Augmentation(jitter_us=5_000))
    assert isinstance(late, torch.Tensor)
    share = late.sum((1, 2, 3, 4)) / n
    steps = torch.arange(2000) - 999.5
    assert abs((share * steps).sum().item()) < 5 * 50 / n**0.5
    assert abs((share * steps**2).sum().sqrt().item() - 50) < 2
    assert abs(share[950:1050].sum().item() - 0.6827) < 0.025
    assert abs(share[900:1100].sum().item() - 0.9545) < 0.011


def test_dropping_everything_leaves_nothing_and_the_share_is_as_asked():
    arrays, ids = packed(recordings([4_000])), torch.tensor([0])

    def left(drop: float) -> float:
        found = frames(*arrays, ids, 40, (H, W), FrameOptions(counts=True), Augmentation(drop=drop))
        assert isinstance(found, torch.Tensor)
        return found.sum().item()

    assert left(1.0) == 0
    assert left(0.0) == 4_000
    assert abs(left(0.25) - 3_000) < 5 * (4_000 * 0.25 * 0.75) ** 0.5


def test_events_off_the_sensor_are_left_out():
    found = frames(*packed(recordings(sensor=50)), torch.arange(5), 34, (H, W), FrameOptions(counts=True))
    assert isinstance(found, torch.Tensor)
    inside = sum(int(((one[:, 1] < W) & (one[:, 2] < H)).sum()) for one in recordings(sensor=50))
    assert found.sum() == inside


def test_odd_sensors_and_empty_batches():
    arrays = packed(recordings(sensor=7))
    whole = frames(*arrays, torch.arange(5), 40, (5, 7), FrameOptions(counts=True))
    bits = frames(*arrays, torch.arange(5), 40, (5, 7))
    assert isinstance(whole, torch.Tensor)
    assert isinstance(bits, Spikes)
    assert torch.equal(bits.dense(), (whole > 0).float())
    assert frames(*arrays, torch.arange(0), 3, (5, 7)).shape == (3, 0, 2, 5, 7)


def test_times_up_to_the_last_microsecond_of_32_bits():
    last = 2**32 - 1
    arrays = packed([np.array([[0, 1, 2, 0], [last, 3, 4, 1]])])
    for options, T in ((FrameOptions("time", counts=True), 5), (FrameOptions(step_us=2**30, counts=True), 4)):
        found = frames(*arrays, torch.tensor([0]), T, (H, W), options)
        assert isinstance(found, torch.Tensor)
        assert [tuple(place) for place in found.nonzero().tolist()] == [(0, 0, 0, 2, 1), (T - 1, 0, 1, 4, 3)]


@pytest.mark.parametrize(("T", "options"), [(30, FrameOptions()), (63, FrameOptions("events", stabilize=True))])
@pytest.mark.parametrize("change", [Augmentation(), Augmentation(shift=3, drop=0.2)])
def test_coordinates_of_two_bytes_give_the_same(T: int, options: FrameOptions, change: Augmentation):
    t, x, y, p, offsets = packed(recordings())
    wide_x, wide_y = (torch.from_numpy(values.numpy().astype(np.uint16)) for values in (x, y))
    ids = torch.arange(5)
    one = frames(t, x, y, p, offsets, ids, T, (H, W), options, change, epoch=1)
    other = frames(t, wide_x, wide_y, p, offsets, ids, T, (H, W), options, change, epoch=1)
    assert torch.equal(*(f.bits if isinstance(f, Spikes) else f for f in (one, other)))


def test_a_sensor_may_have_more_than_256_columns():
    t, _, _, p, offsets = packed(recordings())
    x, y = np.random.default_rng(0).integers(0, (346, 260), (len(t), 2)).astype(np.uint16).T
    x_, y_ = map(torch.from_numpy, (x.copy(), y.copy()))
    found = frames(t, x_, y_, p, offsets, torch.tensor([4]), 1, (260, 346), FrameOptions("time", counts=True))
    assert isinstance(found, torch.Tensor)
    on = np.unpackbits(p.numpy(), bitorder="little")[offsets[4] : offsets[5]]
    expected = torch.zeros(2, 260, 346)
    for place in zip(on.tolist(), y[offsets[4] :].tolist(), x[offsets[4] :].tolist(), strict=True):
        expected[place] += 1
    assert torch.equal(found[0, 0], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"T": 0}, "T must be a whole number of frames"),
        ({"ids": torch.tensor([5])}, r"ids must lie in 0..4; got 5 to 5"),
        ({"ids": torch.tensor([-1])}, "ids must lie in"),
        ({"offsets": torch.tensor([0, 5, 4, 1438, 1438, 1438])}, "offsets must rise"),
        ({"offsets": torch.tensor([0, 1, 2, 3, 4, 5000])}, "offsets must rise"),
        ({"x": torch.zeros(3, dtype=torch.uint8)}, r"x must be torch.uint8 \[1438\]"),
        ({"t": torch.zeros(1438, dtype=torch.int64)}, "t must be torch.uint32"),
        ({"x": torch.zeros(1438, dtype=torch.uint16)}, r"y must be torch.uint16 \[1438\]"),
        ({"shape": (34, 65537)}, "shape must be height and width, each in 1..65,536"),
        ({"seed": -1}, "seed must lie in"),
        ({"options": FrameOptions("events"), "augmentation": Augmentation(jitter_us=1)}, "jitter_us has no effect"),
    ],
)
def test_arguments_out_of_range_are_named(changes, message, unchecked_shapes):
    names = ("t", "x", "y", "p", "offsets", "ids", "T", "shape")
    arguments = dict(zip(names, (*packed(recordings()), torch.arange(5), 3, (H, W)), strict=True))
    with pytest.raises(ValueError, match=message):
        frames(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FrameOptions("saccade"), "parts must be one of step, time, events"),  # pyright: ignore
        (lambda: FrameOptions(step_us=0), "step_us must be a whole number in 1"),
        (lambda: FrameOptions("time", step_us=1000), "step_us has no effect"),
        (lambda: FrameOptions(start_us=-1), "start_us must be"),
        (lambda: FrameOptions(start_us=5, stop_us=5), "stop_us must be a whole number in 6"),
        (lambda: Augmentation(shift=-1), "shift must be"),
        (lambda: Augmentation(drop=1.5), r"drop must lie in \[0, 1\]"),
        (lambda: Augmentation(drop=float("nan")), "drop must lie in"),
        (lambda: Augmentation(jitter_us=0.5), "jitter_us must be a whole number"),  # pyright: ignore
    ],
)
def test_options_out_of_range_are_named(make, message, unchecked_shapes):
    with pytest.raises(ValueError, match=message):
        make()
