import os
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch
from mpl_toolkits.mplot3d import Axes3D
from PIL import Image

from stbp.cli import main
from stbp.data import DataError
from stbp.data.events.formats.reading import Recording
from stbp.data.events.formats.record import EVENT
from stbp.plot import recording as event_plot
from stbp.plot.style import save
from tests.data.events import files


def recording(events: list[files.Event], name: str = "N-MNIST", sensor: tuple[int, int] | None = None) -> Recording:
    return Recording(np.array(events, EVENT), name, sensor, Counter())


def random_recording(n: int = 500, last: int = 307_000, seed: int = 0) -> Recording:
    random = np.random.default_rng(seed)
    t = [*np.sort(random.integers(0, last, n - 1)).tolist(), last]
    x, y, p = random.integers(0, (34, 34, 2), (n, 3)).T.tolist()
    return recording(list(zip(t, x, y, p, strict=True)))


def frames_of(found: Recording) -> list[Axes]:
    """ON by part, then OFF by part."""
    return [axes for axes in event_plot.recording(found, "a.bin").axes if axes.images]


def frame_in(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def test_frames_count_the_events_of_each_saccade_and_polarity():
    found = random_recording()
    frames = frames_of(found)
    assert len(frames) == 6
    expected = np.zeros((2, 3, 34, 34), int)
    for t, x, y, p in found.events.tolist():
        expected[1 - p, (t >= 105_000) + int(t >= 210_000), y, x] += 1
    for axes, frame in zip(frames, expected.reshape(6, 34, 34), strict=True):
        np.testing.assert_array_equal(frame_in(axes), frame)
        assert f"{frame.sum():,} event" in axes.get_title("left")
    assert "saccade 2\n105 to 210 ms" in frames[1].get_title("left")


@pytest.mark.parametrize(
    ("name", "last", "saccades"),
    [("N-MNIST", 307_000, True), ("N-MNIST", 200_000, False), ("N-MNIST", 400_000, False), ("DAT", 307_000, False)],
)
def test_saccades_are_those_of_a_recording_of_their_length(name, last, saccades):
    found = recording([(0, 1, 1, 1), (last, 2, 2, 0)], name)
    assert event_plot.has_saccades(found) == saccades
    assert frames_of(found)[0].get_title("left").startswith("saccade 1" if saccades else "part 1")


def test_other_recordings_are_cut_into_thirds_of_their_time_from_the_first_event():
    found = recording([(t, 3, 2, 1) for t in (7_000_000, 7_000_009, 7_000_010, 7_000_029)], "DAT", (8, 4))
    frames = frames_of(found)
    assert [int(frame_in(axes).sum()) for axes in frames] == [2, 1, 1, 0, 0, 0]
    assert frame_in(frames[0]).shape == (4, 8)
    assert frames[0].get_title("left").startswith("part 1\n0 to 10 µs")


def test_pixels_of_a_fine_sensor_are_counted_in_blocks():
    found = recording([(0, 0, 0, 1), (1, 7, 7, 1), (2, 8, 0, 1), (3, 1279, 719, 1)], "EVT 3", (1280, 720))
    whole = event_plot.Part("", 0, 4)
    blocks = event_plot.count(found.events, 1, whole, (1280, 720), 8)
    assert blocks.shape == (90, 160)
    assert (blocks[0, 0], blocks[0, 1], blocks[89, 159], blocks.sum()) == (2, 1, 1, 4)
    bars = [bar.get_ylabel() for axes in frames_of(found) for bar in axes.child_axes]
    assert bars.count("events of 8x8 px") == 2


def test_the_cloud_shows_every_event_or_says_how_many():
    found = random_recording(60)
    cloud = next(a for a in event_plot.recording(found, "a.bin").axes if isinstance(a, Axes3D))
    offsets = cloud.collections[0]._offsets3d  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(offsets[0], found.events["t"] / 1000)
    np.testing.assert_array_equal(offsets[1], found.events["x"])
    assert cloud.get_zlim()[0] > cloud.get_zlim()[1]  # rows count from the top
    many = event_plot.recording(random_recording(20_001), "a.bin")
    cloud = next(a for a in many.axes if isinstance(a, Axes3D))
    assert cloud.get_title() == "20,000 of 20,001 events"


def test_rates_are_events_per_millisecond_of_each_polarity():
    found = random_recording(400)
    axes = event_plot.recording(found, "a.bin").axes[-1]
    for steps, p in zip((s for s in axes.patches if isinstance(s, StepPatch)), (1, 0), strict=True):
        rates, edges, _ = steps.get_data()
        assert (rates * np.diff(edges)).sum() == pytest.approx((found.events["p"] == p).sum())
        assert 50 <= len(rates) <= 150
    assert axes.get_ylabel() == "events per ms"


@pytest.mark.parametrize(
    "events",
    [[(5, 3, 4, 1)], [(5, 3, 4, 1)] * 3, [(2**40, 0, 0, 0), (2**40 + 3 * 10**9, 1279, 719, 1)]],
    ids=["one", "one time", "fifty minutes"],
)
def test_odd_recordings_are_drawn_too(events, tmp_path: Path):
    save(event_plot.recording(recording(events), "a.bin"), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 300


def run_stbp(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["stbp", *map(str, args)])
    return main.main()


def test_the_command_draws_a_file_or_a_member_of_an_archive(tmp_path: Path, monkeypatch, capsys):
    raw = files.nmnist([(1_000, 3, 4, 1), (300_000, 5, 6, 0)])
    (tmp_path / "a.bin").write_bytes(raw)
    with zipfile.ZipFile(tmp_path / "Train.zip", "w") as archive:
        archive.writestr("Train/0/00002.bin", raw)
    monkeypatch.chdir(tmp_path)
    assert run_stbp(monkeypatch, "plot", "events", "a.bin", "--out", "b.svg") == 0
    assert run_stbp(monkeypatch, "plot", "events", "Train.zip/Train/0/00002.bin") == 0
    assert capsys.readouterr().out == "b.svg\n00002-events.png\n"
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", "Train.zip", "b.svg", "00002-events.png"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["absent.bin"], "absent.bin: no such file; name a recording"),
        (["image.png"], "image.png: no recording of a known format"),
        (["empty.bin"], "empty.bin: holds no events"),
        (["run"], "run: a run, not a recording; stbp plot all draws it"),
        (["."], ".: a folder; name a recording in it"),
        ([], "plot events takes one recording; got 0"),
        (["a.bin", "--sample", "3"], "--sample has no effect on plot events"),
        (["a.bin", "--data", "x"], "--data has no effect on plot events"),
        (["a.bin", "--out", "a.txt"], "path must end in .png, .svg, .pdf"),
        (["a.bin", "--out", "nowhere/a.png"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(args, message, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.bin").write_bytes(files.nmnist([(1, 2, 3, 1)]))
    (tmp_path / "empty.bin").touch()
    Image.new("L", (9, 9)).save(tmp_path / "image.png")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    before = sorted(tmp_path.iterdir())
    assert run_stbp(monkeypatch, "plot", "events", *args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.iterdir()) == before


def test_no_events_are_an_error():
    with pytest.raises(DataError, match=r"a\.bin: holds no events"):
        event_plot.recording(recording([]), "a.bin")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_is_one_line_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(files.nmnist([(1, 2, 3, 1)]))
    code = """
import os, signal, sys
from stbp import files
from stbp.cli import main as cli
whole = os.fsync
def interrupted(file):
    os.kill(os.getpid(), signal.SIGINT)
    whole(file)
os.fsync = interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.argv = ["stbp", "plot", "events", "a.bin"]
sys.exit(cli.main())
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "stopped\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
