import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from stbp.data.error import DataError
from stbp.data.events import store
from tests.data.conftest import files_in
from tests.data.events.sets import Split, bin_bytes, write_set, write_tree, write_zip

SENSOR = (34, 34)


def build(path: Path, folder: Path, workers: int = 1) -> Path:
    return store.built(store.n_mnist(path, SENSOR), folder, workers)


def stores(folder: Path) -> list[str]:
    return [name for name in files_in(folder) if not name.endswith(".lock")]


def check(path: Path, split: Split) -> None:
    """What a store must hold, read with another library and checked recording by recording."""
    arrays = load_file(path)
    in_order = sorted(split.items(), key=lambda item: item[0].rsplit("/", 1)[1])
    assert arrays["offsets"].tolist() == [0, *np.cumsum([len(events) for _, events in in_order])]
    polarity = np.unpackbits(arrays["p"], bitorder="little")
    names = arrays["names"].tobytes().decode().split("\0")
    assert names == [member.split("/", 1)[1] for member, _ in in_order]
    assert [str(label) for label in arrays["labels"]] == [name[0] for name in names]
    for n, (_, events) in enumerate(in_order):
        begin, end = arrays["offsets"][n : n + 2]
        columns = (arrays["t"], arrays["x"], arrays["y"], polarity)
        for found, expected in zip(columns, events.T, strict=True):
            assert found[begin:end].tolist() == expected.tolist()
    assert len(polarity) - len(arrays["t"]) in range(8)


def test_a_store_holds_every_event_label_and_name(tmp_path: Path):
    train, test = write_set(tmp_path / "n-mnist")
    for name, split in (("Train", train), ("Test", test)):
        path = build(tmp_path / "n-mnist" / f"{name}.zip", tmp_path / "stores")
        check(path, split)
        store.verify(path)
        assert path.name.startswith(f"n-mnist-{name.lower()}-")


@pytest.mark.parametrize("workers", [2, 5])
def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path, workers: int):
    write_set(tmp_path, train=400)
    one, more = (build(tmp_path / "Train.zip", tmp_path / str(n), n) for n in (1, workers))
    assert one.name == more.name
    assert one.read_bytes() == more.read_bytes()


def test_an_unpacked_tree_gives_the_same_arrays(tmp_path: Path):
    train, _ = write_set(tmp_path)
    write_tree(tmp_path, {member: bin_bytes(events) for member, events in train.items()})
    check(build(tmp_path / "Train", tmp_path / "stores"), train)


def test_a_second_start_opens_the_store_and_not_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_set(tmp_path)
    first = build(tmp_path / "Train.zip", tmp_path / "stores")
    monkeypatch.setattr(store.source, "opened", None)
    assert build(tmp_path / "Train.zip", tmp_path / "stores") == first


@pytest.mark.parametrize("change", ["time", "content", "sensor", "format"])
def test_a_stale_store_is_not_used(tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch):
    write_set(tmp_path)
    path, folder = tmp_path / "Train.zip", tmp_path / "stores"
    first, sensor = build(path, folder), SENSOR
    if change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "content":
        status = path.stat()
        write_set(tmp_path, train=151)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "sensor":
        sensor = (40, 34)
    else:
        monkeypatch.setattr(store, "FORMAT", store.FORMAT + 1)
    second = store.built(store.n_mnist(path, sensor), folder, 1)
    assert second != first
    assert len(store.load(second).arrays["labels"]) == (151 if change == "content" else 150)
    assert store.load(second).shape == sensor


def test_a_source_that_changes_while_it_is_read_gives_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_set(tmp_path)
    real = store.nmnist.decode_all

    def decode_all(*arguments):
        os.utime(tmp_path / "Train.zip", ns=(1, 1))
        return real(*arguments)

    monkeypatch.setattr(store.nmnist, "decode_all", decode_all)
    with pytest.raises(DataError, match=r"Train.zip: changed while it was read"):
        build(tmp_path / "Train.zip", tmp_path / "stores")
    assert stores(tmp_path / "stores") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes([34, 0, 128, 0, 1]), r"event 0, t = 1, x = 34, y = 0, p = 1, lies off the sensor of 34x34"),
        (bytes([1, 1, 0, 0, 1, 0, 34, 0, 0, 1]), r"event 1, t = 1, x = 0, y = 34, p = 0, lies off the sensor of 34x34"),
        (bytes([0, 1, 5, 0, 0, 0, 1, 0, 0, 0]), r"byte 5: time runs backwards"),
        (bytes(7), r"byte 5: truncated"),
    ],
)
def test_a_damaged_recording_is_named_and_leaves_nothing(tmp_path: Path, content: bytes, message: str):
    members = {f"Train/5/{i}.bin": bytes([1, 1, 0, 0, 1]) * i for i in range(9)}
    write_zip(tmp_path / "Train.zip", members | {"Train/5/8.bin": content, "Train/6/9.bin": bytes(5)})
    with pytest.raises(DataError, match=f"Train.zip: Train/5/8.bin: {message}"):
        build(tmp_path / "Train.zip", tmp_path / "stores")
    assert stores(tmp_path / "stores") == []


