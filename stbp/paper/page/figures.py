"""The figures of the page: inline SVG whose text is text and whose colours are those of the page, light or dark."""

import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy import ndarray

from stbp.experiments.registry import WIDTH_OF_A, width_from_paper
from stbp.names import Surrogate
from stbp.ops.surrogate.curves import TABLE
from stbp.plot import style
from stbp.plot.style import BLUE, COLOURS, GREEN, GREY, INK, LINE, ORANGE, PURPLE, RED, SKY, STYLE

# What matplotlib draws in these colours gets the page's: names of CSS variables.
VARIABLES = {
    INK: "ink", GREY: "muted", BLUE: "blue", RED: "red", GREEN: "green", ORANGE: "orange", PURPLE: "purple", SKY: "sky",
    LINE: "line",
}  # fmt: skip
ON_PAGE: dict[Any, Any] = {
    **STYLE,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **{"axes.axisbelow": True, "svg.fonttype": "none", "path.simplify": False},
}
SIZE = (4.6, 3.0)  # inches: a panel as wide as a telephone, several side by side where there is room
LINES = tuple(itertools.product(("-", "--"), COLOURS))


class Series(NamedTuple):
    """A line of a learning curve: test accuracies by epoch, `[runs, epochs]`."""

    label: str
    accuracies: ndarray


class Line(NamedTuple):
    """A line through points, or the points alone."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False


def panel(name: str, draw: Callable[[Axes], None], size: tuple[float, float] = SIZE) -> Markup:
    """One axes as inline SVG; `name` keeps its ids apart from those of the page's other figures."""
    with rc_context({**ON_PAGE, "svg.hashsalt": name}):
        figure = Figure(figsize=size)
        draw(figure.subplots())
        return svg(figure, name)


def svg(figure: Figure, name: str) -> Markup:
    """A figure as an SVG element that fits the width it is given."""
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    width, height = 72 * figure.get_size_inches()
    head = f'<svg class="figure" role="img" viewBox="0 0 {width:g} {height:g}" style="max-width:{width * 4 / 3:.0f}px">'
    text = head + content.getvalue().partition("<svg")[2].partition(">")[2]
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour.lower(), f"var(--{variable})")
    return Markup(text)  # made here, not given: nothing in it is to be escaped


def learning_curves(name: str, title: str, series: Sequence[Series]) -> Markup:
    """Test error over epochs, the mean of the runs, with the span from the best to the worst."""

    def draw(axes: Axes) -> None:
        for (line, colour), one in zip(LINES, series, strict=False):
            errors = 100 * (1 - one.accuracies)
            dot = "o" if errors.shape[1] == 1 else ""
            style.draw_curve(axes, errors, line, colour, one.label, linewidth=1.4, marker=dot)
        axes.set(xlabel="epoch", ylabel="test error, %", title=title)
        style.ratio_scale(axes)
        axes.grid(axis="y")
        axes.legend(fontsize=8)

    return panel(name, draw)


