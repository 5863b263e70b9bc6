"""Parameters of a simulated event camera: sensor, optics, movement. Nothing slow is imported for it.

The numbers of the preset `n-mnist` were fitted to the first 200 training recordings of N-MNIST by
`research/fit_camera.py`.
"""

import dataclasses
import itertools
import json
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources

from stbp.data.error import DataError

LARGEST = 240, 256
"""Rows and columns that N-MNIST's format can address."""
LONGEST_MS = 8000
"""Its times have 23 bits of a microsecond."""
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
        times = [knot[0] for knot in self.path]
        positive = ("duration_ms", "scale_x", "scale_y", "floor", "threshold_on", "threshold_off", "step_ms")
        rules = {
            "height": (1 <= self.height <= LARGEST[0], f"in 1..{LARGEST[0]}"),
            "width": (1 <= self.width <= LARGEST[1], f"in 1..{LARGEST[1]}"),
            "path": (
                bool(self.path)
                and all(len(knot) == 3 and all(map(math.isfinite, knot)) for knot in self.path)
                and all(a < b for a, b in itertools.pairwise(times)),
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
        """Number of steps of a recording."""
        return round(self.duration_ms / self.step_ms)


@cache
def presets() -> dict[str, Camera]:
    """Return `n-mnist`, fitted to real recordings, and `generic`, three straight saccades of the same pixels."""
    text = (resources.files("stbp.camera") / "nmnist_camera.json").read_text(encoding="utf-8")
    fields = json.loads(text)["camera"]
    fitted = Camera(**{**fields, "path": tuple(tuple(map(float, knot)) for knot in fields["path"])})
    return {"n-mnist": fitted, "generic": dataclasses.replace(fitted, path=Camera.path)}
