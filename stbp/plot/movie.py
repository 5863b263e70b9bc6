"""A recording on its way through a trained network, step by step, as a GIF that loops."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colors, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray
from PIL import Image

from stbp.data.events.windows import window_of_file
from stbp.files import write_atomically
from stbp.nn.plan import Synapse, piece
from stbp.nn.record import synapses
from stbp.ops.spikes import Spikes
from stbp.ops.stage import Neuron
from stbp.plot.sample import about
from stbp.plot.style import BLUE, GREEN, GREY, INK, LINE, RED, STYLE
from stbp.train.evaluate import Run, device_of

DPI = 200  # at 8 inches: twice the 800 pixels that a page gives it
STEP_MS, LAST_MS = 120, 2500
COLOURS = 64


def pictures(run: Run, file: Path) -> list[Image.Image]:
    """One picture a step: the frame, the spikes of the last hidden layer so far, and those of each class so far.

    Hidden neurons are sorted by the class whose output neuron they excite most.

    Args:
        run: trained on recordings of event cameras.
        file: a recording of the same sensor, or a member of a zip file.

    Raises:
        ValueError: a run on other data, without spikes or without a hidden layer in front of the output.
        DataError: the recording is missing, damaged or of another sensor.
    """
    _check(run)
    _, H, W = run.shape
    x = window_of_file(file, run.experiment, (H, W)).to(device_of(run.network))
    hidden, output = (trace.o.flatten(2)[:, 0].cpu().numpy() for trace in run.network.record(x)[-2:])
    frames = (x.dense() if isinstance(x, Spikes) else x)[:, 0].cpu().numpy()
    return draw(run, frames, hidden, output)


def _check(run: Run) -> None:
    e = run.experiment
    if e.step_ms is None:
        raise ValueError(f"plot movie needs a run on recordings; {e.name} was trained on {e.dataset}")
    if e.neuron == "relu":
        raise ValueError(f"{e.name} is a network without spikes, so there are none to draw")
    kinds = [type(piece(layer)) for layer in run.network][-3:]
    if kinds != [Neuron, Synapse, Neuron]:
        raise ValueError(f"plot movie needs a hidden layer of neurons in front of the output; got {e.network}")


@rc_context(STYLE)
def draw(
    run: Run, frames: Float[ndarray, "T 2 H W"], hidden: Float[ndarray, "T N"], output: Float[ndarray, "T K"]
) -> list[Image.Image]:
    """The pictures of `pictures`, for the frames and the spikes of the last hidden layer and of the output."""
    T, K = output.shape
    step_ms = run.experiment.step_ms
    assert step_ms is not None  # an experiment on recordings has it
    order, bounds = by_class(run)
    steps, neurons = hidden[:, order].nonzero()
    counts, fired = output.cumsum(0), hidden.sum(1).cumsum()
    most = max(1.0, counts[-1].max())
    figure = Figure(figsize=(8, 3.6), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1.4, 0.9))
    image = left.imshow(coloured(frames[0]), interpolation="nearest")
    _dress_frame(left)
    marks = middle.scatter([], [], s=2.2, c=BLUE, linewidths=0)
    _dress_raster(middle, run.classes, bounds, T, step_ms)
    bars = right.barh(range(K), np.zeros(K), height=0.7, linewidth=0)
    numbers = [right.text(0, k, "", va="center", fontsize=8) for k in range(K)]
    _dress_counts(right, run.classes, most)
    figure.suptitle(about(run), fontsize=10)
    drawn = []
    for t in range(T):
        image.set_data(coloured(frames[t]))
        past = steps <= t
        marks.set_offsets(np.column_stack([steps[past] + 1, neurons[past]]))
        leader = int(counts[t].argmax()) if counts[t].any() else None
        for k, (bar, number) in enumerate(zip(bars, numbers, strict=True)):
            bar.set(width=counts[t, k], color=GREEN if k == leader else GREY)
            number.set(x=counts[t, k] + 0.03 * most, text=f"{counts[t, k]:.0f}")
        left.set_title(f"Events, {t * step_ms:g} to {(t + 1) * step_ms:g} ms")
        middle.set_title(f"Hidden layer, {fired[t]:,.0f} spikes")
        right.set_title("Output, " + ("no spikes" if leader is None else f"most for {run.classes[leader]}"))
        canvas.draw()
        figure.set_layout_engine("none")  # nothing moves from picture to picture
        drawn.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))
    return drawn


def by_class(run: Run) -> tuple[ndarray, ndarray]:
    """Hidden neurons sorted by the class of their largest weight, `[N]`, and where each class begins and ends."""
    last: Any = [*synapses(run.network).values()][-1]
    favourite = last.weight.detach().cpu().numpy().argmax(0)
    order = np.argsort(favourite, kind="stable")
    return order, np.searchsorted(favourite[order], np.arange(len(last.weight) + 1))


def coloured(frame: Float[ndarray, "2 H W"]) -> UInt8[ndarray, "H W 3"]:
    """A frame as a picture: white where nothing happened, the colour of the polarity, a third one for both."""
    off, on = frame > 0
    picture = np.full((*on.shape, 3), 255, np.uint8)
    for where, colour in ((off, RED), (on, BLUE), (on & off, INK)):
        picture[where] = np.round(255 * np.array(colors.to_rgb(colour)))
    return picture


def _dress_frame(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    for name, colour, place in (("ON", BLUE, 0.0), ("OFF", RED, 0.17), ("both in one step", INK, 0.38)):
        axes.text(place, -0.03, name, color=colour, transform=axes.transAxes, va="top", fontweight="bold", fontsize=8)


def _dress_raster(axes: Axes, classes: Sequence[str], bounds: ndarray, T: int, step_ms: float) -> None:
    axes.set(xlim=(0.5, T + 0.5), ylim=(bounds[-1], 0), xlabel=f"time step of {step_ms:g} ms")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.set_yticks((bounds[1:] + bounds[:-1]) / 2, classes)
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel(f"{bounds[-1]:,} neurons, by the class they excite most")
    for bound in bounds[1:-1]:
        axes.axhline(bound, color=LINE, linewidth=0.8)


def _dress_counts(axes: Axes, classes: Sequence[str], most: float) -> None:
    axes.set(xlim=(0, 1.18 * most), xlabel="spikes of each class so far")
    axes.set_yticks(range(len(classes)), classes)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))


def check_name(path: Path) -> None:
    """Raises ValueError for a file that is not called a GIF, before the work of drawing."""
    if path.suffix.lower() != ".gif":
        raise ValueError(f"--out of plot movie must end in .gif; got {str(path)!r}")


def save(pictures: Sequence[Image.Image], path: Path) -> None:
    """Write pictures as a GIF that loops and rests on the last one: the whole file or nothing."""
    palette = pictures[-1].quantize(COLOURS, dither=Image.Dither.NONE)  # one for all: no colour flickers
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    table = np.array(palette.getpalette()).reshape(-1, 3)
    table[np.bincount(np.asarray(first).ravel()).argmax()] = 255  # Pillow takes a neighbour of white for the ground
    for picture in (first, *others):
        picture.putpalette(table.ravel().tolist())
    content = io.BytesIO()
    durations = [*[STEP_MS] * len(others), LAST_MS]
    first.save(content, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=True)
    write_atomically(path, content.getvalue())
