import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stbp.cli import main
from stbp.data import DataError, info
from stbp.data.info import describe

from .conftest import PARTS, REAL_DATA, idx_bytes, write_set
from .events import files
from .events.test_formats import write_shd

EVENTS: list[files.Event] = [(1_000, 0, 3, 1), (2_000, 9, 4, 0), (2_000, 8, 5, 1), (11_000, 2, 7, 1)]


def set_of(recordings: dict[str, list[files.Event]], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, events in recordings.items():
            archive.writestr(name, files.nmnist(events))
    return path


def test_a_recording_is_counted_and_measured(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(files.aedat2(EVENTS) + b"abc")
    assert describe(path) == {
        "path": str(path),
        "format": "AEDAT 2.0",
        "events": 4,
        "first_us": 1_000,
        "last_us": 11_000,
        "sensor": (128, 128),
        "duration_us": 10_000,
        "extent": [10, 8],
        "events_per_second": 400.0,
        "on_share": 0.75,
        "repairs": {"truncated last event dropped": 1},
    }


def test_a_recording_without_events_has_no_times_and_no_rates(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"")
    found = describe(tmp_path / "a.bin")
    assert found["events"] == 0
    for name in ("first_us", "last_us", "duration_us", "extent", "events_per_second", "on_share"):
        assert found[name] is None


def test_splits_and_classes_are_counted_from_the_members(tmp_path):
    set_of({"Train/10/1.bin": EVENTS, "Train/9/2.bin": EVENTS, "Train/9/3.bin": []}, tmp_path / "Train.zip")
    set_of({"9/4.bin": EVENTS[:1], "readme.txt": []}, tmp_path / "Test.zip")
    (tmp_path / "index.csv").touch()
    found = describe(tmp_path)
    assert found["splits"] == {
        "Test": {"recordings": 1, "classes": {"9": 1}},
        "Train": {"recordings": 3, "classes": {"9": 2, "10": 1}},
    }
    assert list(found["splits"]["Train"]["classes"]) == ["9", "10"]
    assert (found["other_files"], found["measured"], found["empty"], found["events"]) == (2, 4, 1, 9)
    assert found["events_per_recording"] == {"smallest": 0, "median": 2.5, "largest": 4}
    assert found["command"] == f"stbp train nmnist-mlp --data {tmp_path}"
    assert describe(tmp_path / "Test.zip")["splits"] == {"Test": {"recordings": 1, "classes": {"9": 1}}}


def test_an_unpacked_tree_counts_as_the_archive_does(tmp_path):
    names = {f"{split}/{label}/{i}.bin": EVENTS[: i + 2] for i, split in enumerate(("Train", "Test")) for label in "01"}
    packed = describe(set_of(names, tmp_path / "all.zip"))
    for name, events in names.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.nmnist(events))
    unpacked = describe(tmp_path / "tree")
    same = ("splits", "measured", "formats", "events", "events_per_recording", "extent", "duration_us", "damaged")
    assert {name: packed[name] for name in same} == {name: unpacked[name] for name in same}
    assert packed["not_trained_on"].startswith("an archive; unpack it into a folder of train/CLASS")
    assert unpacked["command"] == f"stbp train folder --data {tmp_path / 'tree'}"
    assert (unpacked["test_set"], unpacked["sensor"]) == ("as given", (10, 6))
    assert unpacked["sensor_known"].startswith("a guess: the largest coordinates")
    alone = describe(tmp_path / "tree" / "Train")
    assert alone["splits"] == {"Train": packed["splits"]["Train"]}
    assert alone["test_set"] == "20% of each class, drawn"


def test_a_large_set_is_counted_whole_and_measured_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr(info, "MEASURED", 3)
    found = describe(set_of({f"Train/{i % 2}/{i}.bin": EVENTS for i in range(20)}, tmp_path / "a.zip"))
    assert found["splits"] == {"Train": {"recordings": 20, "classes": {"0": 10, "1": 10}}}
    assert (found["measured"], found["events"]) == (3, 12)


def test_damaged_recordings_of_a_set_are_named_and_the_others_are_measured(tmp_path):
    (tmp_path / "a.bin").write_bytes(files.nmnist(EVENTS))
    (tmp_path / "b.bin").write_bytes(files.nmnist([(0, 0, 255, 0)]))
    found = describe(tmp_path)
    assert found["measured"] == 1
    assert len(found["damaged"]) == 1
    assert found["damaged"][0].startswith(f"{tmp_path / 'b.bin'}: byte 0: ")
    assert "nothing to train on in it" in found["not_trained_on"]


def test_hdf5_is_described_as_a_set(tmp_path):
    write_shd(tmp_path / "shd_train.h5", [([0.0, 0.5], [0, 5]), ([0.25], [7])], [19, 4])
    found = describe(tmp_path / "shd_train.h5")
    assert found["splits"] == {"shd_train": {"recordings": 2, "classes": {"4": 1, "19": 1}}}
    assert (found["events"], found["extent"], found["on_share"]) == (3, [8, 1], 1.0)
    assert (found["sensor"], found["test_set"]) == ((700, 1), "20% of each class, drawn")


def test_where_there_are_no_recordings_that_is_said(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match="nothing to train on in it; name a folder of"):
        describe(tmp_path)
    with pytest.raises(DataError, match="no recordings in it"):
        describe(set_of({"a.txt": []}, tmp_path / "a.zip"))


def test_recordings_of_two_sensors_need_to_be_told_which(tmp_path):
    for name, content in (("a/1.aedat", files.aedat2(EVENTS)), ("b/2.aedat", DAVIS + files.aedat3_packet(EVENTS))):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    found = describe(tmp_path)
    assert found["sensor"] is None
    assert "recordings of several sensors" in found["needs"]


DAVIS = files.AEDAT3_HEADER.replace(b"#Source 1: DVS128\r\n", b"#Source 1: DAVIS240C\r\n")


# --- images --------------------------------------------------------------------------------------------------------


def idx_set(folder: Path, train_labels: list[int], ending: str = ".gz") -> None:
    arrays = [np.zeros((3, 5, 4)), np.array(train_labels), np.zeros((2, 5, 4)), np.array([9, 9])]
    write_set(folder, {name: idx_bytes(a.astype(np.uint8)) for name, a in zip(PARTS, arrays, strict=True)}, ending)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_counted_by_class(tmp_path: Path, ending: str):
    idx_set(tmp_path, [9, 2, 9], ending)
    assert describe(tmp_path) == {
        "path": str(tmp_path),
        "kind": "images",
        "formats": {"idx": 5},
        "splits": {
            PARTS[0] + ending: {"images": 3, "classes": {"2": 1, "9": 2}},
            PARTS[2] + ending: {"images": 2, "classes": {"9": 2}},
        },
        "sizes": {"4 x 5": 5},
        "unused": [],
        "test_set": "as given",
        "command": f"stbp train folder --data {tmp_path}",
    }
    assert describe(tmp_path / (PARTS[0] + ending))["sizes"] == {"4 x 5": 3}
    labels = describe(tmp_path / (PARTS[1] + ending))
    assert next(iter(labels["splits"].values())) == {"labels": 3, "classes": {"2": 1, "9": 2}}


def test_images_and_labels_that_do_not_fit_are_named(tmp_path: Path):
    idx_set(tmp_path, [1, 2, 3, 4])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz holds 3 images, but .* holds 4 labels"):
        describe(tmp_path)


def test_a_folder_of_images_is_counted_and_the_command_prints_it(tmp_path: Path, monkeypatch, capsys):
    folder = tmp_path / "my images"
    sizes = {"train/cat/a.png": (6, 8), "train/dog/b.jpg": (6, 8), "test/cat/c.png": (9, 9), "test/dog/d.png": (6, 8)}
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(folder / name)
    (folder / "train/cat/broken.png").write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)
    Image.fromarray(noise).save(folder / "train/cat/cut.png")
    (folder / "train/cat/cut.png").write_bytes((folder / "train/cat/cut.png").read_bytes()[:1000])
    found = describe(folder)
    assert found["splits"]["train"] == {"images": 3, "classes": {"cat": 2, "dog": 1}}
    assert found["splits"]["test"] == {"images": 2, "classes": {"cat": 1, "dog": 1}}
    assert (found["sizes"], found["formats"]) == ({"6 x 8": 3, "60 x 60": 1, "9 x 9": 1}, {"PNG": 4, "JPEG": 1})
    assert found["skipped"] == {"neither image nor recording": ["train/cat/broken.png"]}
    assert [str(folder / "train/cat/cut.png") in message for message in found["damaged"]] == [True]
    assert run_stbp(monkeypatch, "data", "info", folder) == 0
    out = capsys.readouterr().out
    for part in (
        "train  3 images, 2 classes", "cat:2  dog:1", "6 x 8 pixels, 3 images", "several sizes: add --image-size",
        "1 neither image nor recording: train/cat/broken.png", f"stbp train folder --data '{folder}'",
    ):  # fmt: skip
        assert part in out


