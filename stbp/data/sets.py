"""The data sets by name."""

import difflib
import os
from contextlib import suppress
from pathlib import Path

import pooch

from stbp.data.digits import read as read_digits
from stbp.data.error import DataError
from stbp.data.images import ImageSet
from stbp.data.mnist import SOURCES, locate, missing
from stbp.data.mnist import read as read_mnist

NAMES = ("digits", *SOURCES)


def load(name: str, data: str | Path | None = None) -> tuple[ImageSet, ImageSet]:
    """Loads a data set: training images, test images.

    Args:
        name: `digits` (8x8, comes with the package), `mnist` or `fashion-mnist` (28x28).
        data: the folder that holds the data sets (`mnist/`, `fashion-mnist/`), or this one's files themselves.
            Without it the environment variable STBP_DATA names the folder; without that too, the set is downloaded,
            once, into the user's cache folder.

    Returns:
        Two sets of images `[N, 1, H, W]`, uint8, in their original order.

    Raises:
        DataError: the name is unknown, the set is not in the folder, a file is damaged, the download fails, or `data`
            is given for `digits`, where it has no effect.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(str(name).lower(), NAMES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DataError(f"data set must be one of {', '.join(NAMES)}, got {name!r}{hint}")
    if name == "digits":
        if data is not None:
            raise DataError(f"digits comes with the package; leave --data away, got {str(data)!r}")
        return read_digits()
    try:
        if data is not None:
            return read_mnist(name, _find(name, data, "--data"))
        if os.environ.get("STBP_DATA"):
            return read_mnist(name, _find(name, os.environ["STBP_DATA"], "STBP_DATA"))
        return _load_cached(name)
    except PermissionError as error:  # from looking for a file in a folder that may not be entered
        raise DataError(f"{error.filename}: {error.strerror}; make it readable or name another folder") from error


def _find(name: str, data: str | Path, origin: str) -> Path:
    """The folder that holds the files of a set, in or at the folder that the user named."""
    remedy = f"let {origin} name the folder that holds {name}/, or leave it away to download"
    if not str(data):
        raise DataError(f"{origin} is empty; {remedy}")
    parent = Path(data)
    with suppress(RuntimeError):  # ~name where nobody has that name: there is no such folder
        parent = parent.expanduser()
    if not parent.is_dir():
        raise DataError(f"{origin} {parent}: no such folder; {remedy}")
    source = SOURCES[name]
    for folder in (parent / name, parent):
        absent = missing(folder, source)
        if not absent:
            return folder
        if len(absent) < len(source.files):
            raise DataError(f"{origin} {folder}: lacks {', '.join(absent)} (plain or .gz) of {name}; {remedy}")
    names = ", ".join(file.name for file in source.files)
    raise DataError(f"{origin} {parent}: no {name} in it nor in its {name}/, looked for {names} or .gz; {remedy}")


def _load_cached(name: str) -> tuple[ImageSet, ImageSet]:
    source = SOURCES[name]
    folder = Path(pooch.os_cache("stbp")) / name
    if absent := missing(folder, source):
        _fill(name, folder, absent)
    try:
        return read_mnist(name, folder)
    except DataError as error:
        paths = [(file, locate(folder, file.name)) for file in source.files]
        damaged = [str(path) for file, path in paths if path is not None and file.fault(path)]
        if not damaged:
            raise
        raise DataError(f"{error}; delete {' and '.join(damaged)} to download again") from error


def _fill(name: str, folder: Path, absent: list[str]) -> None:
    from stbp.data.fetch import fetch  # what it imports is slow, and rarely needed

    source = SOURCES[name]
    try:
        for file in source.files:
            if file.name in absent:
                fetch(file, source.addresses, folder)
    except DataError as error:
        names = ", ".join(f"{file.name}.gz" for file in source.files)
        raise DataError(f"{error}; or put {names} into DIR/{name} and pass --data DIR") from error
