"""The store: a split of recordings as one file that is mapped into memory, not read.

The file is in the safetensors format, so other programs can read it. N recordings
of E events in all, one behind the other:

    offsets  int64 [N+1]     recording n is the events offsets[n] to offsets[n + 1] - 1
    labels   int64 [N]       index into the classes
    t        uint32 [E]      microseconds
    x, y     uint8 [E]       column, row; uint16 where the sensor may have more than 256 columns or rows
    p        uint8 [E/8]     polarity, bit e % 8 of byte e // 8
    names    uint8           the recordings' labels and file names, "5/00001.bin", with a zero byte between two

Its metadata hold the key (the source's files by name, size and modification time, the parameters, the version of this
format), the classes, what else is to be remembered, and a SHA-256 of every array. The key is also part of the file's
name: a store of other sources or another version is never found. The file is written under another name, flushed to
disk and renamed while a lock is held, so it is whole or not there, and of several processes that need it one builds it
and the others wait.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import filelock
import numpy as np

from stbp.data.error import DataError
from stbp.data.events import source
from stbp.data.events.formats import nmnist
from stbp.data.events.source import Recording, classes_of
from stbp.data.progress import bar
from stbp.files import written_atomically

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
PART = 64
"""Recordings decoded in one go; nothing in the file depends on it."""

_TYPES = {"offsets": "<i8", "labels": "<i8", "t": "<u4", "x": "u1", "y": "u1", "p": "u1", "names": "u1"}
_NAMES = {"<i8": "I64", "<u4": "U32", "<u2": "U16", "u1": "U8"}  # of the types in safetensors
Columns = dict[str, np.ndarray]
R = TypeVar("R")
_log = logging.getLogger(__name__)


class Stored(NamedTuple):
    """The arrays of a store, as tensors that share the file's pages, and its metadata."""

    arrays: dict[str, "Tensor"]
    classes: tuple[str, ...]
    # Height and width of the sensor, where they were known when the store was built.
    shape: tuple[int, int] | None
    # Summary that `Source.about` made of the facts.
    about: dict[str, Any]


class Origin(NamedTuple):
    """A split of recordings on disk, and how a store of it is made."""

    # The archive or folder: its name becomes part of the store's.
    path: Path
    # Values that decide the content of the store, beside the files.
    key: dict[str, Any]
    # Name, size and modification time of every file.
    stamp: Callable[[], list[tuple[str, int, int]]]
    # The recordings, open for reading.
    opened: Callable[[], AbstractContextManager["Source"]]
    # Type of x and y: "u1", or "<u2" where the sensor may have more than 256 columns or rows.
    place: str = "u1"


class Source(NamedTuple):
    """Recordings that are open for reading."""

    recordings: Sequence[Recording]
    # Files that are no recordings.
    left_out: Sequence[str]
    # The events of some of the recordings; several threads may call it.
    decode: Callable[[Sequence[Recording]], "Piece"]
    # Summary of all the facts, to be remembered; it may raise DataError, so that no store is made.
    about: Callable[[list[Any]], dict[str, Any]] = lambda facts: {}


class Piece(NamedTuple):
    """The events of some recordings."""

    # As `nmnist.decode_all` gives them: `t`, `x`, `y`, `p`, one recording behind the other, and `length` of each.
    columns: Columns
    # The recordings, less those that could not be read.
    recordings: Sequence[Recording]
    # Something about each recording that was asked for, if the source has anything to say.
    facts: Sequence[Any] = ()


def n_mnist(path: Path, shape: tuple[int, int]) -> Origin:
    """A split of N-MNIST, an archive or a folder as in `source.opened`; `shape` is height and width of the sensor."""

    def decode(recordings: Sequence[Recording], found: source.Source) -> Piece:
        where = [f"{path}: {recording.member}" for recording in recordings]
        part = nmnist.decode_all(map(found.read, recordings), list(map(found.size, recordings)), where)
        if part["x"].max(initial=0) >= shape[1] or part["y"].max(initial=0) >= shape[0]:
            raise _beyond(part, where, shape)
        return Piece(part, recordings)

    @contextmanager
    def opened() -> Iterator[Source]:
        with source.opened(path) as found:
            yield Source(found.recordings, found.left_out, partial(decode, found=found))

    return Origin(path, {"decoder": "n-mnist", "shape": shape}, lambda: source.stamp(path), opened)


