"""Whole sets of simulated recordings, in N-MNIST's own layout: `Train.zip` and `Test.zip`, `Train/<label>/<name>.bin`.

Recording n, counted from 1, shows image n - 1 of its split, as in N-MNIST. Parts of a set are kept in a folder of their
own until all are there, so that a simulation that was stopped goes on where it was, and several processes that are
given the same work share it.
"""

import dataclasses
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import torch

from stbp import __version__
from stbp.camera.camera import Camera
from stbp.camera.model import simulate
from stbp.data.error import DataError
from stbp.data.events.formats import nmnist
from stbp.data.folder.images import read as read_folder
from stbp.data.folder.tree import is_tree
from stbp.data.images import ImageSet
from stbp.data.mnist import SOURCES, locate, missing
from stbp.data.mnist import read as read_idx
from stbp.data.progress import bar
from stbp.files import write_json, written_atomically

FILE = "simulation.json"
PART = 500
"""Recordings that are simulated in one go; nothing in the set depends on it."""
TEST_SAMPLES = 1 << 31
"""What is added to the number of a test image to make its sample, so that it shares no random number."""
_FORMAT = 1


class Split(NamedTuple):
    """Some images of a split: those from `begin` up to `end`, which is left out."""

    name: str
    # uint8 [N, h, w], of the whole split.
    images: np.ndarray
    # The folder of each image's recording.
    labels: list[str]
    begin: int
    end: int

    def sample(self, number: int) -> int:
        """The id that the random numbers of a recording are drawn by."""
        return number + (TEST_SAMPLES if self.name == "Test" else 0)

    def member(self, number: int) -> str:
        """The name of a recording."""
        return f"{self.name}/{self.labels[number]}/{number + 1:05d}.bin"


class _Part(NamedTuple):
    split: Split
    begin: int
    end: int
    path: Path


def read_source(source: Path, size: int | None = None) -> tuple[ImageSet, ImageSet]:
    """Training and test images: idx files as MNIST's, or a tree of image files that are scaled to `size`.

    Raises:
        DataError: neither is there, a file is damaged, or the size is missing or has no effect.
    """
    if is_tree(source):
        if size is None:
            raise DataError(f"{source}: image files come in any size; say with --size what to scale them to")
        return read_folder(source, size)
    if size is not None:
        raise DataError(f"{source}: size is for trees of image files and has no effect here; omit it")
    for name in SOURCES:
        folder = next((folder for folder in (source, source / name) if not missing(folder, SOURCES[name])), None)
        if folder is not None:
            labels = locate(folder, SOURCES[name].test_labels.name)
            known = [n for n, other in SOURCES.items() if labels and other.test_labels.fault(labels) is None]
            return read_idx(known[0] if known else name, folder)
    raise DataError(
        f"{source}: no images in it; name a folder of MNIST's four files, or of train/CLASS/*.png and test/"
    )


def splits_of(
    sets: tuple[ImageSet, ImageSet], train: tuple[int, int] | None = None, test: tuple[int, int] | None = None
) -> list[Split]:
    """The splits to simulate; `train` and `test` choose images (first, end), all of them by default.

    A class is called by its number, as N-MNIST's are, unless its name can be that of a folder in every class.

    Raises:
        DataError: a range that is empty or goes beyond the images.
    """
    found = []
    for name, images, chosen in zip(("Train", "Test"), sets, (train, test), strict=True):
        begin, end = chosen or (0, len(images))
        if not 0 <= begin < end <= len(images):
            raise DataError(f"--{name.lower()} must be a range within 0 {len(images)}; got {begin} {end}")
        names = images.classes if all(set(c) <= _PLAIN for c in images.classes) else range(len(images.classes))
        labels = [str(names[label]) for label in images.labels.tolist()]
        found.append(Split(name, images.images[:, 0].numpy(), labels, begin, end))
    return found


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def simulate_set(splits: list[Split], out: Path, model: Camera, seed: int = 0) -> dict[str, Any]:
    """Simulate recordings of images into `out`: `Train.zip`, `Test.zip` and `simulation.json`.

    Returns:
        What the JSON holds.

    Raises:
        DataError: the folder holds another set, or cannot be written to.
    """
    key = {
        "format": _FORMAT,
        "camera": dataclasses.asdict(model),
        "seed": seed,
        "images": {split.name: {"begin": split.begin, "end": split.end, "sha256": _digest(split)} for split in splits},
    }
    key = json.loads(json.dumps(key))
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    try:
        done = _known(out, key)
        if done is not None:
            return done
        folder = out / f"parts-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        parts = [
            _Part(split, begin, min(begin + PART, split.end), folder / f"{split.name}-{begin:07d}.npz")
            for split in splits
            for begin in range(split.begin, split.end, PART)
        ]
        try:
            done = _made(out, folder, splits, parts, model, seed, key)
        except FileNotFoundError:  # another process is done, and took the parts and their locks away
            done = _known(out, key)
            if done is None:
                raise
        shutil.rmtree(folder, ignore_errors=True)
        return done
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error}); make room or name another") from error


