"""The pixels of an event camera that looks at a moving image: the definition.

All is float32 with each operation rounded once and every sum in the order written here, or whole numbers, so that every
implementation gives the same events, bit for bit. What the numbers mean physically says `stbp/camera/model.py`.
"""

from typing import NamedTuple

import numpy as np
import torch

from stbp.ops.philox import SENSOR, philox

FINE = 64
"""Entries of the optics' tables per pixel."""
NOISE, COUNT, PLACE, JITTER, MISMATCH = range(5)
"""What a random number is for: the fourth word of its counter."""
SPREAD = float(np.sqrt((256**2 - 1) / 3))
"""Standard deviation of the sum of four random bytes."""
_CENTRE = 510
_SPLIT = 0x3F3504F3
"""sqrt(1/2) as bits of a float: mantissas are taken from there up to sqrt(2)."""


class Model(NamedTuple):
    """A sensor of H x W pixels before an image of h x w."""

    # By how much an image pixel in `d` sensor pixels' distance counts along x and y: entry |d| * FINE, [n] each.
    table_x: np.ndarray
    table_y: np.ndarray
    # Distances of the image's columns and rows from its centre, in sensor pixels: [w], [h].
    offset_x: np.ndarray
    offset_y: np.ndarray
    # Light is base + gain * image, at least floor.
    base: float
    gain: float
    floor: float
    # The share of the way to its input that the low-pass goes in one step.
    alpha: float
    # Noise of the signal for one unit of the sum of four bytes.
    noise: float
    # Thresholds, [W, H] each.
    on: np.ndarray
    off: np.ndarray
    # Steps without events after an ON and an OFF event.
    dead_on: float
    dead_off: float
    # Number n of background events: a random word is below entry n of the ascending list and not below entry n - 1.
    counts_on: np.ndarray
    counts_off: np.ndarray
    step_us: float


def log(x: np.ndarray) -> np.ndarray:
    """The natural logarithm of positive numbers, to 2e-7: 2 artanh((m - 1) / (m + 1)) + e log 2 for x = m 2^e."""
    one, f = np.float32(1), np.float32
    bits = x.view(np.int32)
    e = (bits - np.int32(_SPLIT)) >> np.int32(23)
    m = (bits - (e << np.int32(23))).view(np.float32)
    s = (m - one) / (m + one)
    z = s * s
    p = z * f(1 / 9) + f(1 / 7)
    p = p * z + f(1 / 5)
    p = p * z + f(1 / 3)
    p = p * z + one
    return (s + s) * p + e.astype(np.float32) * f(np.log(2))


def weights(table: np.ndarray, offset: np.ndarray, centre: np.ndarray, n: int) -> np.ndarray:
    """Weight of each image column for each of n sensor columns: `[K, n, w]` for centres `[K]`."""
    place = centre[:, None, None] + offset
    a = np.abs(np.arange(n, dtype=np.float32)[:, None] - place) * np.float32(FINE)
    entry = np.minimum(a, np.float32(len(table) - 1)).astype(np.int32)
    low = np.minimum(entry, len(table) - 2)
    between = table[low] + (a - low.astype(np.float32)) * (table[low + 1] - table[low])
    return np.where(entry < len(table) - 1, between, np.float32(0))


