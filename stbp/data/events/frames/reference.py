"""From events to frames: the definition.

All is done in whole numbers, so that every implementation gives the same frames bit for bit.
"""

import torch
from torch import Tensor

from stbp.data.events.frames.options import SACCADE_US, Augmentation, FrameOptions
from stbp.ops.philox import EVENTS, philox
from stbp.ops.spikes import pack_bits

FINE = 2 * SACCADE_US
"""Parts of a pixel in which stabilised coordinates are whole numbers."""


def stabilized(x: Tensor, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of N-MNIST's events if its camera had not moved, in 1/FINE of a pixel, int64.

    The camera is taken to move straight and evenly along a triangle, 105 ms a side: by (3.5, 7), (3.5, -7) and (-7, 0)
    pixels; the result is put back by (4, 2). It is what the option `stabilize` of `tonic.datasets.NMNIST` does (tonic
    1.6 and 1.7, after the Matlab code beside the data sets, https://www.garrickorchard.com/datasets/n-mnist), rounded
    to the nearest pixel, halves to even, as there.
    """
    x, y = FINE * (x + 4), FINE * (y + 2)
    moves = [(-7 * t, -14 * t), (-7 * t, 14 * (t - 2 * SACCADE_US)), (14 * (t - 3 * SACCADE_US), 0 * t)]
    side = (t > SACCADE_US).long() + (t > 2 * SACCADE_US)
    dx, dy = (torch.stack(parts).gather(0, side[None])[0] for parts in zip(*moves, strict=True))
    return x + dx, y + dy


def round_half_even(fine: Tensor) -> Tensor:
    """Whole pixels from coordinates in 1/FINE of a pixel."""
    whole, rest = fine // FINE, fine % FINE
    return whole + ((2 * rest > FINE) | ((2 * rest == FINE) & (whole % 2 == 1)))


def _augmentation(n: int, sample: int, a: Augmentation, seed: int, epoch: int) -> tuple[Tensor, Tensor, int, int]:
    """Mask of those of n events that stay, microseconds by which each is late, and the shift along x and y.

    Event e draws four words at counter (e, 0, sample, epoch) and key (seed, EVENTS): it is dropped where the upper 24
    bits of the first, as a fraction, are below `drop`; the twelve bytes of the others add up to a nearly normal number
    of mean 1530 and standard deviation 256 (to 0.002 %), whose multiples of jitter_us / 256 are rounded up from one
    half. The shifts are the first two words at counter (0, 1, sample, epoch), as fractions of the 2 shift + 1 places.
    """
    key, zero = (seed, EVENTS), torch.zeros((), dtype=torch.int64)
    stays, late = torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64)
    if a.drop or a.jitter_us:  # otherwise no word matters
        words = philox((torch.arange(n), zero, zero + sample, zero + epoch), key)
        stays = words[0] >> 8 >= a.drop_level
        total = sum((word >> shift & 255 for word in words[1:] for shift in (0, 8, 16, 24)), start=zero)
        late = ((total - 1530) * a.jitter_us + 128) >> 8
    place = philox((zero, zero + 1, zero + sample, zero + epoch), key)
    dx, dy = (int((word * (2 * a.shift + 1)) >> 32) - a.shift for word in place[:2])
    return stays, late, dx, dy


def _steps(t: Tensor, late: Tensor, T: int, o: FrameOptions) -> Tensor:
    """The frame of each of the window's events, outside of 0..T-1 where it belongs to none."""
    n = len(t)
    if o.parts == "events":
        return torch.arange(n) * T // max(1, n)
    if o.parts == "step" or n == 0:
        return (t + late - o.start_us) // o.step
    first, last = t.min(), t.max()
    return (t + late - first) * T // (last + 1 - first)


def _one(
    t: Tensor, x: Tensor, y: Tensor, p: Tensor, sample: int, T: int, shape: tuple[int, int], o: FrameOptions,
    a: Augmentation, seed: int, epoch: int,
) -> Tensor:  # fmt: skip
    """The number of events in each frame, row and column of one recording, int64 `[T, 2, H, W]`."""
    H, W = shape
    stays, late, dx, dy = _augmentation(len(t), sample, a, seed, epoch)
    window = (t >= o.start_us) & (t < (2**32 if o.stop_us is None else o.stop_us))
    stays, t, late, x, y, p = (values[window] for values in (stays, t, late, x, y, p))
    step = _steps(t, late, T, o)
    if o.stabilize:
        x, y = stabilized(x, y, t)
        stays = stays & (x >= 0) & (x <= FINE * (W - 1)) & (y >= 0) & (y <= FINE * (H - 1))
        x, y = round_half_even(x), round_half_even(y)
    x, y = x + dx, y + dy
    stays = stays & (step >= 0) & (step < T) & (x >= 0) & (x < W) & (y >= 0) & (y < H)
    place = (((step * 2 + p) * H + y) * W + x)[stays]
    return torch.bincount(place, minlength=T * 2 * H * W).view(T, 2, H, W)


def frames(
    t: Tensor, x: Tensor, y: Tensor, p: Tensor, offsets: Tensor, ids: Tensor, T: int, shape: tuple[int, int],
    options: FrameOptions, augmentation: Augmentation, seed: int, epoch: int,
) -> Tensor:  # fmt: skip
    """Frames of the recordings `ids`, arguments as in `op.frames`.

    Returns:
        packed, uint8 `[T, B, ceil(2HW/8)]`; with `options.counts` float32 `[T, B, 2, H, W]`.
    """
    counted = torch.zeros(T, len(ids), 2, *shape, dtype=torch.int64)
    for b, sample in enumerate(ids.tolist()):
        events = torch.arange(int(offsets[sample]), int(offsets[sample + 1]))
        polarity = (p[events // 8].long() >> events % 8) & 1
        t_, x_, y_ = (values[events].long() for values in (t, x, y))
        counted[:, b] = _one(t_, x_, y_, polarity, sample, T, shape, options, augmentation, seed, epoch)
    return counted.to(torch.float32) if options.counts else pack_bits((counted > 0).flatten(2))