def _made(
    out: Path, folder: Path, splits: list[Split], parts: list[_Part], model: Camera, seed: int, key: dict[str, Any]
) -> dict[str, Any]:
    with bar(f"simulating into {out}", sum(part.end - part.begin for part in parts)) as advance:
        _simulate_parts(parts, model, seed, advance)
    with filelock.FileLock(folder / "assembly.lock"):
        done = _known(out, key)  # another process may have been faster
        return _assemble(out, splits, parts, key) if done is None else done


def _digest(split: Split) -> str:
    content = hashlib.sha256(split.images[split.begin : split.end].tobytes())
    content.update("\0".join(split.labels[split.begin : split.end]).encode())
    return content.hexdigest()


def _known(out: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """Content of the folder's JSON if the set is complete, else None."""
    path = out / FILE
    if not path.exists():
        found = next((name for name in ("Train.zip", "Test.zip") if (out / name).exists()), None)
        if found is not None and not any(out.glob("parts-*")):
            raise DataError(f"{out}: holds a {found} that no simulation made; name another folder")
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if any(found.get(name) != value for name, value in key.items()):
        raise DataError(f"{out}: holds a simulation with other parameters or images; name another folder")
    return found


def _simulate_parts(parts: list[_Part], model: Camera, seed: int, advance: Callable[[int], None]) -> None:
    """All parts that are not there yet; what another process works on is left to it, and looked at in the end."""
    busy = []
    for part in parts:
        if not _simulate_part(part, model, seed, wait=False):
            busy.append(part)
            continue
        advance(part.end - part.begin)
    for part in busy:
        _simulate_part(part, model, seed, wait=True)
        advance(part.end - part.begin)


def _simulate_part(part: _Part, model: Camera, seed: int, wait: bool) -> bool:
    """Simulate the part if it is missing; True if it is there now."""
    if part.path.exists():
        return True
    lock = filelock.FileLock(part.path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        return False
    try:
        if not part.path.exists():
            numbers = np.arange(part.begin, part.end)
            samples = np.array([part.split.sample(number) for number in numbers.tolist()])
            columns = simulate(part.split.images[part.begin : part.end], model, seed, samples)
            contents = nmnist.encode_all(columns)
            with written_atomically(part.path) as file:
                np.savez(file, length=columns["length"], content=np.frombuffer(b"".join(contents), np.uint8))
    finally:
        lock.release()
    return True


def _assemble(out: Path, splits: list[Split], parts: list[_Part], key: dict[str, Any]) -> dict[str, Any]:
    counts = {}
    with bar(f"packing {out}", sum(part.end - part.begin for part in parts)) as advance:
        for split in splits:
            events = 0
            with (
                written_atomically(out / f"{split.name}.zip") as file,
                zipfile.ZipFile(file, "w") as archive,
            ):
                for part in (part for part in parts if part.split is split):
                    with np.load(part.path, allow_pickle=False) as kept:
                        length, content = kept["length"] * nmnist.SIZE, kept["content"].tobytes()
                    ends = np.cumsum(length)
                    for number, size, end in zip(range(part.begin, part.end), length, ends, strict=True):
                        info = zipfile.ZipInfo(split.member(number))  # of 1980: equal sets are equal files
                        archive.writestr(info, content[end - size : end], zipfile.ZIP_DEFLATED, 1)
                    events += int(ends[-1]) // nmnist.SIZE
                    advance(part.end - part.begin)
            counts[split.name] = {"recordings": split.end - split.begin, "events": events}
    done = {
        **key,
        "counts": counts,
        "versions": {"stbp": __version__, "numpy": np.__version__, "torch": torch.__version__},
    }
    write_json(out / FILE, done)
    return done
