"""Comparison of the paper's numbers with ours, row by row: with seeds and intervals, and by the paper's statistic."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table as Grid

from stbp.config import Experiment, default
from stbp.experiments import results as report
from stbp.experiments.stats import Estimate, Spread, estimate, last_epochs, paired
from stbp.paper.tables import Curve, Figure, Row, Table, parts

StandIn = Callable[[Experiment], Experiment]  # what is run for an experiment: itself, or a smaller one


@dataclass(frozen=True)
class Measured:
    """Facts known of one experiment; the estimates are None while it has not been run."""

    preset: Literal["paper", "tuned"]
    name: str
    command: str
    # Estimate of the last epoch's test accuracy, over seeds or folds, as `over` says.
    accuracy: Estimate | None = None
    over: str = "not yet run"
    # Ours minus the paper's, with the interval of our mean alone: the paper's number is one run. None on other data.
    difference: Estimate | None = None
    # The paper's own statistic, of the first run.
    last: Spread | None = None
    # How many runs were stopped after their first epoch, because they cannot learn, and what health says of the first.
    # Where others were not, the accuracy is theirs alone, and no difference is given.
    stopped: int = 0
    health: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """The same experiment with the gradient through time and without it: the mean difference over common seeds."""

    stbp: str
    sdbp: str
    difference: Estimate


@dataclass(frozen=True)
class Compared:
    """A row or curve of the paper, and what we measured for it."""

    printed: Row | Curve
    measured: tuple[Measured, ...]


def find(results: Iterable[dict[str, Any]], experiment: Experiment) -> dict[str, Any] | None:
    """Result with the most runs, among those of an experiment; None where there is none."""
    return max((r for r in results if _is_of(r, experiment)), key=lambda r: len(r["runs"]), default=None)


def find_stopped(results: Iterable[dict[str, Any]], experiment: Experiment) -> dict[str, Any] | None:
    """The result of those of its runs that were stopped after the first epoch, because they cannot learn."""
    first = experiment.replace(epochs=1)
    return find(filter(report.silent, results), first)


def _is_of(result: dict[str, Any], experiment: Experiment) -> bool:
    if result["experiment"]["name"] != experiment.name or result.get("folds") != experiment.folds:
        return False
    return all(
        result["experiment"].get(name, default(name)) == value  # or before it existed
        for name, value in experiment.flat().items()
        if name not in report.VARIED
    )


def compare(
    group: Table | Figure, results: Sequence[dict[str, Any]], stand_in: StandIn = lambda e: e
) -> list[Compared]:
    """Every row of a table, or curve of a figure, with what the results hold of its experiments."""
    return [
        Compared(
            part,
            (
                *(_measured("paper", stand_in(e), part, results) for e in part.paper),
                *(_measured("tuned", stand_in(e), part, results) for e in part.tuned),
            ),
        )
        for part in parts(group)
    ]


def _measured(
    preset: Literal["paper", "tuned"], experiment: Experiment, part: Row | Curve, results: Sequence[dict[str, Any]]
) -> Measured:
    full, stopped = find(results, experiment), find_stopped(results, experiment)
    result = full or stopped
    if result is None:
        return Measured(preset, experiment.name, report.command(experiment))
    ours = estimate(result["test_accuracy"])
    printed = part.printed if isinstance(part, Row) and part.data == "same" and not stopped else None
    return Measured(
        preset,
        experiment.name,
        result["command"],
        accuracy=ours,
        over=report.over(result),
        difference=None if printed is None else _minus(ours, printed),
        last=last_epochs(result["runs"][0]["metrics"]),
        stopped=len(stopped["runs"]) if stopped else 0,
        health=tuple(stopped["runs"][0]["summary"]["health"]) if stopped else (),
    )


def _minus(ours: Estimate, printed: float) -> Estimate:
    low, high = (None if end is None else end - printed for end in (ours.low, ours.high))
    return Estimate(ours.mean - printed, ours.sd, low, high, ours.n)


def pairs(group: Table | Figure, results: Sequence[dict[str, Any]], stand_in: StandIn = lambda e: e) -> list[Pair]:
    """STBP minus SDBP, seed by seed, wherever two experiments of a group differ in nothing else."""
    known = [stand_in(e) for part in parts(group) for e in (*part.paper, *part.tuned)]
    found = []
    for sdbp in (e for e in known if e.gate == "spatial"):
        for stbp in (e for e in known if e.gate != "spatial"):
            if stbp.replace(name=sdbp.name, gate="spatial") != sdbp:
                continue
            difference = paired(_by_seed(find(results, stbp)), _by_seed(find(results, sdbp)))
            if difference is not None:
                found.append(Pair(stbp.name, sdbp.name, difference))
    return found


def _by_seed(result: dict[str, Any] | None) -> dict[int, float]:
    """Test accuracy of every seed of a result without folds."""
    return {} if result is None else dict(zip(result["seeds"], result["test_accuracy"], strict=True))


def grid(compared: Sequence[Compared]) -> Grid:
    """The comparison as a table for a terminal, accuracies in per cent, differences in points."""
    table = Grid("", "accuracy, %", "", "minus the paper's", "last epochs of one run", box=None, padding=(0, 2, 0, 0))
    for row in compared:
        table.add_row(*_printed(row.printed), style=None if row.measured else "dim")
        for measured in row.measured:
            table.add_row(f"  {measured.name}", *_cells(measured))
    return table


def _printed(part: Row | Curve) -> tuple[str, ...]:
    """Cells of what the paper says: method, accuracy, how sure that is, no difference, interval."""
    if isinstance(part, Curve):
        return (part.label,)
    skill = "" if part.skill == "none" else f", {part.skill}"
    network = f", {part.network}" if part.network else ""
    number = "" if part.printed is None else f"{100 * part.printed:.2f}"
    spread = "" if part.interval is None else f"      [{100 * part.interval[0]:.2f}, {100 * part.interval[1]:.2f}]"
    return f"{part.label}{network}{skill}", number, part.certainty or "", "", spread


def _cells(measured: Measured) -> tuple[str, ...]:
    """Cells of what we measured: accuracy, over what, difference, the last epochs of one run."""
    if measured.accuracy is None or measured.last is None:
        return "", measured.over
    last = measured.last
    epochs = f"{100 * last.mean:.2f} [{100 * last.low:.2f}, {100 * last.high:.2f}]"
    over = measured.over
    if measured.stopped:
        over += f", stopped: {measured.stopped}"
    difference = "" if measured.difference is None else points(measured.difference)
    return (
        report.mean_and_sd(measured.accuracy),
        over,
        difference,
        epochs + ("" if last.n == 10 else f" of {last.n}"),
    )


def points(difference: Estimate) -> str:
    """A difference of accuracies in points, with its interval where there is one."""
    if difference.low is None or difference.high is None:
        return f"{100 * difference.mean:+.2f}"
    return f"{100 * difference.mean:+.2f} [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
