"""Data of the user's own, without code: what a folder holds is told by its content, and read for training."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from stbp.data.error import DataError
from stbp.data.events.formats import shd
from stbp.data.events.sets import EventSet
from stbp.data.folder import arrays, images, recordings, tree
from stbp.data.images import ImageSet
from stbp.ops.philox import TEST, random_words

MOST_INPUTS = 1 << 19
"""Inputs per step: 200 neurons on more of them have over 400 MB of weights, Adam's moments and gradients three times
that."""
TEST_SHARE = 0.2
"""Share of every class that becomes test samples where no split is given."""
HOLDS = (
    f"a folder of {tree.SHAPE}; or of a pair of idx files, of arrays x_train, y_train, x_test, y_test (.npz, .npy), or"
    " of HDF5 files as Spiking Heidelberg Digits'"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hdf5:
    """HDF5 files as Spiking Heidelberg Digits', a file a split."""

    files: tuple[Path, ...]


Found = tree.Tree | arrays.Arrays | Hdf5


@dataclass(frozen=True, eq=False)
class Own:
    """Training and test set, or one set that is yet to be divided.

    Attributes:
        recorded: what the files of recordings told; None of images.
    """

    sets: Sequence[ImageSet] | Sequence[EventSet]
    recorded: recordings.Recorded | None = None


def look(path: Path) -> Found:
    """Data that a folder or a file of arrays holds: files are looked at, not read.

    Raises:
        DataError: nothing that can be trained on, or several such things; the message says what is looked for.
    """
    if not path.exists():
        raise DataError(f"{path}: no such folder; name {HOLDS}")
    if path.is_file() and path.suffix.lower() not in arrays.ENDINGS and not _is_hdf5(path):
        raise DataError(f"{path}: a file; name {HOLDS}")
    found = [one for one in (arrays.look(path), _look_hdf5(path)) if one is not None]
    splits = path.is_dir() and tree.is_tree(path)
    if len(found) + splits > 1:
        raise DataError(f"{path}: holds several kinds of data sets; keep each in a folder of its own")
    one = found[0] if found else tree.look(path)
    if one is None:
        zips = "; unpack the .zip files" if path.is_dir() and any(path.glob("*.zip")) else ""
        raise DataError(f"{path}: nothing to train on in it{zips}; name {HOLDS}")
    return one


def read(
    found: Found,
    *,
    image_size: int | None = None,
    sensor: recordings.Size | None = None,
    downscale: int | None = None,
    cache: Path | None = None,
) -> Own:
    """The samples of what `look` found.

    Args:
        image_size: height and width that image files are scaled to; None takes them as they are, all of one size.
        sensor, downscale, cache: of recordings, as for `recordings.read_tree`.

    Raises:
        DataError: a file that matters is damaged, an argument has no effect on such data, or a step would have more
            than `MOST_INPUTS` inputs.
    """
    files = isinstance(found, tree.Tree) and found.kind == "images"
    recorded = isinstance(found, Hdf5) or (isinstance(found, tree.Tree) and found.kind == "recordings")
    _refuse(found, {} if files else {"image_size": image_size})
    _refuse(found, {} if recorded else {"sensor": sensor, "downscale": downscale})
    for name in () if isinstance(found, Hdf5) else found.unused:
        _log.warning("%s is not used: another one is the test set", name)
    if isinstance(found, arrays.Arrays):
        own = Own(arrays.read(found))
    elif isinstance(found, Hdf5):
        told = recordings.read_hdf5(found.files, sensor, downscale or 1, cache)
        own = Own(told.sets, told)
    elif found.kind == "images":
        own = Own(images.read_tree(found, image_size))
    else:
        told = recordings.read_tree(found, sensor, downscale or 1, cache)
        own = Own(told.sets, told)
    _check(own, "image_size" if files else "downscale" if recorded else None)
    return own


