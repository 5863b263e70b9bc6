"""The figures show the numbers that they claim to show, and are written whole or not at all."""

import dataclasses
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch

import stbp
from stbp.data import ImageSet, load
from stbp.data.dataset import Windows
from stbp.data.images import encode
from stbp.names import Surrogate
from stbp.nn.layers import LIF
from stbp.nn.network import Trace
from stbp.plot import runs as plot
from stbp.plot.style import save
from stbp.train.evaluate import Evaluation, Run, build_network, predict
from stbp.train.progress import Silent

T = 5


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load("digits")[1]


@pytest.fixture(scope="module")
def run() -> Run:
    return stbp.fit("digits-mlp", epochs=1, T=T, network="64-20-10", report=Silent())


@pytest.fixture(scope="module")
def static_run(run: Run) -> Run:
    """Untrained, with a history of two epochs."""
    e = run.experiment.replace(network="8x8-4C3-P2-300-10", encoding="static", T=1, validation=9, epochs=2)
    accuracies = ("train_accuracy", "validation_accuracy", "test_accuracy")
    history = [
        {"epoch": 1, "train_loss": 0.5, **dict(zip(accuracies, (0.25, 0.5, 0.45), strict=True))},
        {"epoch": 2, "train_loss": 0.1, **dict(zip(accuracies, (0.95, 0.875, 0.9), strict=True))},
    ]
    return Run(e, build_network(e, 0.3), history, {"test_accuracy": 0.9}, run.shape, run.classes)


def untrained(run: Run, network: str, shape: tuple[int, int, int], classes: int = 10, steps: int = T) -> Run:
    """A run of the same experiment with another network, at its start."""
    experiment = run.experiment.replace(network=network, T=steps)
    names = tuple(f"class {k}" for k in range(classes))
    return Run(experiment, build_network(experiment, 0.3), run.history, run.summary, shape, names)


def noise(n: int, shape: tuple[int, int, int], classes: int = 10) -> ImageSet:
    """Random images with all labels in turn."""
    pixels = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(pixels, torch.arange(n) % classes, tuple(f"class {k}" for k in range(classes)))


def bound(run: Run, images: ImageSet) -> Windows:
    """The images as the run's input."""
    return Windows(images, run.experiment.window, run.experiment.seed)


def title_of(figure: Figure) -> str:
    return figure.get_suptitle()


def drawn_spikes(axes: Axes) -> set[tuple[int, int]]:
    """Time step and neuron of every mark in a raster."""
    points = np.concatenate([line.get_xydata() for line in axes.lines])
    ends = points[~np.isnan(points[:, 0])]
    return {(round(t), round(n)) for t, n in ends.reshape(-1, 2, 2).mean(1)}


def recorded_spikes(o: torch.Tensor) -> set[tuple[int, int]]:
    return {(t + 1, n) for t, n in o[:, 0].flatten(1).nonzero().tolist()}


def expected(run: Run, images: ImageSet, sample: int) -> tuple[torch.Tensor, list[Trace]]:
    """Input and traces of one sample."""
    ids = torch.tensor([sample])
    x = encode(images.images[ids], run.experiment.window, 0, 0, ids)
    return (x if isinstance(x, torch.Tensor) else x.dense()), run.network.record(x)


def many_spikes(n: torch.Tensor) -> str:
    return f"{n:.0f} spike{'' if n == 1 else 's'}"


def test_raster_shows_the_recorded_spikes(run: Run, images: ImageSet):
    x, traces = expected(run, images, 7)
    figure = plot.raster(run, bound(run, images), 7)
    assert len(figure.axes) == 2 * 3
    left, right = figure.axes[0::2], figure.axes[1::2]
    for axes, o in zip(left, [x, traces[0].o, traces[1].o], strict=True):
        assert drawn_spikes(axes) == recorded_spikes(o)
    np.testing.assert_array_equal(right[0].images[0].get_array(), images.images[7, 0])
    counts = traces[1].o.sum((0, 1)).tolist()
    assert [bar.get_width() for bar in right[2].patches if isinstance(bar, Rectangle)] == counts
    assert [text.get_text() for text in right[2].texts] == [f"{count:.0f}" for count in counts]
    assert [label.get_text() for label in left[2].get_yticklabels()] == list(images.classes)
    label, predicted = int(images.labels[7]), int(predict(traces[1].o))
    assert f"sample 7: label {label}, predicted {predicted}" in title_of(figure)
    assert f"digits-mlp, 64-20-10, T = {T}" in title_of(figure)


def test_raster_counts_the_spikes_of_each_hidden_neuron(run: Run, images: ImageSet):
    counts = plot.raster(run, bound(run, images), 7).axes[3].patches[0]
    assert isinstance(counts, StepPatch)
    np.testing.assert_array_equal(counts.get_data()[0], expected(run, images, 7)[1][0].o.sum((0, 1)))


