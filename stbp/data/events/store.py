"""The store: a split of recordings as one file that is mapped into memory, not read.

The file is in the safetensors format, so other programs can read it. N recordings
of E events in all, one behind the other:

    offsets  int64 [N+1]     recording n is the events offsets[n] to offsets[n + 1] - 1
    labels   int64 [N]       index into the classes
    t        uint32 [E]      microseconds
    x, y     uint8 [E]       column, row
    p        uint8 [E/8]     polarity, bit e % 8 of byte e // 8
    names    uint8           the recordings' labels and file names, "5/00001.bin", with a zero byte between two

Its metadata hold the key (the source's files by name, size and modification time, the parameters, the version of this
format), the classes, and a SHA-256 of every array. The key is also part of the file's name: a store of other sources or
another version is never found. The file is written under another name, flushed to disk and renamed while a lock is
held, so it is whole or not there, and of several processes that need it one builds it and the others wait.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import filelock
import numpy as np

from stbp.data.error import DataError
from stbp.data.events.formats import nmnist
from stbp.data.events.source import Recording, Source, classes_of, opened, stamp
from stbp.data.progress import bar
from stbp.files import written_atomically

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
PART = 64
"""Recordings decoded in one go; nothing in the file depends on it."""

_TYPES = {"offsets": "<i8", "labels": "<i8", "t": "<u4", "x": "u1", "y": "u1", "p": "u1", "names": "u1"}
_NAMES = {"<i8": "I64", "<u4": "U32", "u1": "U8"}  # of the types in safetensors
Columns = dict[str, np.ndarray]
R = TypeVar("R")
_log = logging.getLogger(__name__)


class Stored(NamedTuple):
    """The arrays of a store, as tensors that share the file's pages, and its metadata."""

    arrays: dict[str, "Tensor"]
    classes: tuple[str, ...]
    shape: tuple[int, int]


def built(path: Path, folder: Path, shape: tuple[int, int], workers: int) -> Path:
    """The store of a split, built if it is not there yet.

    Args:
        path: the split, an archive or a folder as in `source.opened`.
        folder: where stores are kept; made if it does not exist.
        shape: height and width of the sensor.
        workers: threads that unpack and decode; the file is the same for any number.

    Raises:
        DataError: the split is damaged (archive, member and byte are named), or the store cannot be written.
    """
    key = json.dumps({"format": FORMAT, "decoder": "n-mnist", "shape": shape, "files": stamp(path)})
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    store = folder / f"{path.absolute().parent.name}-{path.stem.lower()}-{digest}.safetensors"
    if store.exists():
        return store
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(store):
            if not store.exists():  # another process may have built it meanwhile
                with opened(path) as source:
                    _build(path, source, store, key, shape, workers)
    except OSError as error:
        raise DataError(
            f"{store}: cannot be written ({error.strerror or error}); make room or name another cache folder"
        ) from error
    return store


