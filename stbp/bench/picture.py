"""The picture of `stbp bench`: how many times as long, or as much, everyone else needs."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from stbp.bench.axes import SYNTHETIC
from stbp.bench.ratio import value
from stbp.bench.subject import OURS
from stbp.plot.style import BLUE, GREY, INK, ORANGE, RED, SKY, STYLE, counted, save

TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
COLUMNS = {"step": "training step", "epoch": "first epoch", "memory_mib": "memory"}
KEY = {
    "a library, or the authors' loop": BLUE,
    "the same through torch.compile or XLA": ORANGE,
    "stbp's own reference": SKY,
    "dense synapses without neurons": GREY,
}


def draw(result: dict[str, Any], path: Path) -> None:
    """One panel for each network's step, one for each network's epoch, one for its memory; bars on a ratio scale."""
    with rc_context(STYLE):
        save(figure(result), path)


def figure(result: dict[str, Any]) -> Figure:
    rows = list(result["networks"].values())
    columns = [k for k in COLUMNS if any(value(n["subjects"][OURS], k) for n in rows)]
    names = list(dict.fromkeys(name for n in rows for name in n["subjects"] if name != OURS))
    high = 0.19 * (len(names) + 1) + 0.85
    picture = Figure(figsize=(3.6 * len(columns) + 1.4, high * len(rows) + 1.2))
    picture.get_layout_engine().set(h_pad=0.1)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    grid = picture.subplots(len(rows), len(columns), squeeze=False, sharey=True, sharex="col")
    for line, (network, found) in zip(grid, result["networks"].items(), strict=True):
        for axes, key in zip(line, columns, strict=True):
            _panel(axes, found, names, key)
        line[0].annotate(network, (0, 1), (0, 22), xycoords="axes fraction", textcoords="offset points", weight="bold")
    for axes in grid[-1]:
        axes.set_xlabel("times what stbp needs" if axes.patches else "")
    task = rows[0]["task"]
    picture.suptitle(
        "Training spiking networks on a CPU: how many times the time and memory of stbp (the line) others need\n"
        f"T = {task['T']}, batch {task['batch']}, {result['processor']}, {counted(result['threads'], 'thread')}; "
        "bold: the best uncompiled peer",
        fontsize=11,
    )
    patches = [Patch(color=colour, label=label) for label, colour in KEY.items()]
    picture.legend(handles=patches, loc="outside lower center", ncols=len(patches))
    return picture


def _title(key: str, found: dict[str, Any]) -> str:
    ours = value(found["subjects"][OURS], key)
    if ours is None:
        return "first epoch: not for synthetic input" if key == "epoch" else ""
    number = f"{1000 * ours:.3g} ms" if key == "step" else f"{ours:.3g} {'s' if key == 'epoch' else 'MiB'}"
    return f"{COLUMNS[key]}, stbp {number}"


def _panel(axes: Axes, found: dict[str, Any], names: list[str], key: str) -> None:
    ours = value(found["subjects"][OURS], key)
    axes.set_title(_title(key, found), color=INK if ours else GREY)
    if ours is None or ours <= 0:
        axes.spines[:].set_visible(False)
        axes.tick_params(left=False, bottom=False, labelbottom=False)
        return
    best = found["ratios"].get(key)
    for position, name in enumerate(names):
        row = found["subjects"][name]
        needed = value(row, key)
        if needed is None:
            text = row["status"].partition(":")[0] if row["status"] != "timed" else "not measured"
            axes.annotate(text, (1, position), (4, 0), textcoords="offset points", va="center", color=GREY, fontsize=7)
            continue
        ratio = needed / ours
        colour = {"bound": GREY, "dense": SKY}.get(row["kind"], ORANGE if row["compiled"] else BLUE)
        axes.barh(position, ratio - 1, left=1, height=0.72, color=colour)
        strong = best is not None and name == best["uncompiled"]["peer"]
        axes.annotate(
            f"{ratio:.3g}" if ratio < 100 else f"{ratio:.0f}",
            (max(ratio, 1), position),
            (4, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=8,
            fontweight="bold" if strong else "normal",
        )
    axes.axvline(1, color=RED, linewidth=1.6)
    axes.set_xscale("log")
    low, high = axes.dataLim.x0, axes.dataLim.x1
    before = axes.get_xlim() if not axes.get_autoscalex_on() else (0.95, 2.0)
    axes.set_xlim(min(before[0], 0.95 * low), max(before[1], 1.6 * high))
    axes.xaxis.set(major_locator=FixedLocator(TICKS), minor_locator=NullLocator(), major_formatter="{x:g}x")
    axes.tick_params(labelbottom=True)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def draw_sweep(result: dict[str, Any], path: Path) -> None:
    """Time of a step over T, batch, hidden neurons, input density and rate, one panel each; quartiles as bands."""
    with rc_context(STYLE):
        save(sweep_figure(result), path)


LABELS = {
    "T": "time steps T",
    "batch": "batch",
    "N": "hidden neurons",
    "density": "input density",
    "rate": "rate of all inputs",
}


def sweep_figure(result: dict[str, Any]) -> Figure:
    picture = Figure(figsize=(15, 3.9))
    for axes, (axis, label) in zip(picture.subplots(1, len(LABELS), sharey=True), LABELS.items(), strict=True):
        points = [p for p in result["points"] if p["axis"] == axis]
        for name, colour in zip(dict.fromkeys(n for p in points for n in p["step"]), (RED, SKY, BLUE), strict=False):
            there = [(p["value"], p["step"][name]) for p in points if name in p["step"]]
            values = [value for value, _ in there]
            medians, lower, upper = ([1000 * s[k] for _, s in there] for k in ("median", "lower", "upper"))
            axes.fill_between(values, lower, upper, color=colour, alpha=0.2, linewidth=0)
            axes.plot(values, medians, "o-", color=colour, markersize=3.5, linewidth=1.4, label=name)
        for point in points:
            if "did_not_fit" in point:
                axes.axvline(point["value"], color=GREY, linestyle=":")
                axes.annotate("did not fit", (point["value"], 0.5), xycoords=("data", "axes fraction"), rotation=90)
        axes.set(xscale="linear" if axis in SYNTHETIC else "log", yscale="log", xlabel=label, title=f"over {label}")
        axes.grid(axis="y")
        ticks = [0, 0.2, 0.4, 0.6, 0.8, 1] if axis in SYNTHETIC else [p["value"] for p in points]
        axes.xaxis.set(
            major_locator=FixedLocator(ticks),
            minor_locator=NullLocator(),
            major_formatter="{x:.0%}" if axis in SYNTHETIC else "{x:g}",
        )
    first = picture.axes[0]
    marks = FixedLocator([digit * 10.0**power for power in range(-2, 6) for digit in (1, 2, 5)])
    first.yaxis.set(major_locator=marks, minor_locator=NullLocator(), major_formatter="{x:g}")
    first.set_ylabel("training step (ms)")
    picture.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    picture.suptitle(
        f"A training step around 784-800-10, T = 30, batch 100, MNIST\n{result['processor']}, "
        f"{result['threads']} threads, weights after 60 steps; density, rate: synthetic spikes",
        fontsize=11,
    )
    return picture
