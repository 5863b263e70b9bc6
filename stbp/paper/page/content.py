"""Results as the page shows them: rows beside the paper's, differences with their uncertainty, settings."""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from stbp.config import Experiment, default
from stbp.experiments import results as report
from stbp.experiments import stats
from stbp.paper import comparison, tables
from stbp.paper.tables import Row

Result = dict[str, Any]
PRESETS = {"paper": "the paper's constants", "tuned": "ours"}
NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Measured:
    """An experiment of ours and what it gave; the texts are in per cent, a dash where there is nothing to say."""

    name: str
    preset: str
    command: str
    # Last epoch, mean and standard deviation over runs; or why there is no number.
    accuracy: str
    over: str
    # Mean and least and greatest of the last ten epochs of the first run.
    own: str
    difference: str
    uncertainty: str
    # Facts that a reader must know of this line.
    remarks: tuple[str, ...]
    # Anchor of the result's own section; None while there is none.
    anchor: str | None


class Line(NamedTuple):
    """A row of a table, and what ours gave."""

    row: Row
    ours: tuple[Measured, ...]


def per_cent(share: float | None, digits: int = 2) -> str:
    """A fraction as per cent without the sign; a dash for none."""
    return NONE if share is None else f"{100 * share:.{digits}f}"


def signed(points: float) -> str:
    """A difference in percentage points, with a true minus."""
    return f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")


def marked(text: str) -> Markup:
    """Text in which what stands between backquotes is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def span(ends: tuple[float, float]) -> str:
    """An interval of fractions, in per cent."""
    return f"[{per_cent(ends[0])}, {per_cent(ends[1])}]"


def lines(table: tables.Table, results: Sequence[Result]) -> list[Line]:
    """The rows of a table, each with what our experiments gave."""
    return list(map(Line, table.rows, measured(table, results)))


def measured(group: tables.Table | tables.Figure, results: Sequence[Result]) -> list[tuple[Measured, ...]]:
    """For each row of a table, or curve of a figure, what its experiments gave."""
    compared = comparison.compare(group, results, lambda experiment: nearest(experiment, results))
    return [
        tuple(
            _worded(found, experiment, results)
            for found, experiment in zip(row.measured, (*row.printed.paper, *row.printed.tuned), strict=True)
        )
        for row in compared
    ]


def nearest(experiment: Experiment, results: Sequence[Result]) -> Experiment:
    """The experiment, or where it was not run the one with the most epochs of those that differ in epochs alone."""
    if comparison.find(results, experiment) or comparison.find_stopped(results, experiment):
        return experiment
    others = (experiment.replace(epochs=epochs) for epochs in sorted({of(r).epochs for r in results}, reverse=True))
    return next((other for other in others if comparison.find(results, other)), experiment)


def pairs(table: tables.Table, results: Sequence[Result]) -> list[tuple[comparison.Pair, str]]:
    """STBP minus SDBP over common seeds: the pair, and the difference in points with its interval."""
    found = comparison.pairs(table, results, lambda experiment: nearest(experiment, results))
    return [(pair, f"{comparison.points(pair.difference)}, {pair.difference.n} seeds") for pair in found]


def _worded(found: comparison.Measured, experiment: Experiment, results: Sequence[Result]) -> Measured:
    if found.accuracy is None:
        why = (f"for want of time: {experiment.epochs} epochs",)
        return Measured(found.name, found.preset, found.command, "not yet run", "", NONE, NONE, NONE, why, None)
    taken = nearest(experiment, results)
    result = comparison.find(results, taken) or comparison.find_stopped(results, taken)
    assert result is not None
    epochs = of(result).epochs
    remarks = [f"{epochs} of {experiment.epochs} epochs"] if epochs != experiment.epochs and not found.stopped else []
    if found.stopped:
        runs = f"{found.stopped} run{'s' if found.stopped > 1 else ''}"
        remarks += [f"{runs} stopped after the first epoch, for lack of anything to learn from", *found.health]
    last, difference = found.last, found.difference
    return Measured(
        found.name,
        found.preset,
        found.command,
        report.accuracy(result),
        found.over,
        NONE if last is None or last.n < 10 else f"{per_cent(last.mean)} {span((last.low, last.high))}",
        NONE if difference is None else signed(100 * difference.mean),
        NONE if difference is None else _uncertainty(found.accuracy, result["runs"][0]["summary"]),
        tuple(remarks),
        anchor(result),
    )


def _uncertainty(ours: stats.Estimate, summary: dict[str, Any]) -> str:
    """Half the 95 % interval of our mean in points: over seeds, or of one seed that of a share of its test samples."""
    if ours.high is not None:
        return f"± {100 * (ours.high - ours.mean):.2f}, {ours.n} seeds"
    samples = summary.get("test_samples", 10_000)  # results of before it was noted are of 10,000
    return f"± {100 * 1.96 * math.sqrt(ours.mean * (1 - ours.mean) / samples):.2f}, one seed"


def of(result: Result) -> Experiment:
    """The experiment of a result, without seed and fold."""
    return Experiment.of(**result["experiment"])


def anchor(result: Result) -> str:
    """The id of a result's section on the page."""
    folds = {} if "folds" not in result else {"folds": result["folds"], "fold": 0}
    return f"result-{report.file_name(of(result).replace(**folds))}"


def settings(experiment: Experiment) -> dict[str, str]:
    """The fields of an experiment in which it differs from the defaults, and those that every reader asks for."""
    always = ("network", "dataset", "T", "decay", "threshold", "surrogate", "width", "gate", "epochs")
    found = {}
    for name, value in experiment.flat().items():
        if name not in ("name", "seed") and (name in always or value != default(name)):
            found[name] = "on" if value is True else "off" if value is False else f"{value}"
    return found


def sheets(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return all that is known of each result: settings, command, every run."""
    return [
        {
            "anchor": anchor(result),
            "name": of(result).name,
            "accuracy": report.accuracy(result),
            "over": report.over(result),
            "settings": settings(of(result)),
            "summaries": [run["summary"] for run in result["runs"]],
            "health": list(dict.fromkeys(text for run in result["runs"] for text in run["summary"].get("health", []))),
            **result,
        }
        for result in results
    ]


def trials(tuning: Result) -> list[tuple[str, list[float], bool]]:
    """Return what was tried for an experiment, best first: the fields that differ, accuracies, the best or not."""
    tried = tuning["trials"]
    names = dict.fromkeys(name for trial in tried for name in trial["fields"])
    common = [n for n in names if len({str(trial["fields"].get(n)) for trial in tried}) == 1]
    rows = []
    for trial in sorted(tried, key=lambda trial: -statistics.mean(trial["validation_accuracy"])):
        text = ", ".join(f"{name} {value}" for name, value in trial["fields"].items() if name not in common)
        best = trial["fields"] == tuning["best"] if "best" in tuning else not rows
        rows.append((text or "as registered", trial["validation_accuracy"], best))
    return rows
