"""What the figures of `plot.py` are put together from: one sample's way through a network, rasters, traces, axes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy import ndarray

from stbp.data import DataSet
from stbp.nn.layers import LIF
from stbp.ops.spikes import Spikes
from stbp.ops.surrogate.curves import REACH
from stbp.train.evaluate import Run, predict, read_out

BLUE, RED, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
INK, GREY = "#2B2B2B", "#8C8C8C"
MARKS, GROUPS = 256, 200  # a raster of more neurons than MARKS shows at most GROUPS groups of neighbours


class Layer(NamedTuple):
    """What a neuron layer did: potential and spikes, `[T, B, N]`, or `[T, N]` of one sample."""

    name: str
    neuron: LIF
    u: Float[ndarray, "*axes"]
    o: Float[ndarray, "*axes"]


class Shot(NamedTuple):
    """One sample's way through the network."""

    x: Float[ndarray, "T N"]
    layers: list[Layer]
    image: UInt8[ndarray, "C H W"]
    names: list[str]
    label: int
    predicted: int


def record(run: Run, samples: DataSet, ids: Int64[torch.Tensor, " B"]) -> tuple[Float[ndarray, "T B N"], list[Layer]]:
    """Input and layers, on the spikes that evaluation draws for these samples."""
    net, device = run.network, next(run.network.parameters()).device
    if run.experiment.neuron == "relu":
        raise ValueError(f"{run.experiment.name} is a network without spikes, so there are none to draw")
    x = samples.window(ids, 0, device)
    layers = []
    for index, u, o in net.record(x):
        neuron = net[index]
        assert isinstance(neuron, LIF)
        layers.append(Layer(capitalised(net.name(index)), neuron, *(part.flatten(2).cpu().numpy() for part in (u, o))))
    return (x.dense() if isinstance(x, Spikes) else x).flatten(2).cpu().numpy(), layers


def look(run: Run, samples: DataSet, sample: int) -> Shot:
    if not 0 <= sample < len(samples):
        raise ValueError(f"sample must lie in [0, {len(samples)}), the number of samples; got {sample}")
    x, layers = record(run, samples, torch.tensor([sample]))
    predicted = int(predict(read_out(torch.from_numpy(layers[-1].o), run.experiment.readout)))
    layers = [layer._replace(u=layer.u[:, 0], o=layer.o[:, 0]) for layer in layers]
    names = [*samples.classes, *(f"output {k}" for k in range(len(samples.classes), layers[-1].o.shape[1]))]
    return Shot(x[:, 0], layers, samples.picture(sample).numpy(), names, int(samples.labels[sample]), predicted)


def draw_input(left: Axes, right: Axes, run: Run, shot: Shot) -> None:
    left.set_ylabel("pixel")
    if run.experiment.encoding == "static":
        extent = (0.5, len(shot.x) + 0.5, shot.x.shape[1] - 0.5, -0.5)
        left.imshow(shot.x.T, cmap="Greys", vmin=0, aspect="auto", extent=extent, interpolation="nearest")
        left.set_title(f"Input current, the same in every step: {shot.x.shape[1]:,} pixels, black {shot.x.max():.2g}")
    else:
        left.set_title(f"Input: {draw_spikes(left, shot.x, [INK] * shot.x.shape[1], 'pixel')}")
    colour = len(shot.image) == 3
    right.imshow(shot.image.transpose(1, 2, 0) if colour else shot.image.mean(0), cmap="Greys", vmin=0, vmax=255)
    right.set(title="Image" if colour or len(shot.image) == 1 else "Image, mean of channels", xticks=[], yticks=[])
    right.spines[:].set_visible(True)


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
        t, n = o.nonzero()
        half = 0.4 if N <= 100 else 0.5
        axes.vlines(t + 1, n - half, n + half, [tints[i] for i in n], linewidth=max(0.8, min(5.0, 250 / T)))
    else:
        shares, edges = grouped(o)
        tint = colors.LinearSegmentedColormap.from_list("shares", ["white", tints[0]])
        axes.pcolormesh(np.arange(T + 1) + 0.5, edges, shares.T, cmap=tint, vmin=0, rasterized=True)
        size, most = edges[1] - edges[0], 100 * shares.max()
        title += f"\neach row the share of {size:.0f} neighbours that fire, darkest {most:.0f} %"
    axes.set_ylim(N - 0.5, -0.5)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return title


def draw_potential(axes: Axes, layer: Layer, n: int) -> None:
    u, neuron, edges = layer.u[:, n], layer.neuron, np.arange(len(layer.u) + 1) + 0.5
    t, fired = np.arange(1, len(u) + 1), layer.o[:, n] > 0
    axes.stairs(u, edges, baseline=None, color=BLUE, linewidth=1.3, label="potential u")
    axes.plot(t[~fired], u[~fired], "o", color=BLUE, markersize=2.5)
    axes.plot(t[fired], u[fired], "o", color=RED, markersize=4.5, label="spike")
    axes.axhline(neuron.threshold, color=INK, linestyle="--", linewidth=1, label=f"threshold {neuron.threshold:g}")
    reach = REACH[neuron.surrogate] * neuron.width
    name = f"reach of the surrogate ({neuron.surrogate}, width {neuron.width:g})"
    axes.axhspan(neuron.threshold - reach, neuron.threshold + reach, color=SKY, alpha=0.18, linewidth=0, label=name)


def spread(o: Float[ndarray, "T N"], n: int) -> list[int]:
    """Up to n neurons, from the one that fires most to the one that fires least."""
    order = np.argsort(-o.sum(0), kind="stable")[: max(n, np.count_nonzero(o.sum(0)))]
    return order[np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)].tolist()


def rivals(shot: Shot) -> list[int]:
    """The true class, then the predicted one, then the others by spikes and mean potential."""
    counts, means = shot.layers[-1].o.sum(0), shot.layers[-1].u.mean(0)
    keys = [(k == shot.label, k == shot.predicted, counts[k], means[k]) for k in range(len(counts))]
    return sorted(range(len(keys)), key=keys.__getitem__, reverse=True)


def run_labels(runs: Sequence[Run]) -> list[str]:
    """The names of the runs, with the fields that set them apart where names do not."""
    fields = [run.experiment.flat() for run in runs]
    names = [field.pop("name") for field in fields]
    apart = [] if len(set(names)) == len(names) else [k for k in fields[0] if len({f[k] for f in fields}) > 1]
    return [", ".join([name, *(f"{k} {f[k]}" for k in apart)]) for name, f in zip(names, fields, strict=True)]


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


def about(run: Run) -> str:
    e = run.experiment
    return f"{e.name}, {e.network}, T = {e.T}{', static input' if e.encoding == 'static' else ''}"


def result(shot: Shot, sample: int) -> str:
    return f"sample {sample}: label {shot.names[shot.label]}, predicted {shot.names[shot.predicted]}"


def counted(n: int, unit: str) -> str:
    return f"{n:,} {unit}" if n == 1 else f"{n:,} {unit}s"


def capitalised(name: str) -> str:
    return name[0].upper() + name[1:]
