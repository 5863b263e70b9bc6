"""Images and labels in array files: pairs of idx files, `.npz` and `.npy`. What an array is, its name tells.

A name names inputs (`x`, `images`, `imgs`, `data`, ...) or labels (`y`, `labels`, `targets`, ...), and perhaps a split
(`train`, `test`, `t10k`, `val`, ...), in any order and with `_`, `-` or `.` between: `x_train`, `test_labels`, `emnist-
letters-train-images-idx3-ubyte.gz`. What else stands in it is the name of the set, and must be the same for all.
Without a split all samples are one set, which is divided later.

Images are uint8: `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]` with C 1 or 3; colours become grey. Labels are integers
or texts, `[N]` or `[N, 1]`; each different one is a class, so that they may begin at 1, as EMNIST's letters do. EMNIST
stores its images transposed: where the name of the set begins with `emnist` they are turned upright.
"""

import logging
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from stbp.data.error import DataError
from stbp.data.folder.tree import SPLITS
from stbp.data.idx import read_images, read_labels
from stbp.data.images import ImageSet

INPUTS = ("x", "images", "image", "imgs", "img", "inputs", "input", "data")
LABELS = ("y", "labels", "label", "targets", "target")
IDX = re.compile(r"(images)[-.]idx3[-.]ubyte(\.gz)?$|(labels)[-.]idx1[-.]ubyte(\.gz)?$")
ENDINGS = (".npy", ".npz")
_SPLIT_WORDS = {word: split for split, words in SPLITS.items() for word in words} | {"t10k": "test"}
_FORMAT_WORDS = frozenset(("idx3", "idx1", "ubyte", "gz", "npy", "npz"))
LABEL_VALUES = 256  # that a byte can tell apart
_BROKEN = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError)

_log = logging.getLogger(__name__)


class Item(NamedTuple):
    """An array: a file, and the key in it where the file is an `.npz`."""

    path: Path
    key: str | None = None

    @property
    def name(self) -> str:
        return self.path.name if self.key is None else f"{self.path.name}: {self.key}"


class Pair(NamedTuple):
    """The inputs and labels of a split."""

    inputs: Item
    labels: Item


@dataclass(frozen=True)
class Arrays:
    """Array files that belong together: training and test samples, or one pair that is yet to be divided."""

    path: Path
    # The format: idx, npz or npy.
    format: str
    # The name of the set, as the files' names have it.
    set: str
    pairs: tuple[Pair, ...]
    # Arrays that are not used, for others go before them.
    unused: tuple[str, ...]


class _Role(NamedTuple):
    part: str  # inputs or labels
    # "" where the name names no split; else the word for it.
    split: str
    set: str


def look(path: Path) -> Arrays | None:
    """The arrays in a folder or an `.npz` file; None where there are none.

    Raises:
        DataError: a file cannot be read, inputs or labels lack their partner, or several sets lie in one place.
    """
    items = list(_items(path))
    roles: dict[_Role, Item] = {}
    for item in items:
        role = _role(item.path.name if item.key in (None, "arr_0") else item.key or "")
        if role is not None and role in roles and not _twice(roles[role], item):
            raise DataError(f"{path}: {roles[role].name} and {item.name} are both {role.part}; take one of them away")
        if role is not None:
            roles.setdefault(role, item)
    if not items:
        return None
    if not roles:
        raise DataError(
            f"{path}: no name tells images or labels among {', '.join(item.name for item in items[:5])}; name them as"
            " x_train, y_train, x_test, y_test (or x, y, where a test set is drawn)"
        )
    names = sorted({role.set for role in roles})
    if len(names) > 1:
        raise DataError(
            f"{path}: holds several sets, {', '.join(name or 'one without a name' for name in names)}; keep each in a"
            " folder of its own"
        )
    pairs, unused = _pairs(path, roles)
    return Arrays(path, _format(items[0].path), names[0], pairs, unused)


def _items(path: Path) -> Iterable[Item]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.name.startswith(".") or not file.is_file():
            continue
        if file.suffix.lower() == ".npz":
            yield from (Item(file, key) for key in _opened(file))
        elif file.suffix.lower() == ".npy" or IDX.search(file.name):
            yield Item(file)


def _format(file: Path) -> str:
    return file.suffix[1:].lower() if file.suffix.lower() in ENDINGS else "idx"


