"""The figure of a recording of an event camera; made and saved as those of `runs.py`.

ON events are blue, OFF events vermilion, in every part of the figure. Pixels count from 0 at the upper left.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colors, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from stbp.data.error import DataError
from stbp.data.events.formats.reading import Recording
from stbp.data.events.frames.options import SACCADE_US
from stbp.data.events.sets import SENSOR
from stbp.plot.style import BLUE, GREY, RED, STYLE, counted

POLARITIES = ((1, "ON", BLUE), (0, "OFF", RED))
PARTS = 3
LONGEST_US = 350_000  # the longest recording of N-MNIST lasts 336 ms
FINEST = 160  # squares along the longer side of a frame: the pixels of a finer sensor are counted in blocks
CLOUD = 20_000  # events that a cloud shows at most
BINS = 150  # of the rates, at most


class Clock(NamedTuple):
    """Notation of times: from `start` in microseconds on, in a unit of so many microseconds."""

    start: int
    unit_us: int
    unit: str

    def read(self, t: ndarray) -> ndarray:
        return (t - self.start) / self.unit_us


class Part(NamedTuple):
    """The events of a recording from `begin` up to `end`, which is left out, in microseconds."""

    name: str
    begin: float
    end: float


@rc_context(STYLE)
def recording(found: Recording, name: str) -> Figure:
    """Frames by part of the time and polarity, a cloud in space and time, and the rates of the events.

    The parts are the three saccades where the recording is like one of N-MNIST, else thirds of its time. Of more than
    20,000 events the cloud shows as many, evenly spaced in their order, and says so.

    Args:
        name: what the figure calls the recording.

    Raises:
        DataError: there are no events.
    """
    events = found.events
    if not len(events):
        raise DataError(f"{name}: holds no events, so there is nothing to draw; name another recording")
    saccades = has_saccades(found)
    clock, parts = _clock(events["t"], saccades), _parts(events["t"], saccades)
    size = _size(found, saccades)
    height = 1.5 + 3.4 * min(1.0, max(0.5, size[1] / size[0]))  # inches, of two rows of frames with their titles
    figure = Figure(figsize=(11, height + 2.1))
    grid = figure.add_gridspec(2, 2, height_ratios=(height, 2.1), width_ratios=(1.35, 1))
    frames, cloud, lower = (figure.add_subfigure(grid[place]) for place in ((0, 0), (0, 1), (1, slice(None))))
    _draw_frames(frames, events, parts, clock, size)
    _draw_cloud(cloud, events, clock, size)
    _draw_rates(lower.subplots(), events, parts, clock)
    seconds = (int(events["t"][-1]) - int(events["t"][0])) / 1e6
    length = f"{1000 * seconds:,.1f} ms" if seconds < 10 else f"{seconds:,.1f} s"
    share = 100 * events["p"].mean(dtype=float)
    figure.suptitle(f"{name}\n{found.format}, {counted(len(events), 'event')} in {length}, {share:.1f} % of them ON")
    return figure


def has_saccades(found: Recording) -> bool:
    """True if a recording is in N-MNIST's format and as long as one that was made by three saccades."""
    return found.format == "N-MNIST" and 2 * SACCADE_US < int(found.events["t"][-1]) <= LONGEST_US


def _clock(t: ndarray, saccades: bool) -> Clock:
    start = 0 if saccades else int(t[0])
    length = int(t[-1]) - start
    unit_us, unit = next(
        ((size, name) for size, name in ((1_000_000, "s"), (1000, "ms")) if length >= 5 * size), (1, "µs")
    )
    return Clock(start, unit_us, unit)


def _parts(t: ndarray, saccades: bool) -> list[Part]:
    end = int(t[-1]) + 1
    thirds = np.linspace(int(t[0]), end, PARTS + 1).tolist()
    kind, bounds = ("saccade", [0, SACCADE_US, 2 * SACCADE_US, end]) if saccades else ("part", thirds)
    return [Part(f"{kind} {n + 1}", *bounds[n : n + 2]) for n in range(PARTS)]


def _size(found: Recording, saccades: bool) -> tuple[int, int]:
    """Columns and rows of the sensor, or what the events reach where nothing tells it."""
    reach = 1 + int(found.events["x"].max()), 1 + int(found.events["y"].max())
    if found.sensor:
        return found.sensor
    height, width = SENSOR
    return (width, height) if saccades and reach[0] <= width and reach[1] <= height else reach


