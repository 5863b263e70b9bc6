import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stbp.cli import main
from stbp.data import DataError
from stbp.data.events import info
from stbp.data.events.info import describe

from . import files
from .test_formats import write_shd

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
    assert describe(tmp_path / "Test.zip")["splits"] == {"Test": {"recordings": 1, "classes": {"9": 1}}}


def test_an_unpacked_tree_counts_as_the_archive_does(tmp_path):
    names = {"Train/0/1.bin": EVENTS, "Train/1/2.bin": EVENTS[:2], "Test/1/3.bin": EVENTS}
    packed = describe(set_of(names, tmp_path / "all.zip"))
    for name, events in names.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.nmnist(events))
    unpacked = describe(tmp_path / "tree")
    assert {**packed, "path": ""} == {**unpacked, "path": ""}
    assert describe(tmp_path / "tree" / "Train")["splits"] == {"Train": packed["splits"]["Train"]}


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


def test_hdf5_is_described_as_a_set(tmp_path):
    write_shd(tmp_path / "shd_train.h5", [([0.0, 0.5], [0, 5]), ([0.25], [7])], [19, 4])
    found = describe(tmp_path / "shd_train.h5")
    assert found["splits"] == {"shd_train": {"recordings": 2, "classes": {"4": 1, "19": 1}}}
    assert (found["events"], found["extent"], found["on_share"]) == (3, [8, 1], 1.0)


def test_where_there_are_no_recordings_that_is_said(tmp_path):
    (tmp_path / "a.txt").touch()
    for path in (tmp_path, set_of({"a.txt": []}, tmp_path / "a.zip")):
        with pytest.raises(DataError, match="no recordings in it"):
            describe(path)


def test_the_real_set_is_counted(real):
    found = describe(real)
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
        "1 of 2 recordings",
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
