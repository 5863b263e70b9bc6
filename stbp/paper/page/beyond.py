"""The page's section on what is not in the paper: one trained network measured, and networks trained otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from stbp.config import Experiment
from stbp.paper import inference, tables
from stbp.paper.comparison import find
from stbp.paper.page import content, figures
from stbp.paper.page.content import Result, per_cent
from stbp.paper.page.figures import Line


@dataclass(frozen=True)
class Operations:
    """Of a layer, per test image: synaptic operations, multiply-accumulates of the twin, how many times as many."""

    layer: str
    synaptic: str
    twin: str
    ratio: str


@dataclass(frozen=True)
class Study:
    """One trained network; the panels and rows are empty while it was not measured."""

    name: str
    network: str
    T: int
    samples: str = ""
    density: Markup | None = None
    operations: tuple[Operations, ...] = ()


def studies(folder: Path) -> list[Study]:
    """The networks that `stbp reproduce inference` measures, with what a folder of results has of them."""
    return [_study(e, inference.read(e, [folder])) for e in inference.studied()]


def _study(e: Experiment, found: Result | None) -> Study:
    if found is None:
        return Study(e.name, e.network, e.T)
    rates, accuracies = ([100 * row[key] for row in found["density"]] for key in ("input_rate", "accuracy"))
    line = Line("test images made lighter or darker", rates, [100 - accuracy for accuracy in accuracies])
    title = f"Input density, {e.network}"
    density = figures.lines(f"density-{e.name}", title, "mean input, %", "test error, %", [line], log=True)
    synaptic, twin = inference.total(found)
    layers = (*found["operations"], {"layer": "all", "synaptic": synaptic, "twin": twin})
    rows = tuple(
        Operations(row["layer"], f"{row['synaptic']:,.0f}", f"{row['twin']:,}", f"{row['synaptic'] / row['twin']:.2f}")
        for row in layers
    )
    return Study(e.name, e.network, e.T, f"{found['test_samples']:,}", density, rows)


def windows(folder: Path, results: Sequence[Result]) -> Markup | None:
    """Error after t of T steps of one network, beside those of networks trained at T = t; None without either."""
    drawn = []
    for e in inference.studied():
        found = inference.read(e, [folder])
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
    """Of the one hidden layer: mean over seeds, in per cent of the steps."""
    return 100 * sum(run["summary"]["firing_rate"][0] for run in result["runs"]) / len(result["runs"])


@dataclass(frozen=True)
class Reach:
    """How far back the gradients of trained networks reach: of each, accuracy and the shares BACK steps earlier."""

    panel: Markup
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    samples: int
    command: str


BACK = (1, 2, 5, 10)


def reach(found: Result) -> Reach | None:
    """From results/reach/gradient.json; None where it is not there."""
    if not found:
        return None
    drawn, rows = [], []
    for name, network in found["networks"].items():
        shares = [share or 0.0 for share in network["relative"]]
        there = [k for k, share in enumerate(shares) if share > 0]
        if len(there) > 1:
            drawn.append(Line(name, there, [shares[k] for k in there]))
        cells = tuple(f"{100 * shares[k]:.3g}" if k < len(shares) else content.NONE for k in BACK)
        rows.append((name, per_cent(network["test_accuracy"]), cells))
    panel = figures.lines("reach", "The gradient, k steps back", "steps back", "share of k = 0", drawn, log=True)
    return Reach(panel, tuple(rows), next(iter(found["networks"].values()))["samples"], found["command"])
