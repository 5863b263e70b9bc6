"""One sample on its way through a network: what its layers did, and how that is drawn."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.axes import Axes
from numpy import ndarray

from stbp import nn
from stbp.data import DataSet
from stbp.nn.record import describe
from stbp.ops.spikes import Spikes
from stbp.ops.surrogate.curves import TABLE
from stbp.plot.style import BLUE, INK, RED, SKY, capitalised, draw_spikes
from stbp.train.evaluate import Run, device_of, predict, read_out


class Layer(NamedTuple):
    """Activity of a neuron layer: potential and spikes, `[T, B, N]`, or `[T, N]` of one sample."""

    name: str
    neuron: Any
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
    net, device = run.network, device_of(run.network)
    if run.experiment.neuron == "relu":
        raise ValueError(f"{run.experiment.name} is a network without spikes, so there are none to draw")
    x = samples.window(ids, 0, device)
    layers = []
    for trace in nn.record(net, x):
        title = capitalised(describe(net, trace.layer))
        u = torch.full_like(trace.o, torch.nan) if trace.u is None else trace.u
        layers.append(Layer(title, trace.neurons, *(part.flatten(2).cpu().numpy() for part in (u, trace.o))))
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


def draw_potential(axes: Axes, layer: Layer, n: int) -> None:
    u, neuron, edges = layer.u[:, n], layer.neuron, np.arange(len(layer.u) + 1) + 0.5
    t, fired = np.arange(1, len(u) + 1), layer.o[:, n] > 0
    axes.stairs(u, edges, baseline=None, color=BLUE, linewidth=1.3, label="potential u")
    axes.plot(t[~fired], u[~fired], "o", color=BLUE, markersize=2.5)
    axes.plot(t[fired], u[fired], "o", color=RED, markersize=4.5, label="spike")
    axes.axhline(neuron.threshold, color=INK, linestyle="--", linewidth=1, label=f"threshold {neuron.threshold:g}")
    reach = TABLE[neuron.surrogate].reach * neuron.width
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


def about(run: Run) -> str:
    e = run.experiment
    return f"{e.name}, {e.network}, T = {e.T}{', static input' if e.encoding == 'static' else ''}"


def result(shot: Shot, sample: int) -> str:
    return f"sample {sample}: label {shot.names[shot.label]}, predicted {shot.names[shot.predicted]}"
