"""MNIST and Fashion-MNIST: two sets, one format, the same file names."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stbp.data.error import DataError
from stbp.data.idx import read_images, read_labels
from stbp.data.images import ImageSet
from stbp.data.published import Original


@dataclass(frozen=True)
class Source:
    """A set and where to get it.

    Attributes:
        classes: the names of the classes, in the order of the labels.
        addresses: folders on the web, the first to try first.
        page: the web page that people get the set from.
        train_images, train_labels, test_images, test_labels: the four files.
    """

    classes: tuple[str, ...]
    addresses: tuple[str, ...]
    page: str
    train_images: Original
    train_labels: Original
    test_images: Original
    test_labels: Original

    @property
    def files(self) -> tuple[Original, Original, Original, Original]:
        return self.train_images, self.train_labels, self.test_images, self.test_labels


SOURCES = {
    # Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits, 1998
    "mnist": Source(
        classes=tuple("0123456789"),
        addresses=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        page="http://yann.lecun.com/exdb/mnist/",
        train_images=Original(
            "train-images-idx3-ubyte", 47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        train_labels=Original(
            "train-labels-idx1-ubyte", 60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        test_images=Original(
            "t10k-images-idx3-ubyte", 7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        test_labels=Original(
            "t10k-labels-idx1-ubyte", 10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    ),
    # H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, arXiv:1708.07747, 2017 (MIT licence)
    "fashion-mnist": Source(
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        addresses=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        page="https://github.com/zalandoresearch/fashion-mnist",
        train_images=Original(
            "train-images-idx3-ubyte", 47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        train_labels=Original(
            "train-labels-idx1-ubyte", 60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        test_images=Original(
            "t10k-images-idx3-ubyte", 7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        test_labels=Original(
            "t10k-labels-idx1-ubyte", 10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    ),
}


def locate(folder: Path, name: str) -> Path | None:
    """The file `name` (`train-images-idx3-ubyte`), plain or `.gz`, or with a dot before `idx`; None if absent."""
    spellings = (name, name.replace("-idx", ".idx"))
    candidates = (folder / (spelling + ending) for spelling in spellings for ending in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def missing(folder: Path, source: Source) -> list[str]:
    """The names of those of the four files that are not in `folder`."""
    return [file.name for file in source.files if locate(folder, file.name) is None]


def read(name: str, folder: Path) -> tuple[ImageSet, ImageSet]:
    """Reads the training and test set `name` from the four files in `folder`, images `[N, 1, H, W]`.

    Raises:
        DataError: a file is missing or damaged, two do not fit together, or they are those of another set.
    """
    source = SOURCES[name]
    paths = [locate(folder, file.name) or folder / file.name for file in source.files]
    for other in SOURCES.keys() - {name}:
        original = SOURCES[other].test_labels
        if paths[3].is_file() and original.fault(paths[3]) is None:
            raise DataError(f"{paths[3]}: a file of {other}, not of {name}; name the folder that holds {name}")
    train, test = _read_pair(paths[0], paths[1], source), _read_pair(paths[2], paths[3], source)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{paths[0]} holds images of {_size(train)} and {paths[2]} of {_size(test)}, expected one size;"
            " use undamaged copies"
        )
    return train, test


def _read_pair(images_path: Path, labels_path: Path, source: Source) -> ImageSet:
    images = read_images(images_path)
    labels = read_labels(labels_path, len(source.classes))
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} holds {len(images):,} images and {labels_path} holds {len(labels):,} labels,"
            " expected as many; use undamaged copies"
        )
    return ImageSet(torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64)), source.classes)


def _size(images: ImageSet) -> str:
    return "x".join(str(n) for n in images.images.shape[2:])
