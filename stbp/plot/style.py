"""The style of every figure: colours, axes, spikes, curves, and how a figure becomes a file.

Spikes are dark on light, and the colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colors, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy import ndarray

from stbp.files import write_atomically

COLOURS = BLUE, RED, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, LINE = "#2B2B2B", "#8C8C8C", "#E6E6E6"
STYLE: dict[Any, Any] = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "white"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **{"axes.edgecolor": GREY, "axes.titlelocation": "left", "grid.color": LINE},
    **{"font.size": 9, "axes.titlesize": 9.5, "figure.titlesize": 12, "figure.constrained_layout.use": True},
}
DPI = 150
MARKS, GROUPS = 256, 200  # a raster of more neurons than MARKS shows at most GROUPS groups of neighbours


def grouped(o: Float[ndarray, "T N"]) -> tuple[Float[ndarray, "T G"], Float[ndarray, " G+1"]]:
    """Mean spikes of groups of neighbours, and where the groups begin and end; neurons that are few stay single."""
    N = o.shape[1]
    edges = np.append(np.arange(0, N, math.ceil(N / GROUPS) if N > MARKS else 1), N)
    return np.add.reduceat(o, edges[:-1], 1) / np.diff(edges).astype(o.dtype), edges - 0.5


def draw_spikes(axes: Axes, o: Float[ndarray, "T N"], tints: list[str], unit: str) -> str:
    """A mark for each spike, or shares of firing neurons where they are many; returns the title."""
    T, N = o.shape
    title = f"{counted(N, unit)}, {counted(int(o.sum()), 'spike')}, firing rate {100 * o.mean():.1f} %"
    if N <= MARKS:
        draw_marks(axes, o, tints, 0.4 if N <= 100 else 0.5, max(0.8, min(5.0, 250 / T)))
    else:
        shares, edges = grouped(o)
        tint = colors.LinearSegmentedColormap.from_list("shares", ["white", tints[0]])
        axes.pcolormesh(np.arange(T + 1) + 0.5, edges, shares.T, cmap=tint, vmin=0, rasterized=True)
        size, most = edges[1] - edges[0], 100 * shares.max()
        title += f"\neach row the share of {size:.0f} neighbours that fire, darkest {most:.0f} %"
    axes.set_ylim(N - 0.5, -0.5)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return title


def draw_marks(axes: Axes, o: Float[ndarray, "T N"], tints: Sequence[str], half: float, width: float) -> None:
    """Draw a mark of so many points' width for each spike, from `half` above its neuron to `half` below.

    Args:
        tints: the colour of each neuron.
    """
    for tint in dict.fromkeys(tints):
        t, n = (o * np.equal(tints, tint)).nonzero()
        x = np.column_stack([t + 1, t + 1, np.full(len(t), np.nan)]).ravel()  # one line with gaps: short to write
        y = np.column_stack([n - half, n + half, n]).ravel()
        axes.plot(x, y, color=tint, linewidth=width, solid_capstyle="butt")


def draw_curve(
    axes: Axes, values: Float[ndarray, "runs epochs"], line: Any, colour: str, label: str, **style: Any
) -> None:
    """Draw the mean of the runs over epochs 1, 2, ..., and of several the span from the least to the greatest."""
    epochs = np.arange(1, values.shape[1] + 1)
    axes.plot(epochs, values.mean(0), linestyle=line, color=colour, label=label, **style)
    if len(values) > 1:
        axes.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)


def ratio_scale(axes: Axes) -> None:
    """A logarithmic y axis with ticks at 1, 2, 5 where values span a factor of three; linear near a zero."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    above = values[values > 0]
    if len(above) == 0 or above.max() < 3 * above.min():
        return
    if len(above) < len(values):
        axes.set_yscale("symlog", linthresh=above.min(), linscale=0.3)
        axes.set_ylim(bottom=0)
    else:
        axes.set_yscale("log")
    ticks = [0, *(digit * 10.0**power for power in range(-6, 3) for digit in (1, 2, 5))]
    axes.yaxis.set(major_locator=FixedLocator(ticks), minor_locator=NullLocator(), major_formatter="{x:g}")


def write_ends(axes: Axes, lines: Sequence[Line2D], form: str) -> None:
    """The last values of lines beside the axes, in their colours, moved apart where they would overlap."""
    axes.autoscale_view()
    to_fraction = axes.transData + axes.transAxes.inverted()
    level = -math.inf
    for y, colour in sorted((float(np.asarray(line.get_ydata())[-1]), str(line.get_color())) for line in lines):
        level = max(level + 0.055, float(to_fraction.transform((1.0, y))[1]))
        axes.text(1.02, level, form.format(y), color=colour, transform=axes.transAxes, va="center")


def count_axis(axes: Axes, last: int) -> None:
    """An x axis for whole numbers from 1 on."""
    axes.set_xlim(0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def counted(n: int, unit: str) -> str:
    return f"{n:,} {unit}" if n == 1 else f"{n:,} {unit}s"


def capitalised(name: str) -> str:
    return name[0].upper() + name[1:]


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure in the format of the path's suffix (.png, .svg, .pdf, ...): the whole file or nothing.

    Raises:
        ValueError: matplotlib cannot write files of this suffix.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in figure.canvas.get_supported_filetypes():
        raise ValueError(f"path must end in .png, .svg, .pdf or another format of matplotlib; got {str(path)!r}")
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # equal figures give equal files
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "stbp"}):
        figure.savefig(content, format=kind, dpi=DPI, metadata=undated.get(kind))
    write_atomically(path, content.getvalue())
