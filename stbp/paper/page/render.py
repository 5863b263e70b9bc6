"""`stbp report --out PAGE.html`: the paper's tables and figures beside ours, in one file that needs no network."""

import base64
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import torch
from markupsafe import Markup

import stbp
from stbp.experiments import results as report
from stbp.files import write_atomically
from stbp.ops.neuron.reference import Gate
from stbp.ops.neuron.reference import gates as gates_of
from stbp.paper import comparison, study, tables
from stbp.paper.page import content, figures, gradient, samples, studies
from stbp.paper.page.content import Result
from stbp.paper.quantized import Quantized, load, measure, save
from stbp.train import runs

HERE = Path(__file__).parent
CANVAS = "canvas.safetensors"  # in results/: the network of the published page


def write(
    path: Path, *, network: Path | None = None, data: Path | None = None, folder: Path = report.FOLDER
) -> list[str]:
    """Write the page.

    Args:
        network: of the canvas: the folder of a run, whose network is quantised and measured, or a file that
            `stbp.paper.quantized.save` wrote; by default the one in `folder`, or none.
        data: folder that holds data sets, for the figures that show samples and for measuring; otherwise STBP_DATA.
            Without both these figures say that they are missing.
        folder: the published results.

    Returns:
        what the page lacks, a sentence each.

    Raises:
        ValueError: the path does not end in .html, or the network is none that the canvas can run.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out must end in .html; got {str(path)!r}")
    given = folder / CANVAS if network is None and (folder / CANVAS).exists() else network
    quantized = None if given is None else load(given) if given.is_file() else _measured(given, data)
    seen = samples.look(quantized, data)
    write_atomically(path, render(folder, quantized, seen).encode())
    return seen.missing


def add_network(run: Path, data: Path | None = None, folder: Path = report.FOLDER) -> Path:
    """Put the network of a run, in 8 bits and measured on its test set, among the published results; return its path.

    Raises:
        ValueError: there is no such run, or its network is none that the canvas can run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save(folder / CANVAS, _measured(run, data))
    return folder / CANVAS


def _measured(folder: Path, data: Path | None) -> Quantized:
    from stbp.train.evaluate import load_run

    return measure(load_run(folder), data)


def render(folder: Path, quantized: Quantized | None, seen: samples.Seen) -> str:
    """The page as HTML, from the results in a folder."""
    results = report.read_results(folder)
    known = [*results, *report.read_results(folder / "variants")]
    bench = folder / "bench"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"per_cent": content.per_cent, "marked": content.marked, "span": content.span, "as": format}
    return environment.get_template("page.html").render(
        style=_source("page.css"),
        scripts=[_source(name) for name in ("network.js", "canvas.js", "page.js")],
        made={"stbp": stbp.__version__, "commit": runs.commit(), "torch": torch.__version__, **_machine()},
        constants=tables.CONSTANTS,
        groups=[
            (key, table, content.lines(table, known), content.pairs(table, known))
            for key, table in tables.groups().items()
            if isinstance(table, tables.Table)
        ],
        presets=content.PRESETS,
        headlines=_headlines(results),
        curves=_curves(results),
        shapes=_shapes(),
        studies=[_study(key, figure, known) for key, figure in _figures()],
        beyond=studies.studies(folder),
        rates=studies.rates(known),
        windows=studies.windows(folder, known),
        reach=_read(folder / "reach" / "gradient.json"),
        reach_panel=studies.reach(_read(folder / "reach" / "gradient.json")),
        study=study,
        back=studies.BACK,
        seen=seen,
        network=quantized,
        packed=None if quantized is None else packed(quantized),
        kilobytes=0 if quantized is None else round(sum(s.weight.numel() for s in quantized.synapses) / 1000),
        checks=gradient.checks(),
        departures=gradient.departures(),
        gradient=gradient,
        speed=_speed(_read(bench / "cpu.json")),
        events=_read(bench / "events.json"),
        ridge=_ridge(_read(bench / "nmnist-kernel-ridge.json")),
        tunings=[(t, content.trials(t)) for t in map(_read, sorted((folder / "tuning").glob("*.json")))],
        sheets=content.sheets(known),
    )


