import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colors
from PIL import Image

from stbp.cli import main
from stbp.data import DataError
from stbp.data.events.formats.reading import read_events
from stbp.data.events.windows import window_of
from stbp.experiments import registry
from stbp.ops.spikes import Spikes
from stbp.plot import movie
from stbp.plot.style import BLUE, RED
from stbp.train.evaluate import Run, build_network
from tests.data.events import files

T = 6


def untrained(name: str = "nmnist-mlp", **fields: object) -> Run:
    e = registry.experiments()[name].replace(**{"network": "34x34x2-20-10", "T": T, **fields})
    return Run(e, build_network(e, 0.02), [], {}, (2, 34, 34), tuple("0123456789"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    t = np.sort(random.integers(0, 10_000 * T, 2000)).tolist()
    x, y, p = random.integers(0, (34, 34, 2), (2000, 3)).T.tolist()
    (tmp_path / "a.bin").write_bytes(files.nmnist(zip(t, x, y, p, strict=True)))
    return tmp_path / "a.bin"


def test_a_picture_for_each_step_shows_what_was_recorded(file: Path, monkeypatch):
    run, shown = untrained(), []
    whole = movie.draw

    def draw(*args: Any) -> list[Image.Image]:
        shown.append(args)
        return whole(*args)

    monkeypatch.setattr(movie, "draw", draw)
    pictures = movie.pictures(run, file)
    assert len(pictures) == T
    assert {picture.size for picture in pictures} == {(1600, 720)}
    assert len({picture.tobytes() for picture in pictures}) == T
    _, frames, hidden, output = shown[0]
    x = window_of(read_events(file), run.experiment.window, (34, 34), "")
    assert isinstance(x, Spikes)
    np.testing.assert_array_equal(frames, x.dense()[:, 0])
    traces = run.network.record(x)
    np.testing.assert_array_equal(hidden, traces[0].o[:, 0])
    np.testing.assert_array_equal(output, traces[1].o[:, 0])
    assert hidden.any()


def test_each_picture_shows_the_spikes_up_to_its_step():
    run = untrained()
    hidden, output = np.zeros((T, 20), np.float32), np.zeros((T, 10), np.float32)
    hidden[2, 7] = output[4, 3] = 1
    pictures = movie.draw(run, np.zeros((T, 2, 34, 34), np.float32), hidden, output)

    def columns(a: int, b: int) -> set[str]:
        """In which third of the picture two of them differ below the titles, which change always."""
        apart = np.asarray(pictures[a])[150:].astype(int) != np.asarray(pictures[b])[150:]
        x = np.flatnonzero(apart.any((0, 2)))
        return {("frame", "raster", "counts")[int(at)] for at in np.digitize(x, (500, 1120))}

    assert columns(0, 1) == set()
    assert columns(1, 2) == {"raster"}
    assert columns(3, 4) == {"counts"}
    assert columns(4, 5) == set()


def test_a_frame_is_white_and_has_a_colour_for_each_polarity():
    frame = np.zeros((2, 2, 2), np.float32)
    frame[0, 0, 0] = frame[1, 0, 1] = frame[:, 1, 1] = 1
    picture = movie.coloured(frame) / 255
    np.testing.assert_array_equal(picture[1, 0], 1)
    for place, colour in (((0, 0), RED), ((0, 1), BLUE)):
        np.testing.assert_allclose(picture[place], colors.to_rgb(colour), atol=1e-9)
    assert picture[1, 1].max() < 0.3


def test_hidden_neurons_are_sorted_by_the_class_that_they_excite_most():
    run = untrained()
    weight = run.network[-2].weight
    assert isinstance(weight, torch.Tensor)
    with torch.no_grad():
        weight.zero_()
        for n in range(20):
            weight[9 - n % 5, n] = 1
    order, bounds = movie.by_class(run)
    assert order[:4].tolist() == [4, 9, 14, 19]
    assert bounds.tolist() == [0, 0, 0, 0, 0, 0, 4, 8, 12, 16, 20]


def test_the_gif_loops_and_rests_at_its_end(file: Path, tmp_path: Path):
    movie.save(movie.pictures(untrained(), file), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["loop"] == 0
        assert gif.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        durations = []
        for n in range(getattr(gif, "n_frames", 1)):
            gif.seek(n)
            durations.append(gif.info["duration"])
    assert durations == [movie.STEP_MS] * (T - 1) + [movie.LAST_MS]
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", "a.gif"}


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: Run(registry.experiments()["digits-mlp"], untrained().network, [], {}, (1, 8, 8), ()), "recordings;"),
        (lambda: untrained(network="34x34x2-10"), "a hidden layer of neurons in front of the output"),
    ],
)
def test_a_run_that_has_nothing_to_show_is_told_why(run, message, file: Path):
    with pytest.raises(ValueError, match=message):
        movie.pictures(run(), file)


def test_a_recording_of_another_sensor_is_named(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(files.nmnist([(1, 40, 3, 1)]))
    with pytest.raises(DataError, match=r"a\.bin: its events reach 41 x 4"):
        movie.pictures(untrained(), tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run"], "plot movie takes a run and a recording; got 1"),
        (["run", "a.bin"], "run holds no run"),
        (["run", "a.bin", "--out", "a.png"], "--out of plot movie must end in .gif; got 'a.png'"),
        (["run", "a.bin", "--sample", "3"], "--sample has no effect on plot movie"),
    ],
)
def test_a_mistake_is_one_line(args, message, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stbp", "plot", "movie", *args])
    assert main.main() == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []
