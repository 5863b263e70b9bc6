"""The benchmarks as the page's tables show them."""

from dataclasses import dataclass
from typing import Any

from stbp.paper.page.content import NONE


@dataclass(frozen=True)
class Timed:
    """A library on one network."""

    name: str
    ours: bool
    # Does it compute the same spikes and gradients, in the benchmark's words.
    equality: str
    # Milliseconds of a training step, median and quartiles; share of the longest shown, for its bar.
    step: str
    quartiles: str
    share: float
    # How many times as long as ours.
    times: str
    epoch: str
    memory: str


@dataclass(frozen=True)
class Network:
    """A network, and all libraries on it, the fastest first; then the words on those that were not timed."""

    name: str
    task: str
    timed: list[Timed]
    left_out: list[str]


def networks(benchmark: dict[str, Any] | None) -> list[Network]:
    """What `stbp bench --peers` measured; nothing where there is no benchmark."""
    return [_network(name, found) for name, found in (benchmark or {"networks": {}})["networks"].items()]


def _network(name: str, found: dict[str, Any]) -> Network:
    subjects = found["subjects"]
    steps = {key: subject["step"]["median"] for key, subject in subjects.items() if subject["status"] == "timed"}
    longest, ours = max(steps.values()), steps["stbp"]
    order = sorted(steps, key=lambda key: steps[key])
    timed = [_timed(key, subjects[key], steps[key] / longest, steps[key] / ours) for key in order]
    left_out = [f"{key}: {subject['status']}" for key, subject in subjects.items() if key not in steps]
    task = found["task"]
    return Network(name, f"T = {task['T']}, batch {task['batch']}, {found['input']}", timed, left_out)


def _timed(name: str, subject: dict[str, Any], share: float, times: float) -> Timed:
    step, epoch, memory = subject["step"], subject.get("epoch"), subject.get("memory_mib")
    equality = subject.get("equality")
    return Timed(
        name,
        subject["kind"] == "ours",
        "synapses alone, no neurons" if equality is None else equality["verdict"],
        f"{1000 * step['median']:.3g}",
        f"{1000 * step['lower']:.3g} to {1000 * step['upper']:.3g}",
        share,
        f"{times:.1f}",
        NONE if epoch is None else f"{epoch['seconds']:.3g}",
        NONE if memory is None else f"{memory:,.0f}",
    )


def events(benchmark: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Decoding and binning all recordings: name, milliseconds of wall clock, of the processor."""
    clock, processor = (benchmark.get(key, {}) for key in ("seconds", "processor_seconds"))
    return [(name, f"{1000 * clock[name]:,.0f}", f"{1000 * processor[name]:,.0f}") for name in clock]