def _draw_frames(figure: SubFigure, events: ndarray, parts: list[Part], clock: Clock, size: tuple[int, int]) -> None:
    grid = figure.subplots(2, PARTS, sharex=True, sharey=True)
    block = math.ceil(max(size) / FINEST)
    counts = np.stack([[count(events, p, part, size, block) for part in parts] for p, _, _ in POLARITIES])
    most = max(1, int(np.quantile(counts[counts > 0], 0.99)))  # one hot pixel must not make all others pale
    extent = (-0.5, block * counts.shape[3] - 0.5, block * counts.shape[2] - 0.5, -0.5)
    for row, (_, name, colour), frames in zip(grid, POLARITIES, counts, strict=True):
        tint = colors.LinearSegmentedColormap.from_list(name, ["white", colour])
        for axes, frame, part in zip(row, frames, parts, strict=True):
            axes.imshow(frame, cmap=tint, vmin=0, vmax=most, interpolation="nearest", extent=extent)
            axes.spines[:].set_visible(True)
            begin, end = ((bound - clock.start) / clock.unit_us for bound in (part.begin, part.end))
            number = counted(int(frame.sum()), "event")
            above = f"{part.name}\n{begin:.3g} to {end:.3g} {clock.unit}\n" if axes in grid[0] else ""
            axes.set_title(above + number, fontsize=8.5)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(3, integer=True))
        row[0].set_ylabel(f"{name}\ny (pixels)")
        beside = row[-1].inset_axes((1.1, 0, 0.07, 1))
        bar = figure.colorbar(row[-1].images[0], cax=beside, extend="max" if counts.max() > most else "neither")
        bar.set_label("events of a pixel" if block == 1 else f"events of {block}x{block} px")
        beside.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axes in grid[1]:
        axes.set_xlabel("x (pixels)")


def count(events: ndarray, p: int, part: Part, size: tuple[int, int], block: int = 1) -> ndarray:
    """Number of events of one polarity in a part, for each block of `block` by `block` pixels: `[rows, columns]`."""
    columns, rows = (math.ceil(n / block) for n in size)
    chosen = events[(events["p"] == p) & (events["t"] >= part.begin) & (events["t"] < part.end)]
    places = chosen["y"].astype(np.int64) // block * columns + chosen["x"] // block
    return np.bincount(places, minlength=rows * columns).reshape(rows, columns)


def _draw_cloud(figure: SubFigure, events: ndarray, clock: Clock, size: tuple[int, int]) -> None:
    shown = events[np.linspace(0, len(events) - 1, min(len(events), CLOUD)).astype(np.int64)]
    axes: Any = figure.add_axes((-0.03, 0.02, 0.87, 0.9), projection="3d")  # room for the label of y
    points = [clock.read(shown["t"]), shown["x"], shown["y"]]
    tints = np.array([RED, BLUE])[shown["p"]]
    area = min(6.0, max(1.0, 15_000 / len(shown)))  # square points
    axes.scatter(*points, s=area, c=tints, alpha=0.6, linewidths=0, depthshade=False, clip_on=False, rasterized=True)
    columns, rows = size
    axes.set(ylim=(-0.5, columns - 0.5), zlim=(rows - 0.5, -0.5))
    axes.set_box_aspect(
        (2.2, 1.25 * columns / max(size), 1.25 * rows / max(size)), zoom=4.2 * figure.dpi / figure.bbox.height
    )
    axes.view_init(elev=18, azim=-58)
    axes.set(xlabel=f"time ({clock.unit})", ylabel="x (pixels)", zlabel="y (pixels)")
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((0.97, 0.97, 0.97, 1.0))
        axis.set_major_locator(MaxNLocator(4, integer=axis is not axes.xaxis))
    if len(shown) < len(events):
        axes.set_title(f"{len(shown):,} of {len(events):,} events")


def _draw_rates(axes: Axes, events: ndarray, parts: list[Part], clock: Clock) -> None:
    t = events["t"] - clock.start
    end = int(t[-1]) + 1
    width = _bin_width(end)
    edges = np.arange(0, end, width)
    edges = np.append(edges[:-1] if len(edges) > 1 and end - edges[-1] < width / 2 else edges, end)
    for p, name, colour in POLARITIES:
        rates = 1000 * np.histogram(t[events["p"] == p], edges)[0] / np.diff(edges)
        axes.stairs(rates, edges / clock.unit_us, baseline=None, color=colour, linewidth=1.4, label=name)
    for part in parts[1:]:
        axes.axvline((part.begin - clock.start) / clock.unit_us, color=GREY, linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, end / clock.unit_us), ylim=(0, None))
    axes.set(xlabel=f"time ({clock.unit})", ylabel="events per ms")
    axes.set_title(f"Rate of events, in bins of {width / clock.unit_us:g} {clock.unit}")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_axisbelow(True)
    axes.grid(axis="y")
    axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 0.98))


def _bin_width(length: int) -> int:
    """The finest of 1, 2, 5, 10, ... microseconds that divides the time into at most `BINS` bins."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if length <= BINS * digit * power:
                return digit * power
        power *= 10