def load_folder(
    path: str | Path, image_size: int | None = None, seed: int = 0
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images of the user's own, `(images, labels)` of the training and of the test set, as `stbp.fit` takes them.

    Images are uint8 `[N, C, H, W]`, labels int64 `[N]`, by the sorted names of the classes. Where there is no test set
    a fifth of every class is drawn by the seed.

    Args:
        path: a folder that `stbp data info` calls images, or a file of arrays.
        image_size: height and width that image files are scaled to; None takes them as they are, all of one size.

    Raises:
        DataError: the folder holds something else; as `look` and `read`.
    """
    found = look(Path(path).expanduser())
    if kind(found) != "images":
        raise DataError(f"{path}: holds {describe(found)}, no images; train on it by stbp train folder --data {path}")
    sets = [one for one in read(found, image_size=image_size).sets if isinstance(one, ImageSet)]
    if len(sets) == 2:
        return (sets[0].images, sets[0].labels), (sets[1].images, sets[1].labels)
    images, labels = sets[0].images, sets[0].labels
    train, test = draw(labels, TEST_SHARE, seed)
    return (images[train], labels[train]), (images[test], labels[test])


def kind(found: Found) -> str:
    """Kind of the data found, in a word or two."""
    if isinstance(found, Hdf5):
        return "recordings"
    return "images" if isinstance(found, arrays.Arrays) else found.kind


def has_test_set(found: Found) -> bool:
    """True where the test samples are given, so that none are to be drawn."""
    parts = (
        found.files if isinstance(found, Hdf5) else found.pairs if isinstance(found, arrays.Arrays) else found.splits
    )
    return len(parts) > 1


def draw(
    labels: Int64[Tensor, " N"], share: float = TEST_SHARE, seed: int = 0
) -> tuple[Int64[Tensor, " M"], Int64[Tensor, " V"]]:
    """Ids of the training and of the test samples, each ascending: of every class the share, drawn by the seed.

    Raises:
        DataError: a class has only one sample.
    """
    order = random_words(len(labels), seed, TEST)
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label, n in Counter(labels.tolist()).items():
        if n < 2:
            raise DataError("a class with one sample cannot be divided into training and test samples; give it more")
        ids = (labels == label).nonzero().flatten()
        tested = min(max(1, int(share * n + 0.5)), n - 1)
        is_test[ids[order[ids].argsort(stable=True)[:tested]]] = True
    return (~is_test).nonzero().flatten(), is_test.nonzero().flatten()


def _refuse(found: Found, values: dict[str, object]) -> None:
    for name, value in values.items():
        if value is not None:
            raise DataError(f"{name} has no effect on {describe(found)}; omit it; got {value}")


def describe(found: Found) -> str:
    """Kind and place of the data found, for messages."""
    if isinstance(found, Hdf5):
        return f"the HDF5 files in {found.files[0].parent}"
    if isinstance(found, arrays.Arrays):
        return f"the {found.format} arrays in {found.path}"
    return f"the {found.kind} in {found.splits[0].folder}"


def _check(own: Own, remedy: str | None) -> None:
    shape = own.sets[0].shape
    if shape[0] * shape[1] * shape[2] > MOST_INPUTS:
        smaller = f"; make it smaller with --{remedy.replace('_', '-')}" if remedy else ""
        inputs = " x ".join(map(str, shape))
        raise DataError(f"a sample has {inputs} (C x H x W) inputs, more than the {MOST_INPUTS:,} allowed{smaller}")
    classes = own.sets[0].classes
    if len(classes) < 2:
        raise DataError(f"there is one class, {', '.join(classes)!r}; a network needs two or more to tell apart")


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(shd.MAGIC)) == shd.MAGIC


def _look_hdf5(path: Path) -> Hdf5 | None:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in files if file.suffix.lower() in (".h5", ".hdf5") and file.is_file() and _is_hdf5(file)]
    if len(files) <= 1:
        return Hdf5(tuple(files)) if files else None
    named = {
        split: [f for f in files if any(word in words for word in f.stem.lower().replace("-", "_").split("_"))]
        for split, words in tree.SPLITS.items()
    }
    if [len(some) for some in named.values()] != [1, 1] or len(files) != 2:
        names = ", ".join(file.name for file in files[:4])
        raise DataError(f"{path}: {names}: must be one file, or two with train and test in their names")
    return Hdf5((named["training"][0], named["test"][0]))
