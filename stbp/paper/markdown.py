"""Results and speeds as the README and docs/ show them: tables between markers, and a chart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stbp.config import Experiment
from stbp.experiments.results import FOLDER, accuracy, network, over, silent
from stbp.files import write_atomically
from stbp.paper import tables
from stbp.plot.style import BLUE, GREY, INK

BEGIN, END = "<!-- results: made by `stbp report`, do not edit -->", "<!-- end of results -->"
BENCHMARK = FOLDER / "bench" / "cpu.json"
BEGIN_SPEED, END_SPEED = "<!-- speed: made by `stbp report`, do not edit -->", "<!-- end of speed -->"


def printed(name: str) -> str:
    """The paper's number for an experiment, in per cent, with how sure it is; empty where there is none."""
    found = tables.printed(name)
    return "" if found.printed is None else f"{100 * found.printed:.2f} ({found.table}, {found.certainty})"


# The README's rows: one for each kind of task.
SHORT = (
    "digits-mlp",
    "mnist-mlp-tuned",
    "mnist-mlp-elastic",
    "mnist-cnn-tuned",
    "mnist-cnn-elastic",
    "fashion-mlp-tuned",
    "nmnist-sim-cnn",
    "mnist-rows",
)


def short_table(results: Sequence[dict[str, Any]]) -> str:
    """Return the README's rows as a Markdown table; experiments without a result are left out."""
    lines = ["| data | network | T | test accuracy, % | over | |", "|---|---|---|---|---|---|"]
    for name in SHORT:
        found = [result for result in results if result["experiment"]["name"] == name]
        for result in sorted(found, key=lambda result: -result["experiment"]["epochs"])[:1]:
            e = result["experiment"]
            data = e["dataset"] + (", distorted" if e.get("elastic") else "")
            lines.append(
                f"| {data} | {network(Experiment.of(**e))} | {e['T']} "
                f"| {accuracy(result)} | {over(result)} | `stbp train {name}` |"
            )
    return "\n".join(lines)


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
    """Markdown table of what `stbp bench --peers` measured: ours, and how many times that the best peers need."""
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


def chart(benchmark: dict[str, Any]) -> str:
    """Return a bar chart as SVG: milliseconds of a training step of each network, ours and the fastest other's."""
    rows = [
        (notation, 1000 * ratio["value"] / ratio["ratio"], 1000 * ratio["value"], ratio["peer"])
        for notation, found in benchmark["networks"].items()
        if (ratio := found["ratios"].get("step", {}).get("uncompiled"))
    ]
    longest = max((theirs for _, _, theirs, _ in rows), default=1.0)
    size = f'width="840" height="{52 * len(rows) + 34}"'
    title = f"Milliseconds of a training step, {benchmark['threads']} threads, {benchmark['processor']}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">',
        f'<rect {size} fill="white"/>',
        f'<text x="8" y="20" fill="{INK}">{title}</text>',
    ]
    for row, (notation, ours, theirs, peer) in enumerate(rows):
        y = 34 + 52 * row
        lines.append(f'<text x="8" y="{y + 25}" fill="{INK}">{notation}</text>')
        for bar, (value, colour, name) in enumerate(((ours, BLUE, "stbp"), (theirs, GREY, peer))):
            width = max(1.0, 300 * value / longest)
            lines.append(f'<rect x="230" y="{y + 4 + 20 * bar}" width="{width:.1f}" height="16" fill="{colour}"/>')
            text = f"{value:.3g} ms, {name}" + (f", {theirs / ours:.1f} times as long" if bar else "")
            lines.append(f'<text x="{236 + width:.1f}" y="{y + 17 + 20 * bar}" fill="{INK}">{text}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def update(readme: Path, results: Sequence[dict[str, Any]], benchmark: dict[str, Any] | None = None) -> None:
    """Put the tables between the markers of the README and of docs/ beside it, and draw docs/speed.svg.

    Raises:
        ValueError: a marker is missing.
    """
    docs = readme.parent / "docs"
    parts = [(readme, BEGIN, END, short_table(results)), (docs / "results.md", BEGIN, END, table(results))]
    if benchmark is not None:
        parts.append((docs / "speed.md", BEGIN_SPEED, END_SPEED, speed(benchmark)))
    texts = [(path, _filled(path, *part)) for path, *part in parts]
    for path, text in texts:
        write_atomically(path, text.encode())
    if benchmark is not None:
        write_atomically(docs / "speed.svg", chart(benchmark).encode())


def _filled(path: Path, opening: str, closing: str, content: str) -> str:
    """Return a file's text with the content between two markers."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise ValueError(f"{path} must hold the lines {opening} and {closing}, between which the table goes")
    return f"{before}{begin}\n{content}\n{end}{after}"
