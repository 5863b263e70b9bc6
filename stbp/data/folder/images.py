"""Image files of a tree as data sets: grey, in one size, whole in memory."""

import logging
from collections import Counter, defaultdict
from pathlib import Path

import torch
from torch import Tensor

from stbp.data.error import DataError
from stbp.data.folder.tree import Sample, Split, Tree, check_kept, look, told
from stbp.data.image_file import read_image
from stbp.data.images import ImageSet

_log = logging.getLogger(__name__)


def read(folder: Path, size: int) -> tuple[ImageSet, ImageSet]:
    """The training and test images of a tree `<split>/<class>/*`, as `read_tree`.

    Raises:
        DataError: as `look` and `read_tree`; the folder holds no images, or only one split.
    """
    tree = look(folder)
    if tree is None or tree.kind != "images" or len(tree.splits) != 2:
        raise DataError(f"{folder}: no images in it in two splits; it must hold train/CLASS/* and test/CLASS/*")
    train, test = read_tree(tree, size)
    return train, test


def read_tree(tree: Tree, size: int | None) -> tuple[ImageSet, ...]:
    """The images of every split, grey, `[N, 1, H, W]`, by class and file name.

    Files that are no images, are empty or damaged, or lie elsewhere than in the folder of a class are skipped; a
    warning counts them and says why.

    Args:
        size: height and width that all images are scaled to, see `read_image`; None where all have one size already.

    Raises:
        DataError: the images have several sizes and `size` is None, or a class loses its last image.
    """
    height, width = (size, size) if size is not None else one_size(tree)
    return tuple(_read_split(split, tree.classes, (1, height, width)) for split in tree.splits)


def sizes(tree: Tree) -> Counter[tuple[int, int]]:
    """Number of images of each size, columns and rows, by their headers."""
    return Counter(sample.size for split in tree.splits for sample in split.samples if sample.size is not None)


def one_size(tree: Tree) -> tuple[int, int]:
    """Height and width of all images.

    Raises:
        DataError: they have several sizes.
    """
    found = sizes(tree)
    if len(found) > 1:
        (one, n), (other, m) = found.most_common(2)
        raise DataError(
            f"{tree.splits[0].folder}: images of {len(found)} sizes, such as {one[0]}x{one[1]} ({n}) and"
            f" {other[0]}x{other[1]} ({m}); say with --image-size (image_size) what to scale them to"
        )
    ((width, height),) = found
    return height, width


def _read_split(split: Split, classes: tuple[str, ...], shape: tuple[int, int, int]) -> ImageSet:
    images: list[Tensor] = []
    kept: list[Sample] = []
    skipped = defaultdict(list, {why: list(names) for why, names in split.skipped.items()})
    for sample in split.samples:
        try:
            images.append(read_image(sample.path, shape))
            kept.append(sample)
        except (DataError, FileNotFoundError):
            skipped["damaged or not readable"].append(sample.name)
    check_kept(split, (sample.label for sample in kept), classes, skipped)
    if skipped:
        count = sum(map(len, skipped.values()))
        _log.warning("%s: skipped %d of %d files: %s", split.folder, count, count + len(images), told(skipped))
    return ImageSet(torch.stack(images), torch.tensor([classes.index(sample.label) for sample in kept]), classes)
