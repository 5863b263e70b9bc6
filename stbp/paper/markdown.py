"""The tables of results and speeds as Markdown, between the README's markers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stbp.config import Experiment
from stbp.experiments.results import FOLDER, accuracy, network, over, silent
from stbp.files import write_atomically
from stbp.paper import tables

BEGIN, END = "<!-- results: made by `stbp report`, do not edit -->", "<!-- end of results -->"
BENCHMARK = FOLDER / "bench" / "cpu.json"
BEGIN_SPEED, END_SPEED = "<!-- speed: made by `stbp report`, do not edit -->", "<!-- end of speed -->"


def printed(name: str) -> str:
    """The paper's number for an experiment, in per cent, with how sure it is; empty where there is none."""
    found = tables.printed(name)
    return "" if found.printed is None else f"{100 * found.printed:.2f} ({found.table}, {found.certainty})"


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| data | network | T | epochs | test accuracy, % | over | the paper, % | command |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        e = result["experiment"]
        found = f"{accuracy(result)}, silent" if silent(result) else accuracy(result)
        lines.append(
            f"| {e['dataset']} | {network(Experiment.of(**e))} | {e['T']} | {result['runs'][0]['summary']['epochs']} "
            f"| {found} | {over(result)} | {printed(e['name'])} | `{result['command']}` |"
        )
    return "\n".join(lines)


def speed(benchmark: dict[str, Any]) -> str:
    """What `stbp bench --peers` measured, as a Markdown table: ours, and how many times that the best peers need."""
    lines = [
        "| network | | ours | fastest peer, not compiled | fastest of all |",
        "|---|---|---|---|---|",
    ]
    units = {"step": ("training step", 1000.0, "ms"), "epoch": ("first epoch of MNIST", 1.0, "s")}
    units["memory_mib"] = ("memory of training", 1.0, "MiB")
    for notation, found in benchmark["networks"].items():
        for key, (name, scale, unit) in units.items():
            ratio = found["ratios"].get(key)
            if ratio is None:
                continue
            cells = [
                f"{ratio[which]['ratio']:.1f} x ({ratio[which]['peer']}, {scale * ratio[which]['value']:.3g} {unit})"
                for which in ("uncompiled", "all")
            ]
            ours = scale * ratio["all"]["value"] / ratio["all"]["ratio"]
            lines.append(f"| {notation} | {name} | {ours:.3g} {unit} | {' | '.join(cells)} |")
    return "\n".join(lines)


def read_benchmark(path: Path = BENCHMARK) -> dict[str, Any] | None:
    """The published benchmark; None where there is none."""
    return json.loads(path.read_text()) if path.exists() else None


def update_readme(readme: Path, results: Sequence[dict[str, Any]], benchmark: dict[str, Any] | None = None) -> None:
    """Put the tables between the README's markers.

    Raises:
        ValueError: a marker is missing.
    """
    parts = [(BEGIN, END, table(results))]
    if benchmark is not None:
        parts.append((BEGIN_SPEED, END_SPEED, speed(benchmark)))
    text = readme.read_text(encoding="utf-8")
    for opening, closing, content in parts:
        before, begin, rest = text.partition(opening)
        _, end, after = rest.partition(closing)
        if not begin or not end:
            raise ValueError(f"{readme} must hold the lines {opening} and {closing}, between which the table goes")
        text = f"{before}{begin}\n{content}\n{end}{after}"
    write_atomically(readme, text.encode())