@pytest.mark.skipif(not REAL_DATA, reason="STBP_DATA does not name a folder of data sets")
def test_the_real_images_are_counted():
    found = describe(Path(REAL_DATA or "") / "mnist")
    assert [split["images"] for split in found["splits"].values()] == [60_000, 10_000]
    assert found["splits"]["t10k-images-idx3-ubyte.gz"]["classes"]["1"] == 1135
    assert found["sizes"] == {"28 x 28": 70_000}


@pytest.mark.skipif(not REAL_DATA, reason="STBP_DATA does not name a folder of data sets")
def test_the_real_set_is_counted():
    found = describe(Path(REAL_DATA or "") / "n-mnist-1100")
    assert {name: split["recordings"] for name, split in found["splits"].items()} == {"Train": 1000, "Test": 100}
    assert found["splits"]["Test"]["classes"]["8"] == 2
    assert (found["measured"], found["events"], found["extent"]) == (1100, 4_518_827, [34, 34])
    assert found["formats"] == {"N-MNIST": 1100}
    assert not found["repairs"]
    assert not found["damaged"]
    assert found["on_share"] == pytest.approx(0.4979, abs=5e-5)


def run_stbp(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["stbp", *map(str, args)])
    return main.main()


def test_the_command_prints_a_table_or_json(tmp_path, monkeypatch, capsys):
    path = set_of({"Train/0/1.bin": EVENTS, "Train/1/2.bin": [*EVENTS, (0, 0, 250, 0)]}, tmp_path / "a.zip")
    assert run_stbp(monkeypatch, "data", "info", path) == 0
    out = capsys.readouterr().out
    for part in (
        "Train  2 recordings, 2 classes",
        "0:1  1:1",
        "1 of 2 samples",
        "10 x 8 pixels",
        "75.00 %",
        "damaged",
    ):
        assert part in out
    assert run_stbp(monkeypatch, "data", "info", path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == describe(path)
    (tmp_path / "a.bin").write_bytes(files.nmnist(EVENTS))
    assert run_stbp(monkeypatch, "data", "info", tmp_path / "a.bin") == 0
    out = capsys.readouterr().out
    for part in ("N-MNIST", "10.00 ms, from 1,000 us", "400 events/s"):
        assert part in out


def test_the_command_reports_an_error_in_one_line(tmp_path, monkeypatch, capsys):
    assert run_stbp(monkeypatch, "data", "info", tmp_path / "absent") == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'absent'}: no such file; name a recording\n"


@pytest.mark.parametrize("args", [["data"], ["data", "--help"], ["data", "info", "--help"], ["data", "inof"]])
def test_help_and_mistakes_import_nothing_heavy(args):
    code = f"""
import sys
sys.argv = ["stbp", *{args!r}]
from stbp.cli.main import main
try:
    main()
except SystemExit:
    pass
sys.exit(any(name in sys.modules for name in ("torch", "numpy", "faery", "h5py")))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
