"""Data sets of image files in folders, one folder a split, one folder in it a class: `train/cat/1.png`."""

import logging
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from stbp.data.error import DataError
from stbp.data.image_file import NoImageError, read_image
from stbp.data.images import ImageSet

# What the folders of the two splits may be called, in small or capital letters; of several, the first counts.
SPLITS = {
    "training": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
SHAPE = "train/CLASS/*.png and test/CLASS/*.png (any image format, any names of classes, the same in both)"

_log = logging.getLogger(__name__)


def is_tree(folder: Path) -> bool:
    """Whether the folder holds one of the splits, so that `read` can be expected to read it."""
    return any(split_folder(folder, split) for split in SPLITS)


def read(folder: Path, size: int) -> tuple[ImageSet, ImageSet]:
    """The training and test images of a tree `<split>/<class>/*`, grey, `[N, 1, size, size]`.

    Classes are sorted by name, and so are the files of each. Files that are no images, are empty or damaged, or lie
    elsewhere than in the folder of a class are skipped; a warning counts them and says why.

    Args:
        folder: holds `train/` (or `training/`) and `test/` (or `testing/`, `val/`, `valid/`, `validation/`).
        size: height and width that all images are scaled to, see `read_image`.

    Raises:
        DataError: a split is missing, a class is not in both, or a class has no image.
    """
    folders = {split: split_folder(folder, split) for split in SPLITS}
    train, test = folders["training"], folders["test"]
    if train is None or test is None:
        absent = next(split for split, found in folders.items() if found is None)
        names = ", ".join(f"{name}/" for name in SPLITS[absent])
        raise DataError(f"{folder}: no folder of {absent} images (looked for {names}); it must hold {SHAPE}")
    classes, others = _classes(train), _classes(test)
    if classes != others:
        odd = sorted(set(classes) ^ set(others))[0]
        here, there = (train, test) if odd in classes else (test, train)
        raise DataError(f"{there}: has no class {odd!r}, but {here} has; both must have the same folders of classes")
    if not classes:
        raise DataError(f"{train}: holds no folders of classes; {folder} must hold {SHAPE}")
    return _read_split(train, classes, size), _read_split(test, classes, size)


def split_folder(folder: Path, split: str) -> Path | None:
    """The folder of a split, under any of the names in `SPLITS`; None if there is none."""
    found = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()} if folder.is_dir() else {}
    return next((found[name] for name in SPLITS[split] if name in found), None)


def _classes(split: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in split.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _read_split(split: Path, classes: tuple[str, ...], size: int) -> ImageSet:
    images: list[Tensor] = []
    labels: list[int] = []
    skipped: dict[str, list[str]] = defaultdict(list)
    for path in sorted(split.iterdir()):
        if path.name not in classes:
            skipped["not in the folder of a class"].append(path.name)
    for label, name in enumerate(classes):
        before = len(images)
        for path in sorted((split / name).iterdir()):
            image = _read_or_reason(path, size)
            if isinstance(image, str):
                skipped[image].append(f"{name}/{path.name}")
            else:
                images.append(image)
                labels.append(label)
        if len(images) == before:
            raise DataError(f"{split / name}: holds no image that can be read; put some there or take the class away")
    if skipped:
        reasons = "; ".join(f"{len(names)} {why} ({_some(names)})" for why, names in skipped.items())
        count = sum(map(len, skipped.values()))
        _log.warning("%s: skipped %d of %d files: %s", split, count, count + len(images), reasons)
    return ImageSet(torch.stack(images), torch.tensor(labels), classes)


def _read_or_reason(path: Path, size: int) -> Tensor | str:
    """The image, or in a few words why there is none."""
    if not path.is_file():
        return "not a file"
    if path.stat().st_size == 0:
        return "empty"
    try:
        return read_image(path, (1, size, size))
    except NoImageError:
        return "not an image"
    except DataError:
        return "damaged or not readable"


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
