"""`stbp data verify`: stores against the files that they were built from."""

import os
import sys
from pathlib import Path

import pytest

from stbp.cli import main
from stbp.data import DataError
from stbp.data.events.sets import load_events, verify_events
from tests.data.conftest import files_in
from tests.data.events.sets import bin_bytes, write_set


def change_quietly(path: Path, at: int) -> None:
    """Change a byte of a file, but neither its size nor its time."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set unpacked, with a store of each split in the cache."""
    train, test = write_set(tmp_path / "set")
    for name, split in (("Train", train), ("Test", test)):
        (tmp_path / "set" / f"{name}.zip").unlink()
        for member, events in split.items():
            path = tmp_path / "set" / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bin_bytes(events))
    load_events(tmp_path / "set")
    return tmp_path / "set"


def test_whole_stores_are_named_and_nothing_is_left_behind(folder: Path, cache: Path, monkeypatch, capsys):
    before = files_in(cache)
    monkeypatch.setattr(sys, "argv", ["stbp", "data", "verify", str(folder)])
    assert main.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" is what is kept in ")[0] for line in lines] == [str(folder / "Train"), str(folder / "Test")]
    assert all(Path(line.split(" is what is kept in ")[1]).is_file() for line in lines)
    assert files_in(cache) == before


def test_a_damaged_store_is_found(folder: Path, cache: Path):
    store = next(cache.glob("events/set-test-*.safetensors"))
    change_quietly(store, store.stat().st_size - 1)
    with pytest.raises(DataError, match=rf"{store.name}: names is not what was written; delete the file"):
        verify_events(folder)


def test_a_source_that_changed_under_the_same_size_and_time_is_found(folder: Path, monkeypatch, capsys):
    file = max((folder / "Train").rglob("*.bin"), key=lambda path: path.stat().st_size)
    change_quietly(file, 0)
    load_events(folder)  # the store is found: names, sizes and times are the same
    monkeypatch.setattr(sys, "argv", ["stbp", "data", "verify", str(folder)])
    assert main.main() == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {folder / 'Train'}: not the content that ")
    assert err.count("\n") == 1