def brightness(model: Model, image: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The logarithm of the light on every pixel, `[K, W, H]`, for an image `[h, w]` at positions `[K, 2]`."""
    W, H = model.on.shape
    value = image.astype(np.float32) / np.float32(255)
    across = weights(model.table_x, model.offset_x, position[:, 0], W)
    down = weights(model.table_y, model.offset_y, position[:, 1], H)
    columns = np.zeros((len(position), value.shape[1], H), np.float32)
    for j in range(value.shape[0]):
        columns = columns + value[j][:, None] * down[:, None, :, j]
    seen = np.zeros((len(position), W, H), np.float32)
    for i in range(value.shape[1]):
        seen = seen + across[:, :, i, None] * columns[:, i, None]
    return log(np.maximum(np.float32(model.base) + np.float32(model.gain) * seen, np.float32(model.floor)))


def film(model: Model, image: np.ndarray, position: np.ndarray, sample: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The events of B recordings, one behind the other, each sorted by time, row, column, polarity.

    Between the steps k - 1 and k the signal of a pixel goes straight from v[k-1] to v[k]. An event is where it leaves
    the memorised level by the threshold, at most one in a step; after the dead time the signal is memorised anew.

    Args:
        image: uint8 `[B, h, w]`.
        position: float32 `[B, K + 1, 2]`, x and y of the image's centre at every step, in pixels of the sensor.
        sample: int64 `[B]` in [0, 2^32).
        seed: in [0, 2^32); with the sample it decides all random numbers.

    Returns:
        `t` (uint32, microseconds), `x`, `y`, `p` (uint8), and the number of events of each recording in `length`.
    """
    found = [_recording(model, *one, seed) for one in zip(image, position, sample.tolist(), strict=True)]
    keys = np.concatenate([np.empty(0, np.uint64), *found])
    low = keys.astype(np.uint32)
    x, y, p = ((low >> np.uint32(bits) & np.uint32(255)).astype(np.uint8) for bits in (1, 9, 0))
    length = np.array([len(one) for one in found], np.int64)
    return {"t": (keys >> np.uint64(17)).astype(np.uint32), "x": x, "y": y, "p": p & np.uint8(1), "length": length}


def _recording(model: Model, image: np.ndarray, position: np.ndarray, sample: int, seed: int) -> np.ndarray:
    """Sorted keys: time, y, x, p in 32, 8, 8, 1 bits."""
    f, u = np.float32, brightness(model, image, position)
    keys = [_background(model, p, len(position) - 1, sample, seed) for p in (0, 1)]
    shake = _noise(model, u.shape, sample, seed)
    low, v = u[0], u[0] + shake[0]
    level, free = v, np.full_like(v, -1)  # the memorised level; the step from which on it holds
    for k in range(1, len(position)):
        before, start = v, f(k - 1)
        low = low + f(model.alpha) * (u[k] - low)
        v = low + shake[k]
        waits = free > start
        begin = np.where(waits, free - start, f(0))
        level = np.where(waits & (free <= f(k)), before + begin * (v - before), level)
        d = v - level
        on = (free <= f(k)) & (d > model.on)
        off = (free <= f(k)) & (d < -model.off)
        fired = on | off
        x, y = fired.nonzero()
        e, a, end = on[fired], begin[fired], d[fired]
        first = np.where(waits[fired], f(0), (before - level)[fired])
        aim = np.where(e, model.on[fired], -model.off[fired])
        with np.errstate(divide="ignore"):  # a signal that stands still beyond the threshold: at once
            share = a + (f(1) - a) * ((aim - first) / (end - first))
        t = start + np.minimum(np.maximum(share, a), f(1))
        keys.append(_keys((t * f(model.step_us)).astype(np.uint32), x, y, e))
        free, level = free.copy(), level.copy()
        free[fired] = t + np.where(e, f(model.dead_on), f(model.dead_off))
        again = fired & (free <= f(k))
        level[again] = (before + (free - start) * (v - before))[again]
    return np.sort(np.concatenate(keys))


def _noise(model: Model, shape: tuple[int, ...], sample: int, seed: int) -> np.ndarray:
    """Noise of every step and pixel, `[K + 1, W, H]`: word k % 4 at counter (pixel, k // 4, sample, NOISE)."""
    K, W, H = shape
    zero = torch.zeros((), dtype=torch.int64)
    block = torch.arange(-(-K // 4))[:, None]
    words = torch.stack(philox((torch.arange(W * H), block, zero + sample, zero + NOISE), (seed, SENSOR)), 1)
    total = sum((words.flatten(0, 1)[:K] >> shift & 255 for shift in (0, 8, 16, 24)), start=zero)
    return (total - _CENTRE).numpy().astype(np.float32).reshape(shape) * np.float32(model.noise)


def _background(model: Model, p: int, steps: int, sample: int, seed: int) -> np.ndarray:
    """Events of one polarity that no light caused, evenly over pixels and time."""
    W, H = model.on.shape
    zero, key = torch.zeros((), dtype=torch.int64), (seed, SENSOR)
    word = int(philox((zero, zero + p, zero + sample, zero + COUNT), key)[0])
    n = int(np.searchsorted((model.counts_off, model.counts_on)[p], word, side="right"))
    place, time, *_ = philox((torch.arange(n), zero + p, zero + sample, zero + PLACE), key)
    place, time = place * (W * H) >> 32, time * round(steps * model.step_us) >> 32
    return _keys(time.numpy(), (place // H).numpy(), (place % H).numpy(), np.full(n, p))


def _keys(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    t, x, y, p = (column.astype(np.uint64) for column in (t, x, y, p))
    return t << np.uint64(17) | y << np.uint64(9) | x << np.uint64(1) | p