def lines(name: str, title: str, xlabel: str, ylabel: str, drawn: Sequence[Line], log: bool = False) -> Markup:
    """Lines of one axes, the y axis logarithmic if `log`."""

    def draw(axes: Axes) -> None:
        for (line, colour), (label, x, y, dots) in zip(itertools.cycle(LINES), drawn, strict=False):
            shown, dot = ("none", "o") if dots else (line, ".")
            axes.plot(x, y, linestyle=shown, marker=dot, color=colour, linewidth=1.4, label=label)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if log:
            axes.set_yscale("log")
            values = [value for one in drawn for value in one.y]
            if max(values) < 1000 * min(values):  # else the decades of the scale itself
                ticks = [digit * 10.0**power for power in range(-4, 3) for digit in (1, 1.5, 2, 3, 5, 7)]
                axes.yaxis.set(major_locator=FixedLocator(ticks), minor_locator=NullLocator(), major_formatter="{x:g}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        if len(drawn) > 1:
            axes.legend(fontsize=8)

    return panel(name, draw)


def surrogate_shapes(name: str, title: str, widths: dict[Surrogate, float]) -> Markup:
    """The curves h1..h4, each of a width, around the threshold."""

    def draw(axes: Axes) -> None:
        v = torch.linspace(-2.6, 2.6, 1041, dtype=torch.float64)
        styles = zip(widths.items(), (BLUE, RED, GREEN, PURPLE), ("-", "--", "-.", ":"), strict=True)
        for number, ((curve, width), colour, line) in enumerate(styles, start=1):
            label = f"h{number}, {curve}"
            axes.plot(v, TABLE[curve].function(v, width), line, color=colour, linewidth=1.5, label=label)
        axes.set(xlabel="potential above the threshold, u − V", ylabel="stand-in for do/du", title=title)  # noqa: RUF001
        axes.set_ylim(0, 1.55 * max(1 / width for width in widths.values()))
        axes.legend(fontsize=8, loc="upper right")

    return panel(name, draw)


def equal_widths(width: float = 1.0) -> dict[Surrogate, float]:
    """All four as wide as the rectangle of that width."""
    return dict.fromkeys(WIDTH_OF_A, width)


def paper_widths() -> dict[Surrogate, float]:
    """The widths of the paper's a = 1, which differ."""
    return {curve: width_from_paper(curve, 1.0) for curve in WIDTH_OF_A}


def rectangles(name: str, title: str, widths: Sequence[float]) -> Markup:
    """The rectangle at the widths of Fig. 6B."""

    def draw(axes: Axes) -> None:
        for (line, colour), width in zip(LINES, widths, strict=False):
            x = [-6, -width / 2, -width / 2, width / 2, width / 2, 6]
            axes.plot(x, [0, 0, 1 / width, 1 / width, 0, 0], line, color=colour, label=f"{width:g}", linewidth=1.4)
        axes.set(xlabel="potential above the threshold, u − V", ylabel="height 1/width", title=title)  # noqa: RUF001
        axes.set_yscale("symlog", linthresh=0.1)
        axes.yaxis.set(major_locator=FixedLocator([0, 0.1, 1, 10]), minor_locator=NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(title="width", fontsize=8, ncols=2)

    return panel(name, draw)


def raster(name: str, title: str, o: ndarray, ylabel: str, marked: int | None = None) -> Markup:
    """Spikes `[T, N]`, a mark each; neuron `marked` in red. Their number goes into the title."""
    title = f"{title}: {style.counted(int(o.sum()), 'spike')}"

    def draw(axes: Axes) -> None:
        T, N = o.shape
        few = N <= 30  # of many neurons the marks overlap, or they could not be seen
        tints = [RED if n == marked else BLUE for n in range(N)]
        style.draw_marks(axes, o, tints, 0.4 if few else 1.2, 2.2 if few else 3.0)
        axes.set(xlim=(0.3, T + 0.7), ylim=(N - 0.4, -0.6), xlabel="time step", ylabel=ylabel, title=title)
        if N <= 10:
            axes.set_yticks(range(N))
        axes.grid(axis="y", linewidth=0.5)

    return panel(name, draw)


def picture(name: str, title: str, image: ndarray) -> Markup:
    """A grey image `[H, W]` of bytes, as dark ink."""

    def draw(axes: Axes) -> None:
        ink = np.zeros((*image.shape, 4))
        ink[..., :3] = 0.5
        ink[..., 3] = image / 255
        axes.imshow(ink, interpolation="nearest")
        middle = image.shape[0] // 2
        box = [middle - 2.5, middle + 2.5]
        axes.plot([box[0], box[1], box[1], box[0], box[0]], [box[0], box[0], box[1], box[1], box[0]], color=RED)
        axes.set(xticks=[], yticks=[], title=title)
        axes.spines[:].set_visible(True)

    return panel(name, draw, (2.4, 2.6))


def event_frames(name: str, frames: ndarray, step_ms: float) -> Markup:
    """Frames of events `[T, 2, H, W]`, 0 or 1, a small picture each: ON blue, OFF red; ten a row, a saccade each."""
    with rc_context({**ON_PAGE, "svg.hashsalt": name, "figure.constrained_layout.w_pad": 0.01}):
        rows = -(-len(frames) // 10)
        figure = Figure(figsize=(7.4, 0.88 * rows + 0.1))
        for index, (axes, (off, on)) in enumerate(zip(figure.subplots(rows, 10).flat, frames, strict=False)):
            painted = np.zeros((*on.shape, 4))
            painted[on > 0], painted[off > 0] = (0.0, 0.45, 0.7, 1.0), (0.84, 0.37, 0.0, 1.0)
            painted[(on > 0) & (off > 0)] = (0.6, 0.35, 0.55, 1.0)
            axes.imshow(painted, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, linewidth=0.5)
            axes.set_title(f"{step_ms * index:g} ms", fontsize=7, pad=2)
        return svg(figure, name)
