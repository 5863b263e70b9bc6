"""The data sets by name."""

import os
from contextlib import suppress
from pathlib import Path

from stbp.data.digits import read as read_digits
from stbp.data.error import DataError
from stbp.data.folder.images import read as read_folder
from stbp.data.folder.tree import is_tree
from stbp.data.images import ImageSet
from stbp.data.mnist import SOURCES, locate, missing
from stbp.data.mnist import read as read_mnist
from stbp.files import cache_folder
from stbp.names import hint

NAMES = ("digits", *SOURCES, "pedestrian")
_SHAPE = "train/CLASS/* and test/CLASS/*, image files in any format"


def load(name: str, data: str | Path | None = None, size: int | None = None) -> tuple[ImageSet, ImageSet]:
    """Loads a data set: training images, test images.

    Args:
        name: `digits` (8x8, comes with the package), `mnist` or `fashion-mnist` (28x28); `pedestrian`, a tree of image
            files `<split>/<class>/*`.
        data: the folder that holds the data sets (`mnist/`, `pedestrian/`, ...), or this one's files themselves.
            Without it the environment variable STBP_DATA names the folder; without that too, `mnist` and
            `fashion-mnist` are downloaded, once, into the user's cache folder.
        size: height and width that the images of `pedestrian` are scaled to; needed there, and only there.

    Returns:
        Two sets of images `[N, 1, H, W]`, uint8, in their original order, image files by class and name.

    Raises:
        DataError: the name is unknown, the set is not in the folder, a file is damaged, the download fails, or an
            argument has no effect on this set.
    """
    if name not in NAMES:
        raise DataError(f"data set must be one of {', '.join(NAMES)}, got {name!r}{hint(str(name).lower(), NAMES)}")
    if (size is not None) != (name == "pedestrian"):
        raise DataError(f"size is for pedestrian, which needs it, and for no other; got {size} for {name}")
    if name == "digits":
        if data is not None:
            raise DataError(f"digits comes with the package; omit --data, got {str(data)!r}")
        return read_digits()
    origin = "STBP_DATA" if data is None else "--data"
    given = os.environ.get("STBP_DATA") or None if data is None else data
    try:
        if size is not None:
            return read_folder(_find_tree(name, given, origin), size)
        return _load_cached(name) if given is None else read_mnist(name, _find(name, given, origin))
    except PermissionError as error:  # from looking for a file in a folder that may not be entered
        raise DataError(f"{error.filename}: {error.strerror}; make it readable or name another folder") from error


def _existing(data: str | Path, origin: str, remedy: str) -> Path:
    """The folder that the user named."""
    if not str(data):
        raise DataError(f"{origin} is empty; {remedy}")
    folder = Path(data)
    with suppress(RuntimeError):  # ~name where nobody has that name: there is no such folder
        folder = folder.expanduser()
    if not folder.is_dir():
        raise DataError(f"{origin} {folder}: no such folder; {remedy}")
    return folder


def _find(name: str, data: str | Path, origin: str) -> Path:
    """The folder that holds the files of a set, in or at the folder that the user named."""
    remedy = f"let {origin} name the folder that holds {name}/, or omit it to download"
    parent = _existing(data, origin, remedy)
    source = SOURCES[name]
    for folder in (parent / name, parent):
        absent = missing(folder, source)
        if not absent:
            return folder
        if len(absent) < len(source.files):
            raise DataError(f"{origin} {folder}: lacks {', '.join(absent)} (plain or .gz) of {name}; {remedy}")
    names = ", ".join(file.name for file in source.files)
    raise DataError(f"{origin} {parent}: no {name} in it nor in its {name}/, looked for {names} or .gz; {remedy}")


def _find_tree(name: str, data: str | Path | None, origin: str) -> Path:
    """The folder that holds the splits of a tree of image files, in or at the folder that the user named."""
    remedy = (
        f"pass --data DIR, where DIR/{name} or DIR itself holds {_SHAPE}; the set that our numbers were measured on may"
        " not be passed on, so take one of your own"
    )
    if data is None:
        raise DataError(f"{name} cannot be downloaded: {remedy}")
    parent = _existing(data, origin, remedy)
    for folder in (parent / name, parent):
        if is_tree(folder):
            return folder
    raise DataError(f"{origin} {parent}: no {name} in it; {remedy}")


def _load_cached(name: str) -> tuple[ImageSet, ImageSet]:
    source = SOURCES[name]
    folder = cache_folder() / name
    if missing(folder, source):
        from stbp.data.downloads import fetch_set  # what it imports is slow, and rarely needed

        fetch_set(name, folder.parent)
    try:
        return read_mnist(name, folder)
    except DataError as error:
        paths = [(file, locate(folder, file.name)) for file in source.files]
        damaged = [str(path) for file, path in paths if path is not None and file.fault(path)]
        if not damaged:
            raise
        raise DataError(f"{error}; delete {' and '.join(damaged)} to download again") from error