def test_raster_groups_neurons_where_they_are_many_and_says_so(run: Run):
    wide, inputs = untrained(run, "28x28-15C5-10", (1, 28, 28)), noise(2, (1, 28, 28))
    o = expected(wide, inputs, 1)[1][0].o[:, 0].flatten(1)
    assert o.shape[1] == 8640
    axes = plot.raster(wide, bound(wide, inputs), 1).axes[2]
    mesh = next(c for c in axes.collections if isinstance(c, QuadMesh))
    shares = torch.stack([group.mean(1) for group in o.split(44, 1)])  # the last group is smaller
    np.testing.assert_allclose(np.asarray(mesh.get_array()), shares, rtol=1e-6)
    assert mesh.get_clim() == (0, pytest.approx(float(shares.max())))
    assert "8,640 neurons" in axes.get_title("left")
    assert f"share of 44 neighbours that fire, darkest {100 * shares.max():.0f} %" in axes.get_title("left")


def test_static_input_is_drawn_as_a_current(static_run: Run, images: ImageSet):
    figure = plot.raster(static_run, bound(static_run, images), 0)
    axes = figure.axes[0]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), images.images[0].reshape(64, 1) / 255)
    assert "current" in axes.get_title("left")
    assert "spikes" not in axes.get_title("left")
    assert title_of(figure).endswith("T = 1, static input")


def test_potential_shows_the_recorded_potential_threshold_and_spikes(run: Run, images: ImageSet):
    traces = expected(run, images, 7)[1]
    potentials = traces[0].u
    assert potentials is not None
    figure = plot.potential(run, bound(run, images), 7)
    assert len(figure.axes) == 2 * 3
    threshold = run.experiment.threshold
    for axes in figure.axes[:3]:
        n = int(axes.get_title("left").split(":")[0].removeprefix("neuron "))
        u, o = potentials[:, 0, n], traces[0].o[:, 0, n]
        steps = next(p for p in axes.patches if isinstance(p, StepPatch)).get_data()
        np.testing.assert_array_equal(steps[0], u)
        np.testing.assert_array_equal(steps[1], np.arange(T + 1) + 0.5)
        lines = {line.get_label(): line for line in axes.lines}
        np.testing.assert_array_equal(lines[f"threshold {threshold:g}"].get_ydata(), [threshold, threshold])
        np.testing.assert_array_equal(lines["spike"].get_xdata(), o.nonzero()[:, 0] + 1)
        np.testing.assert_array_equal(lines["spike"].get_ydata(), u[o > 0])
        reach = next(p for p in axes.patches if isinstance(p, Rectangle))
        assert (reach.get_y(), reach.get_height()) == pytest.approx((threshold - 0.5, 1.0))


def test_potential_shows_the_label_and_its_rivals(run: Run, images: ImageSet):
    x = encode(images.images, run.experiment.window, 0, 0, torch.arange(len(images)))
    o = run.network(x)
    wrong = predict(o) != images.labels
    for sample in (int(wrong.nonzero()[0]), int((~wrong).nonzero()[0])):
        label, predicted = int(images.labels[sample]), int(predict(o)[sample])
        first, second, _ = (axes.get_title("left") for axes in plot.potential(run, bound(run, images), sample).axes[3:])
        counts = o[:, sample].sum(0)
        if label != predicted:
            assert first == f"class {label} (label): {many_spikes(counts[label])}"
            assert second == f"class {predicted} (predicted): {many_spikes(counts[predicted])}"
        else:
            assert first == f"class {label} (label, predicted): {many_spikes(counts[label])}"
            counts[label] = -1
            assert second.endswith(f"(rival): {many_spikes(counts.max())}")


def test_rates_count_every_neuron_once(run: Run, images: ImageSet):
    x = encode(images.images[:200], run.experiment.window, 0, 0, torch.arange(200))
    figure = plot.rates(run, bound(run, images))
    assert len(figure.axes) == 2
    assert "200 samples" in title_of(figure)
    for axes, trace in zip(figure.axes, run.network.record(x), strict=True):
        rates = 100 * trace.o.double().mean((0, 1))
        bars = [bar for bar in axes.patches if isinstance(bar, Rectangle)]
        silent = int((rates == 0).sum())
        assert sum(bar.get_height() for bar in bars) == len(rates)
        assert (bars[-1].get_y(), bars[-1].get_height()) == (bars[0].get_height(), silent)
        assert np.asarray(axes.lines[0].get_xdata())[0] == pytest.approx(float(rates.mean()))
        share = f"mean {rates.mean():.1f} %, silent {silent} of {len(rates)} ({100 * silent / len(rates):.1f} %)"
        assert axes.get_title("left").endswith(share)


