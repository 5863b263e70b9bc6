"""Options for making frames of events: one frozen dataclass each for the frames and for augmentation."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

Parts = Literal["step", "time", "events"]

SACCADE_US = 105_000
"""Microseconds that N-MNIST's camera takes for each of its three saccades: `FrameOptions(stop_us=SACCADE_US)` keeps the
first alone."""

DEFAULT_STEP_US = 10_000


@dataclass(frozen=True)
class FrameOptions:
    """Options that divide the events of a recording among T frames.

    Only the events with `start_us <= t < stop_us` count; the others do not exist. An event at time t goes to frame

    - `step`: `floor((t - start_us) / step_us)`; events beyond T frames are left out,
    - `time`: `floor(T (t - first) / (last + 1 - first))`, `first` and `last` the earliest and latest time of
      an event of the window: T parts of equal length that cover all events,
    - `events`: `floor(T j / n)` for the j-th of the window's n events in their recorded order: the sizes of the T parts
      differ by one at most (tonic leaves the last n mod T events out, SpikingJelly puts them into the last part).

    Raises:
        ValueError: a value out of its range, or one that has no effect.
    """

    # Property common to the frames: `step` (a duration), `time` (a share of the duration), `events` (of the events).
    parts: Parts = "step"
    # Microseconds of a frame, at least 1; DEFAULT_STEP_US where None. No other way to divide takes it.
    step_us: int | None = None
    # The window in microseconds; without stop_us it has no end.
    start_us: int = 0
    stop_us: int | None = None
    # Move the events against the path of N-MNIST's camera, so that the digit stands still: see `reference.py`.
    stabilize: bool = False
    # The number of events of each pixel as a dense float32 tensor, instead of whether there was one.
    counts: bool = False

    def __post_init__(self) -> None:
        if self.parts not in get_args(Parts):
            raise ValueError(f"parts must be one of {', '.join(get_args(Parts))}; got {self.parts!r}")
        if self.parts != "step" and self.step_us is not None:
            raise ValueError(f"step_us has no effect with parts {self.parts!r}; omit it; got {self.step_us!r}")
        _check("step_us", self.step, 1, 2**32)
        _check("start_us", self.start_us, 0, 2**32)
        if self.stop_us is not None:
            _check("stop_us", self.stop_us, self.start_us + 1, 2**32)

    @property
    def step(self) -> int:
        """Microseconds of a frame with parts "step"."""
        return DEFAULT_STEP_US if self.step_us is None else self.step_us


@dataclass(frozen=True)
class Augmentation:
    """Random changes to the events of a training sample: each depends on (seed, epoch, sample id) alone.

    Raises:
        ValueError: a value out of its range.
    """

    # The whole recording moves by -shift..shift pixels along x and along y, whole numbers, all equally likely; what
    # leaves the sensor is dropped.
    shift: int = 0
    # Probability of an event to be dropped, in [0, 1].
    drop: float = 0.0
    # Standard deviation in microseconds by which the time of an event changes before it goes to a frame.
    jitter_us: int = 0

    def __post_init__(self) -> None:
        _check("shift", self.shift, 0, 256)
        _check("jitter_us", self.jitter_us, 0, 2**31)
        if not 0 <= self.drop <= 1:
            raise ValueError(f"drop must lie in [0, 1], a probability; got {self.drop!r}")

    @property
    def drop_level(self) -> int:
        """An event is dropped where 24 random bits, as a number, are below this one."""
        return math.ceil(self.drop * 2**24)


def _check(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or not low <= value < high:
        raise ValueError(f"{name} must be a whole number in {low:,}..{high - 1:,}; got {value!r}")
