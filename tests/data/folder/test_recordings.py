import os
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stbp.data import DataError
from stbp.data.events.formats import reading
from stbp.data.events.sets import EventSet, load_events
from stbp.data.folder import load as own
from stbp.data.folder.recordings import Recorded, prepared

from ..conftest import REAL_DATA, files_in
from ..events import files
from ..events.test_formats import write_shd

DAVIS = files.AEDAT3_HEADER.replace(b"#Source 1: DVS128\r\n", b"#Source 1: DAVIS346\r\n")
EVENTS: list[files.Event] = [(5_000, 3, 4, 1), (5_010, 100, 2, 0), (9_000, 7, 120, 1)]


def dat(events: list[files.Event]) -> bytes:
    """Prophesee's DAT, version 2: lines of `%`, type and size of an event, then time and packed address, 8 bytes."""
    header = b"% Data file containing CD events.\n% Version 2\n% Height 240\n% Width 304\n" + bytes([12, 8])
    return header + b"".join(struct.pack("<II", t, p << 28 | y << 14 | x) for t, x, y, p in events)


def moved(events: list[files.Event], i: int) -> list[files.Event]:
    return [(t + 10 * i, x, y, p) for t, x, y, p in events]


def write(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_tree(folder: Path) -> None:
    """Two classes in two formats of one sensor; three recordings each in training, two in the test."""
    for split, n in (("train", 3), ("test", 2)):
        write(folder, {f"{split}/a/{i}.aedat": files.aedat2(moved(EVENTS, i)) for i in range(n)})
        write(
            folder,
            {f"{split}/b/{i}.aedat": files.AEDAT3_HEADER + files.aedat3_packet(moved(EVENTS, i)) for i in range(n)},
        )


def load(folder: Path, **options: Any) -> tuple[Recorded, list[EventSet]]:
    found = own.read(own.look(folder), cache=folder.parent / "stores", **options)
    assert found.recorded is not None
    return found.recorded, [one for one in found.sets if isinstance(one, EventSet)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tree(tmp_path / "data")
    return tmp_path / "data"


def test_recordings_of_mixed_formats_are_read_by_class_and_name_with_time_from_the_first_event(folder):
    told, (train, test) = load(folder)
    assert train.classes == test.classes == ("a", "b")
    assert train.names == ["a/0.aedat", "a/1.aedat", "a/2.aedat", "b/0.aedat", "b/1.aedat", "b/2.aedat"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (train.shape, told.sensor, told.longest_us, told.median_us) == ((2, 128, 128), (128, 128), 4000, 4000)
    for index in (0, 5):
        assert train.events(index).tolist() == [(t - 5_000, x, y, p) for t, x, y, p in EVENTS]
    assert len(test) == 4


def test_a_second_start_opens_the_store(folder, monkeypatch):
    first = load(folder)[1][0]
    monkeypatch.setattr(reading, "decode", None)
    assert torch.equal(load(folder)[1][0].t, first.t)
    os.utime(folder / "train/a/0.aedat", ns=(1, 1))
    with pytest.raises(TypeError):
        load(folder)
    assert len([name for name in files_in(folder.parent / "stores") if name.endswith(".safetensors")]) == 2


def test_the_sensor_is_that_of_the_files_or_a_guess_that_is_told_or_given(folder, tmp_path, caplog):
    for split in ("train", "test"):
        write(
            tmp_path / "guess", {f"{split}/{c}/1.bin": files.nmnist(EVENTS[: n + 1]) for c, n in (("a", 2), ("b", 1))}
        )
    told, sets = load(tmp_path / "guess")
    assert (told.sensor, sets[1].shape) == ((101, 121), (2, 121, 101))
    assert "sensor 101x121, a guess: the largest coordinates; --sensor" in caplog.text
    assert load(tmp_path / "guess", sensor=(346, 260))[1][0].shape == (2, 260, 346)
    with pytest.raises(
        DataError, match=r"reach 101 columns \(b/1.bin\) and 121 rows \(a/1.bin\), the sensor is 64x200"
    ):
        load(tmp_path / "guess", sensor=(64, 200))


def test_recordings_of_two_sensors_are_refused_unless_one_is_given(folder):
    write(folder, {"train/a/9.aedat": DAVIS + files.aedat3_packet(EVENTS)})
    with pytest.raises(DataError, match=r"several sensors, 128x128 \(a/0.aedat\) and 346x260 \(a/9.aedat\)"):
        load(folder)
    assert load(folder, sensor=(346, 260))[1][0].shape == (2, 260, 346)


def test_squares_of_the_sensor_become_one_pixel(folder):
    told, (train, _) = load(folder, downscale=3)
    assert (told.sensor, train.shape) == ((128, 128), (2, 43, 43))
    assert train.events(0).tolist() == [(t - 5_000, x // 3, y // 3, p) for t, x, y, p in EVENTS]
    assert prepared(files.array(EVENTS), 3).tolist() == train.events(0).tolist()


def test_what_is_too_large_to_train_on_says_how_to_make_it_smaller(tmp_path):
    faery = pytest.importorskip("faery")
    assert faery
    header = b"% Data file containing CD events.\n% Version 2\n% Height 720\n% Width 1280\n" + bytes([12, 8])
    write(tmp_path / "data", {f"{c}/1.dat": header + dat(EVENTS)[-24:] for c in "ab"})
    with pytest.raises(DataError, match=r"2 x 720 x 1280 .* make it smaller with --downscale"):
        load(tmp_path / "data")
    assert load(tmp_path / "data", downscale=4)[1][0].shape == (2, 180, 320)


def test_dat_files_are_trained_on_too(tmp_path):
    pytest.importorskip("faery")
    write(tmp_path / "data", {f"{c}/{i}.dat": dat(moved(EVENTS, i)) for c in "ab" for i in range(2)})
    told, (only,) = load(tmp_path / "data")
    assert (told.sensor, len(only)) == ((304, 240), 4)
    assert only.events(3).tolist() == [(t - 5_000, x, y, p) for t, x, y, p in EVENTS]


def test_damaged_recordings_are_named_counted_and_skipped_every_time(folder, caplog):
    write(folder, {
        "train/a/bad.aedat": files.aedat2([(9_000, 1, 1, 1), (2_000, 1, 1, 1)]),
        "train/a/cut.aedat": files.aedat2(EVENTS) + b"abc",
        "train/b/notes.txt": b"hello",
        "train/b/empty.aedat": b"",
        "train/stray.aedat": files.aedat2(EVENTS),
    })  # fmt: skip
    for _ in range(2):  # the second time from the store
        caplog.clear()
        _, (train, _) = load(folder)
        assert len(train) == 7
        assert "a/bad.aedat" not in train.names
        skipped = next(message for message in caplog.messages if "skipped" in message)
        for part in (
            f"{folder / 'train'}: skipped 4 of 11 files: ", "1 damaged or not readable (a/bad.aedat)",
            "1 empty (b/empty.aedat)",
            "1 neither image nor recording (b/notes.txt)", "1 not in the folder of a class (stray.aedat)",
            "time runs backwards",
        ):  # fmt: skip
            assert part in skipped
        assert "1 truncated last event dropped" in caplog.text


def test_a_class_that_loses_its_last_recording_is_an_error_and_leaves_no_store(folder):
    for i in range(3):
        (folder / f"train/b/{i}.aedat").write_bytes(files.AEDAT3_HEADER + b"rest")
    with pytest.raises(DataError, match=r"train/b: holds no image and no recording that can be read \(damaged"):
        load(folder)
    assert not [name for name in files_in(folder.parent / "stores") if name.endswith(".safetensors")]


def test_a_recording_of_hours_is_skipped(folder, caplog):
    write(
        folder,
        {"train/a/long.aedat": files.AEDAT3_HEADER + files.aedat3_packet(EVENTS) + files.aedat3_packet(EVENTS, 3)},
    )
    assert len(load(folder)[1][0]) == 6
    assert "a/long.aedat: 107 minutes long, more than the 71 allowed" in caplog.text


def test_a_missing_library_is_no_fault_of_the_files(tmp_path, monkeypatch):
    for name in ("faery", "faery.file_decoder"):
        monkeypatch.setitem(sys.modules, name, None)
    write(tmp_path / "data", {f"{c}/1.dat": dat(EVENTS) for c in "ab"})
    with pytest.raises(DataError, match=r"DAT needs faery; install it with"):
        load(tmp_path / "data")


def test_images_and_recordings_in_one_folder_are_ambiguous(folder):
    Image.new("L", (4, 4)).save(folder / "train/a/picture.png")
    with pytest.raises(DataError, match=r"holds images \(.*picture.png\) and recordings \(.*0.aedat\)"):
        load(folder)


def test_hdf5_files_are_a_split_each(tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "data").mkdir()
    write_shd(tmp_path / "data/shd_train.h5", [([0.5, 1.0], [3, 699]), ([0.25], [7]), ([0.5], [0])], [10, 4, 10])
    (only,) = load(tmp_path / "data")[1]
    assert (only.classes, only.labels.tolist(), only.shape) == (("4", "10"), [1, 0, 1], (2, 1, 700))
    assert only.events(0).tolist() == [(0, 3, 0, 1), (500_000, 699, 0, 1)]
    write_shd(tmp_path / "data/shd_test.h5", [([0.5], [3])], [4])
    assert [len(one) for one in load(tmp_path / "data")[1]] == [3, 1]
    write_shd(tmp_path / "data/shd_test.h5", [([0.5], [3])], [5])
    with pytest.raises(DataError, match="has class '5', which no training recording has"):
        load(tmp_path / "data")


def test_a_drawn_split_takes_its_share_of_every_class_by_the_seed():
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 2)
    train, test = own.draw(labels, 0.2, seed=1)
    assert labels[test].bincount().tolist() == [10, 2, 1]
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(62))
    assert test.tolist() == own.draw(labels, 0.2, seed=1)[1].tolist()
    assert test.tolist() != own.draw(labels, 0.2, seed=2)[1].tolist()
    with pytest.raises(DataError, match="a class with one sample cannot be divided"):
        own.draw(torch.tensor([0, 0, 1]))


@pytest.mark.skipif(not REAL_DATA, reason="STBP_DATA names no folder with n-mnist-1100/")
def test_real_recordings_are_as_in_their_own_set(tmp_path):
    with zipfile.ZipFile(Path(REAL_DATA or "") / "n-mnist-1100/Test.zip") as archive:
        archive.extractall(tmp_path)
    told, (only,) = load(tmp_path / "Test")
    _, published = load_events("n-mnist", REAL_DATA, cache=tmp_path / "stores")
    assert told.sensor == (34, 34)
    own_places = {name: i for i, name in enumerate(only.names)}
    for i in (0, 57, 99):
        expected = published.events(i)
        expected["t"] -= expected["t"][0]
        assert np.array_equal(only.events(own_places[published.names[i]]), expected)