def _role(name: str) -> _Role | None:
    """Role of an array as its name says it; None if the name says nothing."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word and word not in _FORMAT_WORDS]
    parts = {word: part for part, known in (("inputs", INPUTS), ("labels", LABELS)) for word in known}
    named = [word for word in words if word in parts]
    if len(named) > 1 and "data" in named:
        named.remove("data")
    splits = [word for word in words if word in _SPLIT_WORDS]
    if len(named) != 1 or len(splits) > 1:
        return None
    rest = [word for word in words if word not in (*named, *splits)]
    return _Role(parts[named[0]], "".join(splits), "-".join(rest))


def _twice(one: Item, other: Item) -> bool:
    """True for a file beside its packed copy."""
    return one.key is None and other.key is None and other.path.name == f"{one.path.name}.gz"


def _pairs(path: Path, roles: Mapping[_Role, Item]) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    for role, item in roles.items():
        partner = role._replace(part="labels" if role.part == "inputs" else "inputs")
        if partner not in roles:
            raise DataError(f"{path}: {item.name} has no {partner.part} beside it; put them there")
    found = {
        role.split: Pair(item, roles[role._replace(part="labels")])
        for role, item in roles.items()
        if role.part == "inputs"
    }
    words = {
        split: [w for w in (*SPLITS[split], "t10k") if _SPLIT_WORDS[w] == split and w in found] for split in SPLITS
    }
    if "" in found and len(found) > 1:
        raise DataError(
            f"{path}: {found[''].inputs.name} names no split, other arrays do; name all of them x_train, y_train, ..."
        )
    if "" not in found and not words["training"]:
        raise DataError(f"{path}: no training samples, only {', '.join(found)}; name an array x_train or images_train")
    chosen = [""] if "" in found else [words[split][0] for split in SPLITS if words[split]]
    return tuple(found[word] for word in chosen), tuple(word for word in found if word not in chosen)


def read(arrays: Arrays) -> tuple[ImageSet, ...]:
    """The images of every pair, grey, `[N, 1, H, W]`, in their order.

    Raises:
        DataError: an array is damaged, of another type or shape than this module says, or one does not fit another.
    """
    read = [(read_inputs(arrays, pair), _labels(pair.labels)) for pair in arrays.pairs]
    for pair, (images, labels) in zip(arrays.pairs, read, strict=True):
        if len(images) != len(labels):
            raise DataError(
                f"{pair.inputs.path}: {pair.inputs.name} holds {len(images):,} images, but {pair.labels.name} holds"
                f" {len(labels):,} labels"
            )
        if images.shape[1:] != read[0][0].shape[1:]:
            raise DataError(
                f"{arrays.path}: {pair.inputs.name} holds images of {images.shape[1:]}, {arrays.pairs[0].inputs.name}"
                f" of {read[0][0].shape[1:]}; all must have one size"
            )
    values = np.unique(read[0][1])
    for pair, (_, labels) in zip(arrays.pairs, read, strict=True):
        if labels.dtype.kind != values.dtype.kind:
            raise DataError(f"{arrays.path}: {pair.labels.name} is {labels.dtype}, others are {values.dtype}")
        unknown = np.setdiff1d(labels, values)
        if len(unknown):
            raise DataError(f"{arrays.path}: {pair.labels.name} has label {unknown[0]}, which no training sample has")
    classes = tuple(str(value) for value in values)
    return tuple(
        ImageSet(torch.from_numpy(images[:, None]), torch.from_numpy(np.searchsorted(values, labels)), classes)
        for images, labels in read
    )


def read_inputs(arrays: Arrays, pair: Pair) -> np.ndarray:
    """The images `[N, H, W]` of a pair, uint8, writable."""
    values = _read(pair.inputs)
    where = f"{pair.inputs.path.parent / pair.inputs.name}"
    if values.dtype != np.uint8:
        raise DataError(
            f"{where}: {values.dtype} {values.shape}; only uint8 images, 0 to 255, are read from files: scale and"
            " convert them; windows [N, T, ...] go to stbp.fit(net, (x, y), ...)"
        )
    if not len(values):
        raise DataError(f"{where}: holds no image")
    grey = _grey(values, where)
    if arrays.set.startswith("emnist"):
        _log.warning("%s: EMNIST stores its images transposed; they are turned upright", pair.inputs.name)
        grey = grey.transpose(0, 2, 1)
    return np.array(grey, order="C")


def _grey(values: np.ndarray, where: str) -> np.ndarray:
    """Images `[N, H, W]` from those with or without channels."""
    if values.ndim == 3:
        return values
    last, first = (values.ndim == 4 and values.shape[axis] in (1, 3) for axis in (3, 1))
    if last and first:
        raise DataError(
            f"{where}: {values.shape} can be [N, H, W, C] or [N, C, H, W]; save it as [N, H, W], without channels"
        )
    if not (last or first):
        raise DataError(f"{where}: {values.shape}; must be [N, H, W], [N, H, W, C] or [N, C, H, W], with C 1 or 3")
    channels = np.moveaxis(values, 3 if last else 1, 0)
    if len(channels) == 1:
        return channels[0]
    _log.warning("%s: colours become grey", where)
    red, green, blue = channels.astype(np.uint32)  # as Pillow weighs them
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def _labels(item: Item) -> np.ndarray:
    values, where = _read(item), item.path.parent / item.name
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iuU":
        raise DataError(
            f"{where}: {values.dtype} {values.shape}; labels must be integers or texts, [N] or [N, 1]; from one-hot"
            " vectors take y.argmax(1)"
        )
    return values


def _read(item: Item) -> np.ndarray:
    if item.key is not None:
        values = _opened(item.path, item.key)[item.key]
    elif item.path.suffix.lower() == ".npy":
        values = _opened(item.path)[""]
    else:
        match = IDX.search(item.path.name)
        assert match is not None  # `look` has seen to it
        values = read_images(item.path) if match[1] else read_labels(item.path, LABEL_VALUES)
    return values


def _opened(path: Path, key: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file by their keys, read where `key` names one, otherwise empty; an `.npy` has the key ""."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            return {name: loaded[name] if name == key else np.empty(0) for name in loaded.files}
    except _BROKEN as error:
        if "pickle" in str(error):
            raise DataError(
                f"{path}: no plain array, but perhaps Python objects (pickle), which can run any code and are never"
                " read (allow_pickle=False); save arrays of numbers or texts"
            ) from error
        raise DataError(f"{path}: cannot be read ({error}); use an undamaged copy") from error
