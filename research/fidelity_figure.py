"""The figure of `fidelity.py`: real recordings beside simulated ones of the same images."""

from typing import Any

import numpy as np
from fidelity import BIN_US, BINS, pairs
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy import ndarray

from stbp.data.events.frames.options import SACCADE_US
from stbp.data.events.sets import SENSOR, EventSet
from stbp.plot.recording import POLARITIES, Part, count
from stbp.plot.style import BLUE, GREY, INK, RED, STYLE

EXAMPLES = 2
PARTS = [Part(f"saccade {n + 1}", n * SACCADE_US, (n + 1) * SACCADE_US if n < 2 else 1 << 32) for n in range(3)]


@rc_context(STYLE)
def comparison(
    real: tuple[EventSet, EventSet], simulated: tuple[EventSet, EventSet], found: dict[str, dict[str, Any]], after: int
) -> Figure:
    """Recordings of two images, real and simulated: events by saccade, and as a cloud in space and time; below them the
    rates of all recordings, and how alike event images are.

    Args:
        real, simulated: training and test recordings.
        found: what `fidelity.compare` says of "training" or "test" recordings, or of both.
        after: so many of the first training recordings are not counted.
    """
    split = "test" if "test" in found else "training"
    index = int(split == "test")
    one, other = real[index], simulated[index]
    a, b = pairs(one, other, 0 if index else after)
    figure = Figure(figsize=(11, 3.5 * EXAMPLES + 3.2))
    grid = figure.add_gridspec(
        2 * EXAMPLES + 1, 4, height_ratios=[1] * 2 * EXAMPLES + [1.15], width_ratios=[1, 1, 1, 1.9]
    )
    for n, example in enumerate(_examples(one.labels[a].numpy())):
        kinds = (("real", one.events(int(a[example]))), ("simulated", other.events(int(b[example]))))
        most = max(3, int(np.quantile(np.concatenate([_counts(events).ravel() for _, events in kinds]), 0.995)))
        for m, (kind, events) in enumerate(kinds):
            row = 2 * n + m
            for column, (part, counts) in enumerate(zip(PARTS, _counts(events), strict=True)):
                axes = figure.add_subplot(grid[row, column])
                axes.imshow(_mixed(counts, most), interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(True)
                axes.set_title(f"{part.name}\n" * (row == 0) + f"{int(counts.sum()):,} events", fontsize=8.5)
                if column == 0:
                    axes.set_ylabel(f"{kind}\n{one.names[int(a[example])]}", fontsize=9)
            _draw_cloud(figure.add_subplot(grid[row, 3], projection="3d"), events)
    _draw_rates(figure.add_subplot(grid[-1, :3]), found[split])
    _draw_correlations(figure.add_subplot(grid[-1, 3]), found)
    figure.suptitle(
        f"N-MNIST and its simulation, {split} recordings that no parameter was fitted to\n"
        f"blue: ON, red: OFF; {found[split]['recordings']:,} recordings, "
        f"{found[split]['ratio_pooled']:.3f} times as many events simulated"
    )
    return figure


def _examples(labels: ndarray) -> list[int]:
    """The first recordings of classes in the middle and at the end: on N-MNIST, of a 5 and a 3."""
    wanted = [5, 3]
    found = [int(np.flatnonzero(labels == label)[0]) for label in wanted if (labels == label).any()]
    return [*found, *(n for n in range(len(labels)) if n not in found)][:EXAMPLES]


def _counts(events: ndarray) -> ndarray:
    """Events by part, polarity (OFF, ON), row and column."""
    return np.stack([[count(events, p, part, (SENSOR[1], SENSOR[0])) for p in (0, 1)] for part in PARTS])


def _mixed(counts: ndarray, most: int) -> ndarray:
    """Both polarities as one picture, red and blue taken from white: `[H, W, 3]`."""
    share = np.minimum(counts / most, 1)
    off, on = (share[p, ..., None] * (1 - np.array(to_rgb(tint))) for p, tint in ((0, RED), (1, BLUE)))
    return np.clip(1 - off - on, 0, 1)


def _draw_cloud(axes: Any, events: ndarray) -> None:
    tints = np.array([RED, BLUE])[events["p"]]
    axes.scatter(events["t"] / 1000, events["x"], events["y"], s=1.2, c=tints, alpha=0.5, linewidths=0, clip_on=False)
    H, W = SENSOR
    axes.set(xlim=(0, 310), ylim=(0, W), zlim=(H, 0), xticks=(0, 105, 210, 310), yticks=(), zticks=())
    axes.set_xlabel("ms", fontsize=8, labelpad=-8)
    axes.tick_params(labelsize=7, pad=-3)
    axes.set_box_aspect((2.4, 1, 1), zoom=2.0)
    axes.view_init(elev=16, azim=-62)


def _draw_rates(axes: Axes, found: dict[str, Any]) -> None:
    edges = np.arange(BINS + 1) * BIN_US / 1000
    for p, name, tint in POLARITIES:
        real, simulated = (np.array(found["rate"][kind])[:, p] for kind in ("real", "simulated"))
        axes.stairs(real, edges, color=tint, alpha=0.25, fill=True, label=f"{name}, real")
        axes.stairs(simulated, edges, color=tint, linewidth=1.5, baseline=None, label=f"{name}, simulated")
    top = 1.2 * max(map(np.max, found["rate"].values()))  # room for the legend
    axes.set(xlim=(0, edges[-1]), ylim=(0, top), xlabel="time (ms)", ylabel="events in 10 ms")
    axes.set_title(f"Rates: they differ by {100 * found['rate_rmse']:.0f} % of their mean (RMS)")
    axes.legend(ncols=4, fontsize=7.5, loc="upper center", frameon=False)


def _draw_correlations(axes: Axes, found: dict[str, dict[str, Any]]) -> None:
    names = {
        "second_simulation": "simulated, other seed",
        "same_image": "real, simulated",
        "same_class": "real, other of its class",
        "other_class": "real, other class",
    }
    bars = [
        (f"{text} ({split})", found[split]["correlation"][key], BLUE if key == "same_image" else GREY)
        for key, text in names.items()
        for split in found
        if found[split]["correlation"][key] is not None
    ]
    axes.barh(range(len(bars)), [r for _, r, _ in bars][::-1], color=[c for *_, c in bars][::-1], alpha=0.45)
    for n, (name, r, _) in enumerate(bars[::-1]):
        axes.annotate(name, (0, n), (4, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
        axes.annotate(
            f"{r:.3f}", (max(r, 0.5), n), (3, 0), textcoords="offset points", va="center", fontsize=8, color=INK
        )
    axes.set(xlim=(0, 1.1), yticks=[])
    axes.set_title("Correlation of event images")
