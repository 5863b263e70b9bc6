"""The page's section on what is not in the paper: one trained network measured, and networks trained otherwise."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from stbp.config import Experiment
from stbp.paper import study, tables
from stbp.paper.comparison import find
from stbp.paper.page import figures
from stbp.paper.page.content import Result
from stbp.paper.page.figures import Line


def studies(folder: Path) -> list[tuple[Experiment, Result | None, Markup | None]]:
    """Return the networks that `stbp reproduce inference` measures, what a folder of results has of each, a panel."""
    found = [(e, study.read(e, [folder])) for e in study.studied()]
    return [(e, measured, _density(e, measured) if measured else None) for e, measured in found]


def _density(e: Experiment, found: Result) -> Markup:
    rates, accuracies = ([100 * row[key] for row in found["density"]] for key in ("input_rate", "accuracy"))
    line = Line("test images made lighter or darker", rates, [100 - accuracy for accuracy in accuracies])
    title = f"Input density, {e.network}"
    return figures.lines(f"density-{e.name}", title, "mean input, %", "test error, %", [line], log=True)


def windows(folder: Path, results: Sequence[Result]) -> Markup | None:
    """Error after t of T steps of one network, beside those of networks trained at T = t; None without either."""
    drawn = []
    for e in study.studied():
        found = study.read(e, [folder])
        if found is not None:
            errors = [100 * (1 - accuracy) for accuracy in found["accuracy_by_step"]]
            drawn.append(Line(f"{e.network}, trained at T = {e.T}", range(1, e.T + 1), errors))
    trained = [(e.T, _error(result)) for e, result in _of("window", results)]
    if trained:
        steps, errors = zip(*trained, strict=True)
        drawn.append(Line("784-400-10, trained at that T", steps, errors, dots=True))
    title = "The answer after t steps"
    return figures.lines("windows", title, "steps", "test error, %", drawn, log=True) if drawn else None


def rates(results: Sequence[Result]) -> Markup | None:
    """Error against the hidden neurons' firing rate, a point for each weight of the penalty; None without results."""
    drawn = [
        Line(f"penalty {e.rate_penalty:g}", [_hidden_rate(result)], [_error(result)], dots=True)
        for e, result in _of("rate", results)
    ]
    title = "Firing less, 784-400-10"
    return figures.lines("rates", title, "hidden firing rate, %", "test error, %", drawn) if drawn else None


def _of(group: str, results: Sequence[Result]) -> list[tuple[Experiment, Result]]:
    """The experiments of a table of ours that have a result."""
    wanted = [e for part in tables.parts(tables.groups()[group]) for e in part.tuned]
    return [(e, result) for e in wanted if (result := find(results, e)) is not None]


def _error(result: Result) -> float:
    """Mean over seeds, in per cent."""
    return 100 * (1 - sum(result["test_accuracy"]) / len(result["test_accuracy"]))


def _hidden_rate(result: Result) -> float:
    """Firing rate of the one hidden layer: mean over seeds, in per cent of the steps."""
    return 100 * sum(run["summary"]["firing_rate"][0] for run in result["runs"]) / len(result["runs"])


BACK = (1, 2, 5, 10)


def reach(found: Result) -> Markup | None:
    """Return how far back gradients reach, a line for each network of results/reach/gradient.json; None without it."""
    drawn = []
    for name, network in found.get("networks", {}).items():
        there = [(k, share) for k, share in enumerate(network["relative"]) if share]
        if len(there) > 1:
            drawn.append(Line(name, [k for k, _ in there], [share for _, share in there]))
    title = "The gradient, k steps back"
    return figures.lines("reach", title, "steps back", "share of k = 0", drawn, log=True) if drawn else None