def test_rates_of_a_silent_network(run: Run):
    mute = untrained(run, "8x8-4C3-20-10", (1, 8, 8))
    for module in mute.network:
        if isinstance(module, LIF):
            module.threshold = 1e9
    figure = plot.rates(mute, bound(mute, noise(3, (1, 8, 8))))
    assert [axes.get_title("left").split(", ")[-1] for axes in figure.axes] == [
        f"silent {n} of {n} (100.0 %)" for n in (144, 20, 10)
    ]


@pytest.mark.parametrize("width", [0.4, 2.5])
def test_surrogates_peak_at_one_over_width(width: float):
    step_axes, slope_axes = plot.surrogates(width, threshold=1.5).axes
    curves = [line for line in slope_axes.lines if str(line.get_label()).startswith("h")]
    assert len(curves) == len(get_args(Surrogate))
    for curve in curves:
        u, h = (np.asarray(data) for data in curve.get_data())
        assert h.max() == pytest.approx(1 / width)
        assert h[np.argmin(abs(u - 1.5))] == pytest.approx(1 / width)
        assert np.trapezoid(h, u) == pytest.approx(1, abs=0.005)
    for integral in step_axes.lines[1 : 1 + len(curves)]:
        assert np.asarray(integral.get_ydata())[-1] == pytest.approx(1, abs=0.005)
    assert {f"width {width:g}", f"peak 1/width = {1 / width:.3g}"} <= {text.get_text() for text in slope_axes.texts}


def test_confusion_writes_every_count_and_colours_errors_alone():
    counts = torch.tensor([[50, 0, 2], [7, 40, 0], [0, 1, 0]])
    figure = plot.confusion(Evaluation(counts, ("cat", "dog", "ant")), "pets")
    axes = figure.axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts if "%" not in text.get_text()}
    assert cells == {(j, i): str(counts[i, j].item()) for i, j in counts.nonzero().tolist()}
    errors = np.ma.filled(np.ma.asarray(axes.images[1].get_array()), 0)
    np.testing.assert_array_equal(errors, [[0, 0, 2], [7, 0, 0], [0, 1, 0]])
    assert [text.get_text() for text in axes.texts if "%" in text.get_text()] == ["96.2 %", "85.1 %", "0.0 %"]
    assert title_of(figure) == "pets\naccuracy 90.00 %, 90 of 100 samples right"


def test_confusion_without_errors_and_of_many_classes(tmp_path: Path):
    for classes in (1, 40):
        figure = plot.confusion(Evaluation(torch.eye(classes, dtype=torch.int64), tuple(map(str, range(classes)))), "x")
        assert len(figure.axes) == 1  # no scale for colours that are not there
        assert len(figure.axes[0].texts) == (2 if classes == 1 else 0)
        save(figure, tmp_path / "confusion.png")


def test_weights_of_linear_are_images_of_the_strongest_neurons(run: Run):
    wide = untrained(run, "4x6x2-70-10", (2, 4, 6))
    w = wide.network.get_parameter("0.weight").detach()
    figure = plot.weights(wide, (2, 4, 6))
    tiles = figure.axes[0].images
    order = w.norm(dim=1).argsort(descending=True)[:64]
    assert [text.get_text() for text in figure.axes[0].texts] == [str(n) for n in order.tolist()]
    for tile, n in zip(tiles, order, strict=True):
        shown = np.ma.asarray(tile.get_array())
        np.testing.assert_array_equal(np.delete(shown, 6, axis=1), torch.cat([*w[n].view(2, 4, 6)], dim=1))
        assert np.ma.getmaskarray(shown)[:, 6].all()  # the gap between the channels
        low, high = tile.get_clim()
        assert high == -low > 0
    assert "64 of 70 neurons" in title_of(figure)


def test_weights_of_conv_are_the_kernels_of_all_maps(static_run: Run):
    w = static_run.network.get_parameter("0.weight").detach()
    figure = plot.weights(static_run, (1, 8, 8))
    order = w.flatten(1).norm(dim=1).argsort(descending=True)
    for tile, n in zip(figure.axes[0].images, order, strict=True):
        np.testing.assert_array_equal(tile.get_array(), w[n, 0])
    assert "all 4 kernels" in title_of(figure)


def test_weights_refuse_what_they_cannot_show(run: Run):
    with pytest.raises(ValueError, match=r"shape must be .* got \(1, 9, 9\)"):
        plot.weights(run, (1, 9, 9))
    with pytest.raises(ValueError, match=r"which layer 2 \(Linear 16-10\) takes"):
        plot.weights(untrained(run, "8x8-P2-10", (1, 8, 8)), (1, 8, 8))


