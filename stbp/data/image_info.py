"""What is in idx files as MNIST's, or in a folder of image files: everything is counted, nothing assumed."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from stbp.data.error import DataError
from stbp.data.folder import SPLITS, split_folder
from stbp.data.idx import KINDS, read_images, read_labels
from stbp.data.mnist import SOURCES, locate, missing
from stbp.data.published import BROKEN_GZIP, unpacked

LABELS = 256  # that a byte can tell apart


def describe(path: Path) -> dict[str, Any] | None:
    """Images by split and class, and by size (`columns x rows`); None where there are neither idx files nor images.

    Raises:
        DataError: an idx file is damaged.
    """
    if path.is_file():
        return _describe_file(path)
    if not path.is_dir():
        return None
    if not missing(path, SOURCES["mnist"]):
        return _describe_idx(path)
    return _describe_tree(path)


def _describe_file(path: Path) -> dict[str, Any] | None:
    try:
        with unpacked(path) as file:
            kind = KINDS.get(int.from_bytes(file.read(4), "big"))
    except (*BROKEN_GZIP, OSError):
        return None
    if kind is None:
        return None
    if kind == "labels":
        labels = read_labels(path, LABELS)
        return _found(path, "idx, labels", {path.stem: _counted(labels)}, Counter())
    images = read_images(path)
    return _found(path, "idx, images", {path.stem: {"images": len(images), "classes": {}}}, _sizes(images))


def _describe_idx(folder: Path) -> dict[str, Any]:
    splits, sizes = {}, Counter[str]()
    for split in ("train", "t10k"):
        images, labels = (locate(folder, f"{split}-{part}-ubyte") for part in ("images-idx3", "labels-idx1"))
        assert images is not None  # `missing` has looked
        assert labels is not None
        splits[split] = _counted(read_labels(labels, LABELS))
        pictures = read_images(images)
        if len(pictures) != splits[split]["images"]:
            raise DataError(
                f"{images}: {len(pictures):,} images, but {labels} holds {splits[split]['images']:,} labels"
            )
        sizes += _sizes(pictures)
    return _found(folder, "idx", splits, sizes)


def _describe_tree(folder: Path) -> dict[str, Any] | None:
    endings, others = Image.registered_extensions(), 0
    splits, sizes = {}, Counter[str]()
    for path in filter(None, (split_folder(folder, split) for split in SPLITS)):
        classes = Counter[str]()
        for file in sorted(path.glob("*/*")):
            size = _size(file) if file.suffix.lower() in endings else None
            if size is None:
                others += 1
            else:
                classes[file.parent.name] += 1
                sizes[size] += 1
        splits[path.name] = {"images": classes.total(), "classes": dict(classes)}
    return {**_found(folder, "image files", splits, sizes), "other_files": others} if sizes else None


def _size(file: Path) -> str | None:
    """Of an image file, from its header; None if it has none."""
    try:
        with Image.open(file) as image:
            return f"{image.width} x {image.height}"
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None


def _counted(labels: np.ndarray) -> dict[str, Any]:
    counts = np.bincount(labels)
    return {"images": len(labels), "classes": {str(label): int(counts[label]) for label in np.flatnonzero(counts)}}


def _sizes(images: np.ndarray) -> Counter[str]:
    return Counter({f"{images.shape[2]} x {images.shape[1]}": len(images)})


def _found(path: Path, form: str, splits: dict[str, Any], sizes: Counter[str]) -> dict[str, Any]:
    return {"path": str(path), "format": form, "splits": splits, "sizes": dict(sizes)}
