"""Clocks: steps in interleaved rounds, first epochs in interleaved parts."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from stbp.bench.subject import Entry, Subject, Weights
from stbp.bench.work import RATE, Source

TURN = 0.03  # seconds that a turn lasts at least, over as many steps as that takes
SHORT = 0.15  # a step shorter than this is preceded by one that is not timed: others had the caches
BUDGET = 45.0  # seconds for the rounds of a compiled peer; slower ones get fewer, at least 3
PARTS = 6  # of an epoch
SHARES = ((0.2, 10), (2.0, 4), (math.inf, 1))  # seconds of a step below which so many make a part
WHOLE = 0.5  # seconds of a step of ours up to which its epoch is run to the end


@dataclass(frozen=True)
class Spread:
    """Seconds: median and quartiles of so many rounds."""

    median: float
    lower: float
    upper: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper, len(values))


# Seconds of a call.
Clock = Callable[[Callable[[], object]], float]


def clock(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def warm_up(action: Callable[[], object], again: int = 3, clock: Clock = clock) -> tuple[float, float]:
    """Seconds of the first call, in which compilers work, and of the fastest of a few more."""
    first = clock(action)
    return first, min(clock(action) for _ in range(again))


def turn(action: Callable[[], object], expected: float, clock: Clock = clock) -> float:
    """Seconds of a call: mean over a turn, which is longer than the clock's and the scheduler's grain."""
    if expected < SHORT:
        action()
    calls = max(1, math.ceil(TURN / expected))

    def several() -> None:
        for _ in range(calls):
            action()

    return clock(several) / calls


def interleave(
    actions: Mapping[str, Callable[[], object]],
    expected: Mapping[str, float],
    rounds: int,
    limited: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _: None,
    clock: Clock = clock,
) -> dict[str, Spread]:
    """Time every action in every round, the first to go changing from round to round.

    Args:
        expected: seconds of a call, from a warm-up.
        limited: actions that get fewer rounds where `rounds` of them would take longer than BUDGET.
    """
    names = list(actions)
    values: dict[str, list[float]] = {name: [] for name in names}
    quota = {
        name: max(3, min(rounds, int(BUDGET / (expected[name] + TURN)))) if name in limited else rounds
        for name in names
    }
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if number < quota[name]:
                values[name].append(turn(actions[name], expected[name], clock))
    return {name: spread(found) for name, found in values.items()}


@dataclass(frozen=True)
class Epoch:
    """Seconds of a first epoch; `timed` steps of its `steps` were run, and their mean scaled to all of them."""

    seconds: float
    steps: int
    timed: int


def scaled(parts: Sequence[float], steps_each: int, steps: int) -> Epoch:
    """An epoch of `steps` steps from parts of it of `steps_each` steps; a whole one is the sum of its parts."""
    timed = steps_each * len(parts)
    if timed >= steps:
        return Epoch(sum(parts), steps, steps)
    return Epoch(statistics.mean(parts) / steps_each * steps, steps, timed)


def epochs(
    subjects: Mapping[Entry, tuple[Subject, float]],
    source: Source,
    shape: tuple[int, ...],
    weights: Weights,
    batch: int,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Epoch]:
    """First epochs, from fresh weights; ours a whole one, the others so many steps that each takes seconds.

    Args:
        subjects: with the seconds that a step takes.
    """
    steps = math.ceil(len(source.labels) / batch)
    each = {}
    for entry, (subject, expected) in subjects.items():
        subject.start(weights, RATE)
        whole = entry.kind == "ours" and expected < WHOLE
        each[entry] = math.ceil(steps / PARTS) if whole else next(n for longest, n in SHARES if expected < longest)
        _part(subject, source, shape, batch, range(1))  # encoders may compile
        subject.start(weights, RATE)
    parts: dict[Entry, list[float]] = {entry: [] for entry in subjects}
    for number in range(PARTS):
        tell(f"epoch, part {number + 1} of {PARTS}")
        for entry, (subject, _) in subjects.items():
            which = range(number * each[entry], min(steps, (number + 1) * each[entry]))
            parts[entry].append(clock(lambda s=subject, w=which: _part(s, source, shape, batch, w)))
    return {entry.name: scaled(parts[entry], each[entry], steps) for entry in subjects}


def _part(subject: Subject, source: Source, shape: tuple[int, ...], batch: int, steps: range) -> None:
    for step in steps:
        ids = source.ids(step, batch)
        images = source.images[ids].view(len(ids), *shape)
        subject.step(*subject.encode(images, source.labels[ids], ids))


def set_threads(threads: int) -> None:
    if threads < 1:
        raise ValueError(f"threads must be at least 1; got {threads}")
    torch.set_num_threads(threads)