def test_other_files_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_zip(tmp_path / "Train.zip", {"Train/5/00001.bin": bytes(5), "Train/a.txt": b"", "Train/b.txt": b""})
    with caplog.at_level(logging.WARNING):
        path = build(tmp_path / "Train.zip", tmp_path / "stores")
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"{tmp_path / 'Train.zip'}: 2 files are no recordings, such as Train/a.txt"]
    assert store.load(path).arrays["offsets"].tolist() == [0, 1]


def test_recordings_without_events_are_stored(tmp_path: Path):
    write_zip(tmp_path / "Train.zip", {"Train/5/00001.bin": b"", "Train/7/00002.bin": b""})
    stored = store.load(build(tmp_path / "Train.zip", tmp_path / "stores"))
    assert stored.classes == ("5", "7")
    assert stored.arrays["offsets"].tolist() == [0, 0, 0]


def test_verify_finds_every_changed_array(tmp_path: Path):
    write_set(tmp_path)
    path = build(tmp_path / "Train.zip", tmp_path / "stores")
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    digests = json.loads(header["__metadata__"]["sha256"])
    for name, digest in digests.items():
        begin, end = (8 + size + offset for offset in header[name]["data_offsets"])
        assert hashlib.sha256(whole[begin:end]).hexdigest() == digest
        damaged = bytearray(whole)
        damaged[(begin + end) // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f": {name} is not what was written"):
            store.verify(path)


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_store_says_what_to_do(tmp_path: Path, damage: str):
    write_set(tmp_path)
    path = build(tmp_path / "Train.zip", tmp_path / "stores")
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[:-1], "empty": b"", "other": (2).to_bytes(8, "little") + b"{}"}[damage])
    with pytest.raises(DataError, match=r"no store of events, or a damaged one \(.*delete it to build it again"):
        store.load(path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path):
    write_set(tmp_path)
    (tmp_path / "stores").write_text("a file")
    with pytest.raises(DataError, match=r"stores.*: cannot be written \(File exists\)"):
        build(tmp_path / "Train.zip", tmp_path / "stores")


# --- processes -----------------------------------------------------------------------------------------------------

SLOW = """
    import logging, sys, time
    from pathlib import Path
    from stbp.data.events import store

    logging.basicConfig(level=logging.WARNING)
    real = store.nmnist.decode_all

    def slowly(*arguments):
        with open(sys.argv[3], "a") as file:
            file.write("decoded\\n")
        time.sleep(float(sys.argv[4]))
        return real(*arguments)

    store.nmnist.decode_all = slowly
    path = store.built(store.n_mnist(Path(sys.argv[1]), (34, 34)), Path(sys.argv[2]), 1)
    store.verify(path)
    print(path)
"""


def start(tmp_path: Path, seconds: float) -> subprocess.Popen[str]:
    arguments = [str(tmp_path / name) for name in ("Train.zip", "stores", "log")]
    code = textwrap.dedent(SLOW)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path):
    train, _ = write_set(tmp_path, train=3 * store.PART)
    first = start(tmp_path, 0.5)
    wait_for(tmp_path / "log")
    second = start(tmp_path, 0.5)
    ends = [process.communicate(timeout=60) for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], ends
    assert ends[0][0] == ends[1][0]
    assert "waiting for another process" in ends[1][1]
    assert (tmp_path / "log").read_text().count("decoded") == 3
    check(Path(ends[0][0].strip()), train)


def test_after_a_kill_the_next_start_builds_a_whole_store(tmp_path: Path):
    train, _ = write_set(tmp_path, train=3 * store.PART)
    process = start(tmp_path, 60)
    wait_for(tmp_path / "log")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert stores(tmp_path / "stores") == []
    check(build(tmp_path / "Train.zip", tmp_path / "stores"), train)


def test_a_kill_while_the_file_is_written_leaves_nothing_that_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is written first goes by another name, and the next start writes it anew."""
    train, _ = write_set(tmp_path)
    code = """
        import os, signal, sys
        from pathlib import Path
        from stbp.data.events import store

        def killed(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        store.shutil.copyfileobj = killed
        store.built(store.n_mnist(Path(sys.argv[1]), (34, 34)), Path(sys.argv[2]), 1)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "Train.zip"), str(tmp_path / "stores")]
    ended = subprocess.run(arguments, cwd=Path(__file__).parents[3], timeout=60)
    assert ended.returncode == -signal.SIGKILL
    left = stores(tmp_path / "stores")
    assert left
    assert not [name for name in left if name.endswith(".safetensors")]
    check(build(tmp_path / "Train.zip", tmp_path / "stores"), train)
    assert [Path(name).suffix for name in stores(tmp_path / "stores")] == [".safetensors"]
