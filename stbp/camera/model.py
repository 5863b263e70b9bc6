"""Recordings of an event camera before a moving image, as N-MNIST's were made, from any image.

The image, dark ink on a bright screen, is moved along a path and blurred. A pixel's signal is the logarithm of the
light that falls on it, with a floor, after a first-order low-pass, plus noise. Where the signal has risen by
`threshold_on` above the level that the pixel remembers, or fallen by `threshold_off` below it, there is an event, and
after a dead time the pixel remembers the signal anew (P. Lichtsteiner, C. Posch, T. Delbruck, IEEE Journal of
Solid-State Circuits 43(2), 2008). Events that no light caused are strewn over pixels and times. The arithmetic is that
of `stbp/camera/film/reference.py`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from stbp.camera.camera import Camera
from stbp.camera.film.op import film
from stbp.camera.film.reference import FINE, JITTER, MISMATCH, SPREAD, Model
from stbp.data.error import DataError
from stbp.ops.philox import SENSOR, philox

_REACH = 4.5
"""Standard deviations of the blur beyond which light is not counted."""


def simulate(
    images: np.ndarray, camera: Camera, seed: int = 0, samples: Sequence[int] | np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Records images: the events of all recordings, one behind the other, each in the order of time.

    A recording depends on its image, the camera, the seed and its sample alone. It is the same, bit for bit, with
    kernels of any instruction set or none, and with any number of threads.

    Args:
        images: uint8 `[B, h, w]`; 255 is full ink, or full light.
        seed: in [0, 2^32).
        samples: `[B]` ids in [0, 2^32), such as each image's place in its set; 0..B-1 by default.

    Returns:
        The columns `t` (uint32, microseconds), `x`, `y`, `p` (uint8, p = 1 is ON), and `length` (int64 `[B]`), the
        number of events of each recording: as `stbp.data.events.formats.nmnist.decode_all`.

    Raises:
        DataError: images of another type or shape, a seed out of its range, or another number of samples.
    """
    ids = np.arange(len(images)) if samples is None else np.asarray(samples, np.int64)
    if images.dtype != np.uint8 or images.ndim != 3 or 0 in images.shape[1:]:
        raise DataError(f"images must be uint8 [B, h, w]; got {images.dtype} {list(images.shape)}")
    if len(ids) != len(images) or (len(ids) and not 0 <= ids.min() <= ids.max() < 2**32):
        raise DataError(f"samples must be {len(images)} ids in [0, 2^32), one an image; got {len(ids)}")
    if not 0 <= seed < 2**32:
        raise DataError(f"seed must lie in [0, 2^32); got {seed}")
    return film(pixels(camera, *images.shape[1:]), images, positions(camera, ids, seed), ids, seed)


def pixels(camera: Camera, height: int, width: int, sensor_seed: int = 0) -> Model:
    """The numbers that the pixels compute with, for images of this size."""
    table_x, table_y = (_optics(camera.blur_px, scale) for scale in (camera.scale_x, camera.scale_y))
    pattern = np.exp(
        camera.mismatch * _normal(2 * camera.width * camera.height, sensor_seed, np.zeros(1, np.int64), MISMATCH)
    )
    on, off = pattern.reshape(2, camera.width, camera.height).astype(np.float32)
    pixel_seconds = camera.width * camera.height * camera.steps * camera.step_ms / 1000
    return Model(
        table_x=table_x,
        table_y=table_y,
        offset_x=(camera.scale_x * (np.arange(width) - (width - 1) / 2)).astype(np.float32),
        offset_y=(camera.scale_y * (np.arange(height) - (height - 1) / 2)).astype(np.float32),
        base=camera.floor + 1 if camera.ink else camera.floor,
        gain=-1.0 if camera.ink else 1.0,
        floor=camera.floor,
        alpha=1 - math.exp(-camera.step_ms / camera.tau_ms) if camera.tau_ms else 1.0,
        noise=camera.noise / SPREAD,
        on=np.float32(camera.threshold_on) * on,
        off=np.float32(camera.threshold_off) * off,
        dead_on=camera.dead_on_ms / camera.step_ms,
        dead_off=camera.dead_off_ms / camera.step_ms,
        counts_on=_poisson(camera.background_on_hz * pixel_seconds),
        counts_off=_poisson(camera.background_off_hz * pixel_seconds),
        step_us=1000 * camera.step_ms,
    )


def positions(camera: Camera, samples: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
    """Where each recording's image is at every step: float32 `[B, steps + 1, 2]`, x and y in pixels."""
    shake = _normal(3, seed, np.asarray(samples, np.int64), JITTER)
    times, *axes = np.array(camera.path, float).T
    t = np.arange(camera.steps + 1) * camera.step_ms - camera.jitter_ms * shake[:, 2:]
    moved = [np.interp(t, times, axis) + camera.jitter_px * shake[:, n : n + 1] for n, axis in enumerate(axes)]
    return np.stack(moved, -1).astype(np.float32)


def _optics(blur: float, scale: float) -> np.ndarray:
    """Light of an image pixel by the distance: Gaussian, widened by the areas of both pixels."""
    sigma = math.sqrt(blur**2 + (scale**2 + 1) / 12)
    distance = np.arange(math.ceil(_REACH * sigma * FINE) + 2) / FINE
    return (scale * np.exp(-((distance / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))).astype(np.float32)


def _normal(n: int, seed: int, samples: np.ndarray, use: int) -> np.ndarray:
    """n nearly normal numbers for each sample, float64 `[B, n]`: sums of twelve bytes, whole numbers."""
    zero = torch.zeros((), dtype=torch.int64)
    counter = (torch.arange(n), zero, torch.from_numpy(samples)[:, None], zero + use)
    words = philox(counter, (seed, SENSOR))[:3]
    total = sum((word >> shift & 255 for word in words for shift in (0, 8, 16, 24)), start=zero)
    return (total.numpy() - 1530) / math.sqrt(256**2 - 1)


def _poisson(mean: float) -> np.ndarray:
    """The Poisson distribution as a table for 32 random bits, see `Model`."""
    n = np.arange(int(mean + 12 * math.sqrt(mean) + 20))
    if not mean:
        return np.empty(0, np.uint32)
    mass = np.exp(n * math.log(mean) - mean - np.array([math.lgamma(k + 1) for k in n.tolist()]))
    bounds = np.floor(np.cumsum(mass) * 2**32)
    return bounds[bounds < 2**32].astype(np.uint32)