def packed(quantized: Quantized) -> dict[str, Any]:
    """Data that the canvas needs of a network, as JSON; weights are bytes in base64, row by row."""
    e = quantized.experiment
    gate: Gate = gates_of(e.gate, e.decay)[0]
    layers = [
        {
            "inputs": synapse.weight.shape[1],
            "weight": base64.b64encode(synapse.weight.numpy().tobytes()).decode(),
            "bias": synapse.bias.tolist(),
            "exponent": synapse.exponent.tolist(),
        }
        for synapse in quantized.synapses
    ]
    return {
        "T": e.T,
        "seed": e.seed,
        "threshold": e.threshold,
        "keep0": gate.keep0,
        "keep1": gate.keep1,
        "classes": quantized.classes,
        "layers": layers,
    }


def _source(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))  # ours, not given: nothing in it is to be escaped


def _read(path: Path) -> Result:
    return json.loads(path.read_text()) if path.exists() else {}


def _ridge(found: Result) -> Result:
    return {**found, "accuracy": report.accuracy(found)} if found else {}


def _machine() -> dict[str, str]:
    return {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}


def _speed(benchmark: Result) -> list[tuple[str, Result, list[tuple[str, Result]]]]:
    """Return each network of a benchmark with its measurements, and the subjects that were timed, the fastest first."""
    found = []
    for name, network in benchmark.get("networks", {}).items():
        timed = [(key, subject) for key, subject in network["subjects"].items() if subject["status"] == "timed"]
        found.append((name, network, sorted(timed, key=lambda one: one[1]["step"]["median"])))
    return found


def _headlines(results: Sequence[Result]) -> list[tuple[str, content.Line, content.Measured]]:
    """The rows of STBP itself that have a result of whole runs with our settings, from the paper's data."""
    found = []
    for table in tables.TABLES:
        for line in content.lines(table, results):
            ours = [m for m in line.ours if m.anchor and m.preset == "tuned" and not m.remarks]
            stbp = line.row.label.startswith("STBP") and line.row.data == "same" and line.row.printed
            found += [(table.number, line, m) for m in ours if stbp]
    return found


def _curves(results: Sequence[Result]) -> list[Markup]:
    """Learning curves, a panel for each data set."""
    panels = []
    for dataset in dict.fromkeys(content.of(result).dataset for result in results):
        chosen = [result for result in results if content.of(result).dataset == dataset]
        series = [_series(_label(result, chosen), result) for result in chosen]
        panels.append(figures.learning_curves(f"curve-{dataset}", dataset, series))
    return panels


def _label(result: Result, beside: Sequence[Result]) -> str:
    e = content.of(result)
    name = report.network(e)
    twice = sum(content.of(r).network == e.network and content.of(r).neuron == e.neuron for r in beside) > 1
    return f"{name}, {e.epochs} epochs" if twice else name


def _series(label: str, result: Result) -> figures.Series:
    import numpy as np

    accuracies = [[row["test_accuracy"] for row in run["metrics"]] for run in result["runs"]]
    return figures.Series(label, np.array([row[: min(map(len, accuracies))] for row in accuracies]))


def _figures() -> list[tuple[str, tables.Figure]]:
    return [(key, figure) for key, figure in tables.groups().items() if isinstance(figure, tables.Figure)]


def _shapes() -> list[Markup]:
    widths = [curve.tuned[0].width for curve in dict(_figures())["fig6b"].curves]
    return [
        figures.surrogate_shapes("shapes-paper", "The paper's a = 1: the widths differ", figures.paper_widths()),
        figures.surrogate_shapes("shapes-equal", "All four of width 1", figures.equal_widths()),
        figures.rectangles("rectangles", "The rectangle of Fig. 6B at its widths", widths),
    ]


def _study(key: str, figure: tables.Figure, results: Sequence[Result]) -> dict[str, Any]:
    """A figure of curves: what was run of it is drawn, what was not is listed."""
    rows = [
        (c.label, m) for c, ours in zip(figure.curves, content.measured(figure, results), strict=True) for m in ours
    ]
    panels = []
    for preset in content.PRESETS:
        series = []
        for curve in figure.curves:
            for experiment in getattr(curve, preset):
                result = comparison.find(results, experiment)
                if result is not None:
                    series.append(
                        _series(f"{curve.label}, {experiment.optimizer}" if preset == "paper" else curve.label, result)
                    )
        if series:
            panels.append(figures.learning_curves(f"{key}-{preset}", content.PRESETS[preset], series))
    return {"key": key, "figure": figure, "rows": rows, "panels": panels}