def test_learning_curve_draws_loss_and_errors(static_run: Run):
    figure = plot.learning_curve([static_run])
    loss_axes, error_axes = figure.axes
    np.testing.assert_array_equal(loss_axes.lines[0].get_xdata(), [1, 2])
    np.testing.assert_array_equal(loss_axes.lines[0].get_ydata(), [m["train_loss"] for m in static_run.history])
    for line, key in zip(error_axes.lines, ("test", "validation", "train"), strict=True):
        errors = [100 - 100 * metrics[f"{key}_accuracy"] for metrics in static_run.history]
        np.testing.assert_allclose(np.asarray(line.get_ydata()), errors)
    last = static_run.history[-1]
    ends = {f"{100 - 100 * last[f'{key}_accuracy']:.2f} %" for key in ("test", "validation", "train")}
    assert {text.get_text() for text in error_axes.texts} == ends
    assert f"{100 * static_run.test_accuracy:.2f} % after 2 epochs" in title_of(figure)


def test_learning_curves_are_called_by_what_sets_them_apart(run: Run, tmp_path: Path):
    perfect = [{**run.history[0], "epoch": k + 1, "test_accuracy": a} for k, a in enumerate((0.5, 0.99, 1.0))]
    others = [dataclasses.replace(run, settings=run.experiment.replace(seed=s)) for s in (1, 2)]
    figure = plot.learning_curve([run, *others, dataclasses.replace(others[0], history=perfect)])
    assert figure.axes[1].get_yscale() == "symlog"  # an error of zero stays on the axis
    assert [line.get_label() for line in figure.axes[0].lines[:3]] == [f"digits-mlp, seed {s}" for s in (0, 1, 2)]
    heights = sorted(text.get_position()[1] for text in figure.axes[1].texts)
    assert len(heights) == 4
    assert np.diff(heights).min() > 0.05  # no two labels overlap
    save(figure, tmp_path / "curves.png")


def test_learning_curve_needs_an_epoch(run: Run):
    for runs in ([], [dataclasses.replace(run, history=[])]):
        with pytest.raises(ValueError, match="finished epoch"):
            plot.learning_curve(runs)


@pytest.mark.parametrize("sample", [-1, 360])
def test_sample_out_of_range(run: Run, images: ImageSet, sample: int):
    for draw in (plot.raster, plot.potential):
        with pytest.raises(ValueError, match=rf"sample must lie in \[0, 360\).*got {sample}$"):
            draw(run, bound(run, images), sample)


def test_numbers_out_of_range(run: Run, images: ImageSet):
    with pytest.raises(ValueError, match="neurons must be at least 2"):
        plot.potential(run, bound(run, images), 0, neurons=1)
    with pytest.raises(ValueError, match="width"):
        plot.surrogates(width=0.0)
    with pytest.raises(ValueError, match="threshold"):
        plot.surrogates(threshold=-1.0)
    with pytest.raises(ValueError, match="at least one sample"):
        plot.rates(run, bound(run, ImageSet(images.images[:0], images.labels[:0], images.classes)))


def test_one_step_few_classes_and_channels(run: Run, tmp_path: Path):
    """T = 1, three classes and an output to spare, colour images: drawn and written without a warning."""
    shape = (3, 8, 8)
    small = untrained(run, "8x8x3-2C3-1-4", shape, classes=3, steps=1)
    inputs = bound(small, noise(4, shape, classes=3))
    figures = [plot.raster(small, inputs, 3), plot.potential(small, inputs, 3), plot.rates(small, inputs)]
    assert [label.get_text() for label in figures[0].axes[-2].get_yticklabels()][-1] == "output 3"
    for figure in [*figures, plot.weights(small, shape)]:
        save(figure, tmp_path / "figure.png")


def test_style_is_the_figures_own(run: Run, images: ImageSet):
    before = dict(rcParams)
    plot.raster(run, bound(run, images), 0)
    assert dict(rcParams) == before


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("PDF", b"%PDF")])
def test_save_writes_by_suffix_and_the_same_bytes_again(tmp_path: Path, suffix: str, start: bytes):
    paths = [tmp_path / f"{name}.{suffix}" for name in ("one", "two")]
    for path in paths:
        save(plot.surrogates(), path)
    assert paths[0].read_bytes().startswith(start)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == paths


@pytest.mark.parametrize("name", ["figure.xyz", "figure"])
def test_save_refuses_an_unknown_suffix(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=r"^path must end in \.png, \.svg, \.pdf or .*") as caught:
        save(plot.surrogates(), tmp_path / name)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_save_keeps_the_old_file_when_drawing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    figure = plot.surrogates()

    def fail(content, **_):
        content.write(b"half")
        raise RuntimeError("no memory")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_save_keeps_the_old_file_when_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save(plot.surrogates(), path)
    assert path.read_bytes() == b"old"
