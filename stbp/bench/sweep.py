"""`stbp bench --sweep`: one of T, batch, hidden neurons, input density and rate varied around the main point."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stbp.bench import picture, timing
from stbp.bench.axes import AXES, MAIN, SYNTHETIC
from stbp.bench.equality import Reference
from stbp.bench.subject import Entry, Task
from stbp.bench.work import WARM_STEPS, Source, images_source, mnist, synthetic_source, trained
from stbp.files import write_json

CANDIDATES = ("authors' loop", "spikingjelly")  # of them the peer that is fastest at the main point is timed everywhere
SPARE = 0.8  # of the free memory that a task may need by the estimate


@dataclass(frozen=True)
class Point:
    """The main point, except for one axis."""

    axis: str
    value: float

    @property
    def task(self) -> Task:
        fields: dict[str, Any] = {**MAIN, self.axis: self.value}
        return Task(f"784-{fields['N']:.0f}-10", int(fields["T"]), int(fields["batch"]))

    def source(self, images: Source) -> Source:
        share = SYNTHETIC.get(self.axis)
        return images if share is None else synthetic_source(self.task, self.value, share=share)


def points() -> list[Point]:
    return [Point(axis, value) for axis, values in AXES.items() for value in values]


def run(
    subjects: Sequence[Entry],
    rounds: int,
    path: str | Path | None,
    out: Path,
    about: dict[str, Any],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """All points, for ours, our dense path and the fastest peer; writes sweep.json and sweep.png."""
    images = images_source(mnist(path), "MNIST")
    own = [entry for entry in subjects if entry.kind in ("ours", "dense")]
    rivals = [entry for entry in subjects if entry.name in CANDIDATES and entry.installed]
    begun = about.pop("begun")
    if rivals:
        tell("sweep: which peer is the fastest at the main point")
        times = _measure(Point("T", 30.0).task, images, rivals, max(3, rounds // 3))
        own.append(min(rivals, key=lambda entry: times[entry.name]["median"]))
    found = []
    for point in points():
        tell(f"sweep: {point.axis} {point.value:g}")
        measured = _point(point.task, point.source(images), own, rounds)
        found.append({"axis": point.axis, "value": point.value, **measured})
    result = {**about, "main": {**MAIN, **dict.fromkeys(SYNTHETIC, "MNIST")}, "points": found}
    result["seconds"] = round(time.perf_counter() - begun, 1)
    write_json(out / "sweep.json", result)
    picture.draw_sweep(result, out / "sweep.png")
    return result


def _point(task: Task, source: Source, subjects: Sequence[Entry], rounds: int) -> dict[str, Any]:
    needed, free = estimate_mib(task), free_mib()
    if free is not None and needed > SPARE * free:
        return {"did_not_fit": f"about {needed:.0f} MiB needed, {free:.0f} free", "step": {}}
    try:
        return {"step": _measure(task, source, subjects, rounds)}
    except (RuntimeError, MemoryError) as error:
        if "alloc" not in str(error) and not isinstance(error, MemoryError):
            raise
        return {"did_not_fit": "not enough memory", "step": {}}


def estimate_mib(task: Task) -> float:
    """MiB that the dense path holds at once: the input twice, and ten arrays of the size of each neuron layer."""
    layers = sum(int(n) for n in task.network.split("-")[1:])
    return 4 * task.T * task.batch * (2 * task.shape[0] + 10 * layers) / 2**20


def free_mib() -> float | None:
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    return next(int(s.split()[1]) for s in path.read_text().splitlines() if s.startswith("MemAvailable")) / 1024


def _measure(task: Task, source: Source, subjects: Sequence[Entry], rounds: int) -> dict[str, dict[str, Any]]:
    # at batch 1 the weights come from batches of 100: sixty samples teach nothing
    weights = trained(dataclasses.replace(task, batch=max(task.batch, 100)), source)
    x, y = source.spikes(WARM_STEPS, task)
    reference = Reference(task, weights, x, y)
    actions, expected = {}, {}
    for entry in subjects:
        subject = entry.build(task)
        reference.compare(entry, subject)
        subject.start(weights, 0.0)
        placed = subject.place(x, y)
        actions[entry.name] = lambda s=subject, p=placed: s.step(*p)
        _, expected[entry.name] = timing.warm_up(actions[entry.name])
    return {name: dataclasses.asdict(s) for name, s in timing.interleave(actions, expected, rounds).items()}
