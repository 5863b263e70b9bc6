"""What the page says of results: rows beside the paper's, differences with their uncertainty, settings."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stbp import report, stats, tables
from stbp.experiment import Experiment
from stbp.tables import Curve, Row

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
    # What a reader must know of this line.
    remarks: tuple[str, ...]
    # Of the result's own section; None while there is none.
    anchor: str | None


@dataclass(frozen=True)
class Line:
    """A row of a table: what the paper prints, and ours."""

    row: Row
    printed: str
    interval: str
    ours: tuple[Measured, ...]


def per_cent(share: float | None, digits: int = 2) -> str:
    """A fraction as per cent without the sign; a dash for none."""
    return NONE if share is None else f"{100 * share:.{digits}f}"


def signed(points: float) -> str:
    """A difference in percentage points, with a true minus."""
    return f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")


def span(low: float, high: float) -> str:
    """An interval of fractions, in per cent."""
    return f"[{per_cent(low)}, {per_cent(high)}]"


def lines(table: tables.Table, results: Sequence[Result]) -> list[Line]:
    """The rows of a table, each with what our experiments gave."""
    return [
        Line(
            row,
            per_cent(row.printed),
            "" if row.interval is None else span(*row.interval),
            tuple(measured(e, preset, row, results) for preset, e in _experiments(row)),
        )
        for row in table.rows
    ]


def _experiments(part: Row | Curve) -> Iterator[tuple[str, Experiment]]:
    for preset in PRESETS:
        for experiment in getattr(part, preset):
            yield preset, experiment


def find(experiment: Experiment, results: Sequence[Result]) -> Result | None:
    """The result of exactly this experiment, whatever its seeds; else the longest of one that differs in epochs."""
    wanted = experiment.replace(seed=0, folds=None, fold=None)
    same = [r for r in results if of(r).replace(epochs=wanted.epochs) == wanted and r.get("folds") == experiment.folds]
    return max(same, key=lambda r: (of(r).epochs == wanted.epochs, of(r).epochs), default=None)


def of(result: Result) -> Experiment:
    """The experiment of a result, without seed and fold."""
    return Experiment(**result["experiment"])


def anchor(result: Result) -> str:
    """The id of a result's section on the page."""
    folds = {} if "folds" not in result else {"folds": result["folds"], "fold": 0}
    return f"result-{report.file_name(of(result).replace(**folds))}"


def measured(experiment: Experiment, preset: str, row: Row | None, results: Sequence[Result]) -> Measured:
    """What an experiment gave, beside the row that it answers; without a result, the reason and the command."""
    command = report.command(experiment)
    result = find(experiment, results)
    if result is None:
        return Measured(experiment.name, preset, command, "not yet run", "", NONE, NONE, NONE, (), None)
    accuracies, runs = result["test_accuracy"], result["runs"]
    last = stats.last_epochs(runs[0]["metrics"])
    own = f"{per_cent(last.mean)} {span(last.low, last.high)}" if last.n == 10 else NONE
    difference, uncertainty = NONE, NONE
    if row is not None and row.printed is not None and row.data == "same":
        difference = signed(100 * (stats.estimate(accuracies).mean - row.printed))
        uncertainty = _uncertainty(accuracies, runs[0]["summary"].get("test_samples", 10_000))
    epochs = of(result).epochs
    short = [f"{epochs} of {experiment.epochs} epochs"] if epochs != experiment.epochs else []
    health = [str(finding) for finding in runs[0]["summary"].get("health", [])]
    return Measured(
        experiment.name,
        preset,
        result["command"],
        report.accuracy(result),
        report.over(result),
        own,
        difference,
        uncertainty,
        (*short, *health),
        anchor(result),
    )


def _uncertainty(accuracies: Sequence[float], samples: int) -> str:
    """Half the 95 % interval of our mean in points: over seeds, or of one seed that of a share of so many samples."""
    found = stats.estimate(accuracies)
    if found.high is not None:
        return f"± {100 * (found.high - found.mean):.2f}, {found.n} seeds"
    half = 1.96 * math.sqrt(found.mean * (1 - found.mean) / samples)
    return f"± {100 * half:.2f}, one seed"


def settings(experiment: Experiment) -> dict[str, str]:
    """The fields of an experiment in which it differs from the defaults, and those that every reader asks for."""
    always = ("network", "dataset", "T", "decay", "threshold", "surrogate", "width", "gate", "epochs")
    found = {}
    for field in dataclasses.fields(experiment):
        value = getattr(experiment, field.name)
        if field.name not in ("name", "seed") and (field.name in always or value != field.default):
            found[field.name] = "on" if value is True else "off" if value is False else f"{value}"
    return found


@dataclass(frozen=True)
class Sheet:
    """All that is known of one result: settings, command, every run."""

    anchor: str
    name: str
    accuracy: str
    over: str
    command: str
    settings: dict[str, str]
    # Seed or fold, test accuracy, seconds, commit of every run.
    runs: list[dict[str, Any]]
    versions: str


def sheets(results: Sequence[Result]) -> list[Sheet]:
    """A sheet for each result."""
    return [
        Sheet(
            anchor(result),
            of(result).name,
            report.accuracy(result),
            report.over(result),
            result["command"],
            settings(of(result)),
            [_run(index, run, "folds" in result) for index, run in enumerate(result["runs"])],
            ", ".join(f"{k} {v}" for k, v in result["runs"][0]["summary"]["versions"].items()),
        )
        for result in results
    ]


def _run(index: int, run: dict[str, Any], folds: bool) -> dict[str, Any]:
    summary = run["summary"]
    rates = ", ".join(per_cent(rate, 1) for rate in summary.get("firing_rate") or [])
    return {
        "name": f"fold {index}" if folds else f"seed {summary['seed']}",
        "accuracy": per_cent(summary["test_accuracy"]),
        "training": per_cent(summary.get("train_accuracy")),
        "rates": rates or NONE,
        "seconds": f"{summary['seconds']:,.0f}",
        "commit": summary["commit"],
    }


@dataclass(frozen=True)
class Trial:
    """One setting that was tried on validation samples."""

    fields: str
    accuracy: str
    spread: str
    best: bool


def trials(tuning: Result) -> list[Trial]:
    """What was tried for an experiment, best first, each with the fields in which the trials differ."""
    tried = tuning["trials"]
    names = list(dict.fromkeys(name for trial in tried for name in trial["fields"]))
    common = [n for n in names if len({str(trial["fields"].get(n)) for trial in tried}) == 1]
    means = [stats.estimate(trial["validation_accuracy"]).mean for trial in tried]
    rows = []
    for mean, trial in sorted(zip(means, tried, strict=True), key=lambda pair: -pair[0]):
        values = trial["validation_accuracy"]
        text = ", ".join(f"{name} {value}" for name, value in trial["fields"].items() if name not in common)
        rows.append(Trial(text or "as registered", per_cent(mean), span(min(values), max(values)), mean == max(means)))
    return rows
