"""Recordings of an event camera before a moving image, as N-MNIST's were made, from any image.

The image, dark ink on a bright screen, is moved along a path and blurred. A pixel's signal is the logarithm of the
light that falls on it, with a floor, after a first-order low-pass, plus noise. Where the signal has risen by
`threshold_on` above the level that the pixel remembers, or fallen by `threshold_off` below it, there is an event, and
after a dead time the pixel remembers the signal anew (P. Lichtsteiner, C. Posch, T. Delbruck, IEEE Journal of
Solid-State Circuits 43(2), 2008). Events that no light caused are strewn over pixels and times. The arithmetic is that
of `stbp/camera/film/reference.py`.

The numbers of the preset `n-mnist` were fitted to the first 200 training recordings of N-MNIST by `stbp data fit`.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch

from stbp.camera.film.op import film
from stbp.camera.film.reference import FINE, JITTER, MISMATCH, SPREAD, Model
from stbp.data.error import DataError
from stbp.ops.philox import SENSOR, philox

LARGEST = 240, 256
"""Rows and columns that N-MNIST's format can address."""
LONGEST_MS = 8000
"""Its times have 23 bits of a microsecond."""
_REACH = 4.5
"""Standard deviations of the blur beyond which light is not counted."""

Path = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Camera:
    """A sensor, its optics and its movement. Distances are in pixels of the sensor, signals in natural-log units.

    Raises:
        DataError: a value out of its range.
    """

    # Pixels of the sensor.
    height: int = 34
    width: int = 34
    # Where the centre of the image is seen: (ms, x, y), straight and evenly in between, at rest before and behind.
    path: Path = ((0.0, 14.0, 15.0), (100.0, 16.0, 20.0), (200.0, 19.0, 15.0), (300.0, 14.0, 15.0))
    # Length of the recording.
    duration_ms: float = 310.0
    # Sensor pixels that an image pixel covers along x and y.
    scale_x: float = 1.0
    scale_y: float = 1.0
    # Standard deviation of the optical blur, besides the areas of both kinds of pixel.
    blur_px: float = 0.5
    # The image's values are ink on a bright screen, as N-MNIST's behave, or light on a dark one.
    ink: bool = True
    # The light of the darkest place, as a share of the difference between bright and dark.
    floor: float = 0.2
    # Time constant of the pixel's low-pass.
    tau_ms: float = 1.0
    # Change of the logarithm of the light that makes an event.
    threshold_on: float = 0.25
    threshold_off: float = 0.25
    # Relative standard deviation of the thresholds over the sensor, a fixed pattern.
    mismatch: float = 0.02
    # Standard deviation of the noise of the signal, independent in every step, straight in between.
    noise: float = 0.03
    # Time after an event in which the pixel sees nothing.
    dead_on_ms: float = 1.9
    dead_off_ms: float = 1.5
    # Events without a cause, for each pixel.
    background_on_hz: float = 0.3
    background_off_hz: float = 0.015
    # Standard deviations by which whole recordings differ in position, along x and y, and in time.
    jitter_px: float = 0.1
    jitter_ms: float = 1.5
    # Step of the integration; event times are finer.
    step_ms: float = 1.0

    def __post_init__(self) -> None:
        knots = np.array(self.path, float)
        positive = ("duration_ms", "scale_x", "scale_y", "floor", "threshold_on", "threshold_off", "step_ms")
        rules = {
            "height": (1 <= self.height <= LARGEST[0], f"in 1..{LARGEST[0]}"),
            "width": (1 <= self.width <= LARGEST[1], f"in 1..{LARGEST[1]}"),
            "path": (
                knots.ndim == 2
                and knots.shape[1] == 3
                and bool(np.isfinite(knots).all() and (np.diff(knots[:, 0]) > 0).all()),
                "triples (ms, x, y) in the order of time",
            ),
            **{name: (0 < getattr(self, name) < math.inf, "positive") for name in positive},
            **{
                field.name: (0 <= getattr(self, field.name) < math.inf, "0 or more")
                for field in dataclasses.fields(self)
                if field.type is float and field.name not in positive
            },
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise DataError(f"{name} must be {rule}; got {getattr(self, name)!r}")
        if self.steps < 1 or self.steps * self.step_ms > LONGEST_MS:
            raise DataError(
                f"duration_ms must be at least step_ms, {self.step_ms}, and at most {LONGEST_MS:,}; "
                f"got {self.duration_ms}"
            )

    @property
    def steps(self) -> int:
        """Of a recording."""
        return round(self.duration_ms / self.step_ms)

    def model(self, height: int, width: int, sensor_seed: int = 0) -> Model:
        """The numbers that the pixels compute with, for images of this size."""
        table_x, table_y = (_optics(self.blur_px, scale) for scale in (self.scale_x, self.scale_y))
        pattern = np.exp(
            self.mismatch * _normal(2 * self.width * self.height, sensor_seed, np.zeros(1, np.int64), MISMATCH)
        )
        on, off = pattern.reshape(2, self.width, self.height).astype(np.float32)
        pixel_seconds = self.width * self.height * self.steps * self.step_ms / 1000
        return Model(
            table_x=table_x,
            table_y=table_y,
            offset_x=(self.scale_x * (np.arange(width) - (width - 1) / 2)).astype(np.float32),
            offset_y=(self.scale_y * (np.arange(height) - (height - 1) / 2)).astype(np.float32),
            base=self.floor + 1 if self.ink else self.floor,
            gain=-1.0 if self.ink else 1.0,
            floor=self.floor,
            alpha=1 - math.exp(-self.step_ms / self.tau_ms) if self.tau_ms else 1.0,
            noise=self.noise / SPREAD,
            on=np.float32(self.threshold_on) * on,
            off=np.float32(self.threshold_off) * off,
            dead_on=self.dead_on_ms / self.step_ms,
            dead_off=self.dead_off_ms / self.step_ms,
            counts_on=_poisson(self.background_on_hz * pixel_seconds),
            counts_off=_poisson(self.background_off_hz * pixel_seconds),
            step_us=1000 * self.step_ms,
        )

    def positions(self, samples: Sequence[int] | np.ndarray, seed: int) -> np.ndarray:
        """Where each recording's image is at every step: float32 `[B, steps + 1, 2]`, x and y in pixels."""
        shake = _normal(3, seed, np.asarray(samples, np.int64), JITTER)
        times, *axes = np.array(self.path, float).T
        t = np.arange(self.steps + 1) * self.step_ms - self.jitter_ms * shake[:, 2:]
        moved = [np.interp(t, times, axis) + self.jitter_px * shake[:, n : n + 1] for n, axis in enumerate(axes)]
        return np.stack(moved, -1).astype(np.float32)


@cache
def presets() -> dict[str, Camera]:
    """`n-mnist`, fitted to real recordings, and `generic`, three straight saccades of the same pixels."""
    text = (resources.files("stbp.camera") / "nmnist_camera.json").read_text(encoding="utf-8")
    fitted = camera(json.loads(text)["camera"])
    return {"n-mnist": fitted, "generic": dataclasses.replace(fitted, path=Camera.path)}


def camera(fields: dict[str, Any]) -> Camera:
    """A camera from JSON."""
    return Camera(**{**fields, "path": tuple(tuple(map(float, knot)) for knot in fields["path"])})


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
    return film(camera.model(*images.shape[1:]), images, camera.positions(ids, seed), ids, seed)


def _optics(blur: float, scale: float) -> np.ndarray:
    """How an image pixel's light falls off with the distance: Gaussian, widened by the areas of both pixels."""
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