def built(origin: Origin, folder: Path, workers: int) -> Path:
    """The store of a split, built if it is not there yet.

    Args:
        folder: where stores are kept; made if it does not exist.
        workers: threads that unpack and decode; the file is the same for any number.

    Raises:
        DataError: the split is damaged (archive, member and byte are named), or the store cannot be written.
    """
    key = json.dumps({"format": FORMAT, **origin.key, "files": origin.stamp()})
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    name = f"{origin.path.absolute().parent.name}-{origin.path.stem.lower()}-{digest}.safetensors"
    store = folder / name
    if store.exists():
        return store
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(store):
            if not store.exists():  # another process may have built it meanwhile
                with origin.opened() as found:
                    _build(origin, found, store, key, workers)
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
    shape = key["shape"]
    return Stored(arrays, classes, tuple(shape) if shape else None, json.loads(metadata.get("about", "{}")))


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


def _build(origin: Origin, source: Source, store: Path, key: str, workers: int) -> None:
    path, classes = origin.path, classes_of(recording.label for recording in source.recordings)
    place = {label: index for index, label in enumerate(classes)}
    if source.left_out:
        _log.warning("%s: %d files are no recordings, such as %s", path, len(source.left_out), source.left_out[0])
    types = _TYPES | {"x": origin.place, "y": origin.place}
    with ExitStack() as files, bar(f"storing {path.name}", len(source.recordings)) as advance:
        columns = {name: _Column(store.parent, dtype) for name, dtype in types.items()}
        for column in columns.values():
            files.callback(column.file.close)
        lengths, bits = [np.zeros(1, np.int64)], np.empty(0, np.uint8)
        kept, facts = list[Recording](), list[Any]()
        for part in decoded([source], workers, lambda part: part):
            for name in "txy":
                columns[name].append(part.columns[name])
            lengths.append(part.columns["length"])
            bits = np.concatenate([bits, part.columns["p"]])
            whole = len(bits) // 8 * 8
            columns["p"].append(np.packbits(bits[:whole], bitorder="little"))
            bits = bits[whole:]
            kept += part.recordings
            facts += part.facts
            advance(len(part.recordings))
        columns["p"].append(np.packbits(bits, bitorder="little"))
        columns["offsets"].append(np.cumsum(np.concatenate(lengths)))
        columns["labels"].append(np.array([place[recording.label] for recording in kept]))
        names = "\0".join(f"{recording.label}/{recording.name}" for recording in kept)
        columns["names"].append(np.frombuffer(os.fsencode(names), np.uint8))
        about = source.about(facts)
        if json.loads(key)["files"] != [list(file) for file in origin.stamp()]:
            raise DataError(f"{path}: changed while it was read; start again when it is complete")
        metadata = {"key": key, "classes": json.dumps(classes)}
        _write(store, columns, metadata | ({"about": json.dumps(about)} if about else {}))


def decoded(sources: Iterable[Source], workers: int, then: Callable[[Piece], R]) -> Iterator[R]:
    """All recordings of splits in order, some at a time, read and decoded side by side.

    Args:
        sources: the splits, open for reading.
        workers: threads.
        then: what each thread does with the events of some recordings; its results come back.

    Raises:
        DataError: as `Source.decode`.
    """
    with ThreadPoolExecutor(workers) as pool:
        pending = deque[Future[R]]()
        for source in sources:
            for i in range(0, len(source.recordings), PART):
                some = source.recordings[i : i + PART]
                pending.append(pool.submit(lambda source=source, some=some: then(source.decode(some))))
                if len(pending) > 2 * workers:  # ahead of who takes them, but not by all there is
                    yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


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