def load(store: Path) -> Stored:
    """Map a store into memory; nothing is read before it is used.

    Raises:
        DataError: the file is no store, or not whole.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(store, framework="pt") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in _TYPES}
        key, classes = json.loads(metadata["key"]), tuple(json.loads(metadata["classes"]))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(
            f"{store}: no store of events, or a damaged one ({error}); delete it to build it again"
        ) from error
    height, width = key["shape"]
    return Stored(arrays, classes, (height, width))


def verify(store: Path) -> None:
    """Read a store from beginning to end and compare it with the digests that it was built with.

    Raises:
        DataError: an array is not what was written.
    """
    arrays, written = load(store).arrays, digests(store)
    for name, array in arrays.items():
        if hashlib.sha256(array.numpy().data).hexdigest() != written.get(name):
            raise DataError(f"{store}: {name} is not what was written; delete the file to build it again")


def digests(store: Path) -> dict[str, str]:
    """The SHA-256 of every array of a store, as it was built."""
    from safetensors import safe_open

    with safe_open(store, framework="np") as file:
        return json.loads(file.metadata()["sha256"])


class _Column:
    """An array that grows on disk, in a file without a name."""

    def __init__(self, folder: Path, dtype: str):
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 closed by the caller's ExitStack
        self.sha256, self.dtype, self.count = hashlib.sha256(), dtype, 0

    def append(self, values: np.ndarray) -> None:
        array = np.ascontiguousarray(values, self.dtype)
        self.file.write(array.data)
        self.sha256.update(array.data)
        self.count += array.size


@contextmanager
def _locked(store: Path) -> Iterator[None]:
    """Alone with the store among the processes of this machine; a lock ends with its process, however that ends."""
    lock = filelock.FileLock(store.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _log.warning("waiting for another process that builds %s", store)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(path: Path, source: Source, store: Path, key: str, shape: tuple[int, int], workers: int) -> None:
    recordings = source.recordings
    classes = classes_of(recording.label for recording in recordings)
    place = {label: index for index, label in enumerate(classes)}
    if source.left_out:
        _log.warning("%s: %d files are no recordings, such as %s", path, len(source.left_out), source.left_out[0])
    with ExitStack() as files, bar(f"storing {path.name}", len(recordings)) as advance:
        columns = {name: _Column(store.parent, dtype) for name, dtype in _TYPES.items()}
        for column in columns.values():
            files.callback(column.file.close)
        columns["labels"].append(np.array([place[recording.label] for recording in recordings]))
        names = "\0".join(f"{recording.label}/{recording.name}" for recording in recordings)
        columns["names"].append(np.frombuffer(os.fsencode(names), np.uint8))
        lengths, bits = [np.zeros(1, np.int64)], np.empty(0, np.uint8)
        for part in decoded([(path, source)], shape, workers, lambda part: part):
            for name in "txy":
                columns[name].append(part[name])
            lengths.append(part["length"])
            bits = np.concatenate([bits, part["p"]])
            whole = len(bits) // 8 * 8
            columns["p"].append(np.packbits(bits[:whole], bitorder="little"))
            bits = bits[whole:]
            advance(len(part["length"]))
        columns["p"].append(np.packbits(bits, bitorder="little"))
        columns["offsets"].append(np.cumsum(np.concatenate(lengths)))
        if json.loads(key)["files"] != [list(file) for file in stamp(path)]:
            raise DataError(f"{path}: changed while it was read; start again when it is complete")
        _write(store, columns, {"key": key, "classes": json.dumps(classes)})


def decoded(
    splits: Iterable[tuple[Path, Source]], shape: tuple[int, int], workers: int, then: Callable[[Columns], R]
) -> Iterator[R]:
    """All recordings of splits in order, some at a time, read and decoded side by side.

    Args:
        splits: their paths, and what `source.opened` gives for them.
        shape: height and width of the sensor.
        workers: threads.
        then: what each thread does with the events of some recordings, as `nmnist.decode_all` gives them; its results
            come back.

    Raises:
        DataError: a recording is damaged, or has an event off the sensor or later than 2^32 us.
    """
    with ThreadPoolExecutor(workers) as pool:
        pending = deque[Future[R]]()
        for path, source in splits:
            for i in range(0, len(source.recordings), PART):
                about = source.recordings[i : i + PART], path, source, shape
                pending.append(pool.submit(lambda about=about: then(_decode(*about))))
                if len(pending) > 2 * workers:  # ahead of who takes them, but not by all there is
                    yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _decode(recordings: list[Recording], path: Path, source: Source, shape: tuple[int, int]) -> Columns:
    where = [f"{path}: {recording.member}" for recording in recordings]
    part = nmnist.decode_all(map(source.read, recordings), list(map(source.size, recordings)), where)
    if part["x"].max(initial=0) >= shape[1] or part["y"].max(initial=0) >= shape[0]:
        raise _beyond(part, where, shape)
    return part


def _beyond(part: Columns, where: list[str], shape: tuple[int, int]) -> DataError:
    """About the first event that is off the sensor."""
    e = int(np.argmax((part["x"] >= shape[1]) | (part["y"] >= shape[0])))
    n = int(np.searchsorted(np.cumsum(part["length"]), e, side="right"))
    t, x, y, p = (int(part[name][e]) for name in "txyp")
    e -= int(part["length"][:n].sum())
    return DataError(
        f"{where[n]}: event {e:,}, t = {t}, x = {x}, y = {y}, p = {p}, lies off the sensor of {shape[1]}x{shape[0]}"
    )


def _write(store: Path, columns: dict[str, _Column], metadata: dict[str, str]) -> None:
    """Put the columns into one file: https://huggingface.co/docs/safetensors, "Format"."""
    digests = {name: column.sha256.hexdigest() for name, column in columns.items()}
    header: dict[str, Any] = {"__metadata__": {**metadata, "sha256": json.dumps(digests)}}
    end = 0
    for name, column in columns.items():
        begin, end = end, end + column.file.tell()
        header[name] = {"dtype": _NAMES[column.dtype], "shape": [column.count], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with written_atomically(store) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for column in columns.values():
            column.file.seek(0)
            shutil.copyfileobj(column.file, file, 1 << 20)
