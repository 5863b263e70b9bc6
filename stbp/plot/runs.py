"""Figures of runs and networks.

Each function returns a `matplotlib.figure.Figure` made without pyplot: no window opens and nothing global changes;
`style.save` writes it. Time steps count from 1 to T; samples, neurons and pixels from 0.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps, colors, rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from stbp.data import DataSet
from stbp.nn.record import describe, neuron_layers, synapses
from stbp.ops.surrogate.curves import TABLE, check
from stbp.plot import sample as drawing
from stbp.plot import style
from stbp.plot.style import BLUE, COLOURS, GREEN, GREY, INK, RED, STYLE
from stbp.train.evaluate import Evaluation, Run

SAMPLES, CHUNK = 200, 50  # firing rates are measured on so many samples, so many at a time to spare memory
TILES = 64  # neurons whose weights are shown
NAMED = 25  # up to so many classes, each is named and counted
SPLITS: dict[str, tuple[str, Any, str]] = {  # name, line, and colour where there is but one run
    "test_accuracy": ("test", "-", BLUE),
    "validation_accuracy": ("validation", "--", RED),
    "train_accuracy": ("training, during the epoch", ":", GREY),
}


@rc_context(STYLE)
def learning_curve(runs: Sequence[Run]) -> Figure:
    """Training loss, and error on training, validation and test samples in per cent, over epochs.

    The axes are logarithmic where values span a factor of three or more. Several runs share them, each called by what
    sets it apart. Values after the last epoch are written beside the curves, of several runs only loss and test error.

    Raises:
        ValueError: no run, or one without a finished epoch.
    """
    if not runs or not all(run.history for run in runs):
        raise ValueError(f"runs must be one or more, each with a finished epoch; got {len(runs)}")
    figure = Figure(figsize=(10, 4.4))
    loss_axes, error_axes = figure.subplots(1, 2)
    for run, label, colour in zip(runs, run_labels(runs), itertools.cycle((*COLOURS, INK))):
        dot = {"marker": "o", "markersize": 4, "markevery": [-1]}
        losses = np.array([[metrics["train_loss"] for metrics in run.history]])
        style.draw_curve(loss_axes, losses, "-", colour, label, **dot)
        for key, (name, line, own) in SPLITS.items():
            if run.history[-1][key] is not None:
                errors = np.array([[100 * (1 - metrics[key]) for metrics in run.history]])
                tint = own if len(runs) == 1 else colour
                style.draw_curve(error_axes, errors, line, tint, f"{label}, {name}", **dot)
    loss_axes.set(ylabel="loss", title="Training loss")
    error_axes.set(ylabel="error (per cent of samples)", title="Error")
    used = {line.get_linestyle() for line in error_axes.lines}
    tints = {line: own if len(runs) == 1 else INK for _, line, own in SPLITS.values() if line in used}
    key = [Line2D([], [], color=tints[ls], ls=ls, label=name) for name, ls, _ in SPLITS.values() if ls in used]
    error_axes.legend(handles=key)
    for axes, form in ((loss_axes, "{:.3g}"), (error_axes, "{:.2f} %")):
        axes.set_xlabel("epoch")
        axes.grid(axis="y")
        style.count_axis(axes, max(run.history[-1]["epoch"] for run in runs))
        style.ratio_scale(axes)
        style.write_ends(axes, [line for line in axes.lines if len(runs) == 1 or line.get_linestyle() == "-"], form)
    last = runs[0].history[-1]
    title = f"Test accuracy {100 * last['test_accuracy']:.2f} % after {style.counted(last['epoch'], 'epoch')}"
    if len(runs) > 1:
        columns = max(1, 110 // (8 + max(map(len, run_labels(runs)))))
        figure.legend(*loss_axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    figure.suptitle(f"{title}\n{drawing.about(runs[0])}" if len(runs) == 1 else f"Learning curves of {len(runs)} runs")
    return figure


def run_labels(runs: Sequence[Run]) -> list[str]:
    """The names of the runs, with the fields that set them apart where names do not."""
    fields = [run.experiment.flat() for run in runs]
    names = [field.pop("name") for field in fields]
    apart = [] if len(set(names)) == len(names) else [k for k in fields[0] if len({f[k] for f in fields}) > 1]
    return [", ".join([name, *(f"{k} {f[k]}" for k in apart)]) for name, f in zip(names, fields, strict=True)]


@rc_context(STYLE)
def raster(run: Run, samples: DataSet, sample: int) -> Figure:
    """The spikes of one sample on their way through the network: input, every neuron layer, output.

    Left: time steps against neurons. Right: the image, and how often each neuron fired. Of a layer of more than 256
    neurons the share of firing ones among neighbours is drawn, and its title says so.

    Raises:
        ValueError: `sample` is out of range.
    """
    shot = drawing.look(run, samples, sample)
    K = len(shot.names)
    heights = [2.2] * len(shot.layers) + [min(0.6 + 0.16 * K, 4.0)]
    figure = Figure(figsize=(10, sum(heights) + 0.3 * len(heights) + 0.9))
    grid = figure.subplots(len(heights), 2, squeeze=False, width_ratios=(5, 1.3), height_ratios=heights)
    drawing.draw_input(grid[0, 0], grid[0, 1], run, shot)
    tints = [GREEN if k == shot.label else RED if k == shot.predicted else GREY for k in range(K)]
    for layer, (left, right) in zip(shot.layers, grid[1:], strict=True):
        is_output = layer is shot.layers[-1]
        title = style.draw_spikes(left, layer.o, tints if is_output else [BLUE] * layer.o.shape[1], "neuron")
        left.set(title=f"{layer.name}: {title}", ylabel="class" if is_output else "neuron")
        if not is_output:
            shares, edges = style.grouped(layer.o)
            right.stairs(shares.sum(0), edges, orientation="horizontal", fill=True, color=BLUE)
        right.set(xlim=(0, len(layer.o)), ylim=left.get_ylim(), yticks=[])
        right.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    left, right = grid[-1]
    counts = shot.layers[-1].o.sum(0)
    right.barh(range(K), counts, color=tints)
    if K <= NAMED:
        left.set_yticks(range(K), shot.names)
        for k, count in enumerate(counts):
            right.annotate(f"{count:.0f}", (count, k), (3, 0), textcoords="offset points", va="center")
    if shot.predicted != shot.label:
        left.set_title(f"{left.get_title('left')}; green: label, red: prediction")
    left.set_xlabel("time step")
    right.set_xlabel("spikes of a neuron")
    for axes in grid[:, 0]:
        style.count_axis(axes, len(shot.x))
    for axes in grid[:-1].flat:
        axes.tick_params(labelbottom=False)
    figure.suptitle(f"Spikes of {drawing.result(shot, sample)}\n{drawing.about(run)}")
    return figure


@rc_context(STYLE)
def potential(run: Run, samples: DataSet, sample: int, neurons: int = 3) -> Figure:
    """Membrane potentials for one sample, a row a layer, with threshold, reach of the surrogate, and spikes.

    Drawn is u of each step as the spike is decided on it: the reset by a spike shows one step later. Of a hidden layer
    so many `neurons`, evenly from the one that fires most to the one that fires least, silent ones only where too few
    fire; of the output layer the true class and its strongest rivals, a wrong prediction first.

    Raises:
        ValueError: `sample` is out of range, or `neurons` is less than 2.
    """
    if neurons < 2:
        raise ValueError(f"neurons must be at least 2: the true class and its strongest rival; got {neurons}")
    shot = drawing.look(run, samples, sample)
    figure = Figure(figsize=(max(10.0, 2.6 * neurons), 1.4 + 2.2 * len(shot.layers)))
    grid = figure.subplots(len(shot.layers), neurons, squeeze=False, sharex=True, sharey="row")
    for layer, panels in zip(shot.layers, grid, strict=True):
        is_output = layer is shot.layers[-1]
        chosen = drawing.rivals(shot)[:neurons] if is_output else drawing.spread(layer.o, neurons)
        for axes, n in zip(panels, chosen, strict=False):
            drawing.draw_potential(axes, layer, n)
            roles = ", ".join(["label"] * (n == shot.label) + ["predicted"] * (n == shot.predicted)) or "rival"
            name = f"class {shot.names[n]} ({roles})" if is_output else f"neuron {n}"
            axes.set_title(f"{name}: {style.counted(int(layer.o[:, n].sum()), 'spike')}")
        for axes in panels[len(chosen) :]:
            axes.set_axis_off()
        threshold, half = layer.neuron.threshold, layer.neuron.width / 2
        view = np.array([*layer.u[:, chosen].flat, threshold - half, threshold + half])
        panels[0].set_ylim(view.min() - 0.08 * np.ptp(view), view.max() + 0.08 * np.ptp(view))
        panels[0].set_ylabel("potential u")
        panels[0].annotate(layer.name, (0, 1), (0, 21), "axes fraction", "offset points", weight="bold")
    for axes in grid[-1]:
        style.count_axis(axes, len(shot.x))
        axes.set_xlabel("time step")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"Membrane potentials of {drawing.result(shot, sample)}\n{drawing.about(run)}")
    return figure


@rc_context(STYLE)
def rates(run: Run, samples: DataSet) -> Figure:
    """Histograms of how often neurons fire, in per cent of the steps, for every neuron layer.

    A neuron's rate is its mean over all steps of the first 200 samples. Silent neurons, which never fired in any of
    them, are stacked on the first bar in a colour of their own.

    Raises:
        ValueError: `samples` is empty.
    """
    if len(samples) == 0:
        raise ValueError("samples must hold at least one sample; got none")
    ids = torch.arange(min(SAMPLES, len(samples)))
    chunks = [[layer.o.sum((0, 1)) for layer in drawing.record(run, samples, part)[1]] for part in ids.split(CHUNK)]
    percents = [100 * np.sum(parts, 0) / (len(ids) * run.experiment.T) for parts in zip(*chunks, strict=True)]
    columns = min(len(percents), 2 if len(percents) == 4 else 3)
    rows = math.ceil(len(percents) / columns)
    figure = Figure(figsize=(max(6.5, 4.2 * columns), 3.0 * rows + 1.0))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes in grid.flat[len(percents) :]:
        axes.set_axis_off()
    edges = np.linspace(0, max(5.0, *(percent.max() for percent in percents)), 41)
    names = [describe(run.network, name) for name in neuron_layers(run.network)]
    for axes, percent, name in zip(grid.flat, percents, names, strict=False):
        silent, N = int((percent == 0).sum()), len(percent)
        heights = np.histogram(percent[percent > 0], edges)[0]
        axes.bar(edges[:-1], heights, np.diff(edges), align="edge", color=BLUE, label="neurons that fire")
        axes.bar(0, silent, edges[1], bottom=heights[0], align="edge", color=RED, label="silent neurons")
        axes.axvline(percent.mean(), color=INK, linestyle="--", linewidth=1.2, label="mean")
        found = f"mean {percent.mean():.1f} %, silent {silent} of {N} ({100 * silent / N:.1f} %)"
        axes.set(
            title=f"{style.capitalised(name)}\n{found}", xlabel="firing rate (per cent of steps)", ylabel="neurons"
        )
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(f"Firing rates over {style.counted(len(ids), 'sample')}\n{drawing.about(run)}")
    return figure


@rc_context(STYLE)
def surrogates(width: float = 1.0, threshold: float = 0.5) -> Figure:
    """The curves h1..h4 that stand in for the derivative of the spike, and the steps that they are the slopes of.

    Left: the spike as a function of the potential, and the integrals of the curves. Right: Dirac's delta, and the
    curves, each of area 1 and peak 1/width. `width` and `threshold` as for `stbp.ops.lif`, in units of u.

    Raises:
        ValueError: `width` or `threshold` is not positive and finite.
    """
    check("rectangle", width)
    if not 0 < threshold < math.inf:
        raise ValueError(f"threshold must be positive and finite; got {threshold}")
    figure = Figure(figsize=(10, 4.4))
    step_axes, slope_axes = figure.subplots(1, 2)
    v = torch.linspace(-1.75, 1.75, 2101, dtype=torch.float64) * width
    u, peak, half = (threshold + v).numpy(), 1 / width, width / 2
    step_axes.plot([u[0], threshold, threshold, u[-1]], [0, 0, 1, 1], color=INK, linewidth=2.5, label="spike")
    lines: tuple[Any, ...] = ("-", (0, (6, 1.5)), "-.", (0, (1.5, 1)))
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(lines), strict=False)
    for n, ((name, curve), (colour, line)) in enumerate(zip(TABLE.items(), looks, strict=False), start=1):
        h = curve.function(v, width)
        slope_axes.plot(u, h.numpy(), color=colour, linestyle=line, label=f"h{n}, {name}")
        integral = torch.cumulative_trapezoid(h, v).numpy()
        step_axes.plot(u[1:], integral, color=colour, linestyle=line, label=f"integral of h{n}")
    arrow = {"arrowstyle": "<|-|>", "color": INK, "shrinkA": 0, "shrinkB": 0}
    delta = {**arrow, "arrowstyle": "-|>", "linewidth": 2.5}
    slope_axes.annotate("", (threshold, 1.4 * peak), (threshold, 0), arrowprops=delta)
    slope_axes.annotate("", (threshold - half, 0.1 * peak), (threshold + half, 0.1 * peak), arrowprops=arrow)
    slope_axes.axhline(peak, color=GREY, linewidth=1, linestyle="--", zorder=0)
    notes = {f"peak 1/width = {peak:.3g}": (u[0], peak), f"width {width:g}": (threshold, 0.1 * peak)}
    for text, at in {**notes, "Dirac's delta": (threshold - 0.9 * width, 1.33 * peak)}.items():
        slope_axes.annotate(text, at, (7, 4), textcoords="offset points")
    slope_axes.set(title="Its derivative, and the curves in its place", ylabel="slope", ylim=(0, 1.5 * peak))
    step_axes.set(title="The spike, and the integrals of the curves", ylabel="spike o", ylim=(-0.05, 1.15))
    for axes in (step_axes, slope_axes):
        axes.set_xlabel("potential u")
        axes.axvline(threshold, color=GREY, linewidth=1, linestyle=":", zorder=0)
        axes.legend(loc="upper left" if axes is step_axes else "upper right")
    figure.suptitle(f"Surrogates of the spike's derivative: threshold {threshold:g}, width {width:g}")
    return figure


@rc_context(STYLE)
def confusion(evaluation: Evaluation, title: str) -> Figure:
    """The confusion matrix in counts: rows true, columns predicted classes; colour shows the errors alone.

    Beside each row stands the share of its samples that are labelled rightly. More than 25 classes are neither named
    nor counted. `title` says what was evaluated; the accuracy is added.
    """
    counts, names = evaluation.confusion.cpu().numpy(), evaluation.classes
    K = len(names)
    errors = np.where(np.eye(K) > 0, 0, counts)
    side = min(10.0, max(3.5, 0.5 * K))
    figure = Figure(figsize=(side + 2.4, side + 1.4))
    axes = figure.subplots()
    axes.imshow(np.where(np.eye(K) > 0, 1.0, np.nan), cmap=colors.ListedColormap(["#DCE9F2"]))
    largest = max(2, int(errors.max()))
    oranges = colors.LinearSegmentedColormap.from_list("errors", colormaps["Oranges"]([0.15, 0.5, 0.9]))
    painted = axes.imshow(np.where(errors > 0, errors, np.nan), cmap=oranges, vmin=1, vmax=largest)
    if largest > 2:
        figure.colorbar(painted, shrink=0.6, label="errors (samples)", ticks=MaxNLocator(6, integer=True))
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0)
    axes.set(xlabel="predicted class", ylabel="true class")
    if K <= NAMED:
        axes.set_xticks(np.arange(K + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(K + 1) - 0.5, minor=True)
        axes.grid(which="minor", linewidth=0.8)
        turn = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 3 else {}
        axes.set_xticks(range(K), names, **turn)
        axes.set_yticks(range(K), names)
        for i, j in np.argwhere(counts):
            colour = "white" if errors[i, j] > 0.7 * largest else INK
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=colour)
        for k, total in enumerate(counts.sum(1)):
            share = f"{100 * counts[k, k] / total:.1f} %" if total else "no sample"
            axes.annotate(share, (K - 0.5, k), (6, 0), textcoords="offset points", va="center", color="#666666")
    found = f"accuracy {100 * evaluation.accuracy:.2f} %, {np.trace(counts):,} of {counts.sum():,} samples right"
    figure.suptitle(f"{title}\n{found}")
    return figure


@rc_context(STYLE)
def weights(run: Run, shape: tuple[int, int, int]) -> Figure:
    """The weights of the first synapse as images in one colour scale: red excites, blue inhibits.

    Of a Linear, the 64 neurons whose weights have the largest norm; of a Conv2d, the kernels of all maps; largest
    first, with the number of neuron or map above, channels side by side. The scale ends at the 99.5th percentile of
    the absolute weights shown. `shape` is that of the images, `(C, H, W)`.

    Raises:
        ValueError: the network has no synapse, or its first does not fit images of this shape.
    """
    first: Any
    name, first = next(iter(synapses(run.network).items()), ("", None))
    if first is None:
        raise ValueError("run must have a network with a synapse, whose weights can be drawn; it has none")
    if first.weight.shape[1] != (math.prod(shape) if first.weight.dim() == 2 else shape[0]):
        raise ValueError(f"shape must be the images' (C, H, W), which {describe(run.network, name)} takes; got {shape}")
    w = first.weight.detach().cpu().numpy()
    what, most = ("neurons", TILES) if w.ndim == 2 else ("kernels", len(w))
    order = np.argsort(-np.linalg.norm(w.reshape(len(w), -1), axis=1), kind="stable")[:most]
    tiles = w[order].reshape(len(order), *(shape if w.ndim == 2 else w.shape[1:]))
    limit = max(float(np.quantile(np.abs(tiles), 0.995)), 1e-12)
    C, h = tiles.shape[1:3]
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=np.nan)  # a gap between channels
    tiles = tiles.swapaxes(1, 2).reshape(len(tiles), h, -1)[:, :, :-1]
    w_ = tiles.shape[2]
    high, wide = h + 0.35 * max(h, 3), w_ + max(0.15 * h, 0.5 if C == 1 else 2.5)  # of a tile with its margins
    least = max(1, int(math.sqrt(len(tiles) * high / wide)))
    columns = min(range(least, 2 * least), key=lambda n: -len(tiles) % n)  # the fewest empty places
    rows = math.ceil(len(tiles) / columns)
    figure = Figure(figsize=(9, max(2.6, 7.5 * rows * high / (columns * wide) + 0.9)))
    axes = figure.subplots()
    for position, (n, tile) in enumerate(zip(order, tiles, strict=True)):
        x, y = position % columns * wide, position // columns * high
        axes.imshow(tile, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(x, x + w_, y + h, y), interpolation="nearest")
        axes.annotate(f"{n}", (x, y), (0, 2), textcoords="offset points", fontsize=7, color="#666666")
    axes.set(xlim=(0, columns * wide), ylim=(rows * high, h - high))
    axes.set_axis_off()
    figure.colorbar(axes.images[0], shrink=0.7, extend="both", label="weight (units of the potential)")
    some = f"{'all' if len(tiles) == len(w) else f'{len(tiles)} of'} {len(w)} {what}, largest norm first"
    figure.suptitle(f"Weights of {run.network.name(0)}: {some}\n{drawing.about(run)}")
    return figure
