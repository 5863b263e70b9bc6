"""Data sets that can be downloaded, their addresses, and what they are known by."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stbp.data.error import DataError
from stbp.data.fetch import fetch
from stbp.data.mnist import SOURCES, locate
from stbp.data.published import Archive, Published
from stbp.files import cache_folder


@dataclass(frozen=True)
class Download:
    """A data set to download.

    Attributes:
        files: each file with its addresses, the first to try first.
        page: the web page that people get the set from.
        find: where a file of the set is in a folder, under whichever of its names; None if it is not.
    """

    files: tuple[tuple[Published, tuple[str, ...]], ...]
    page: str
    find: Callable[[Path, Published], Path | None]


# G. Orchard, A. Jayawant, G. Cohen, N. Thakor: Converting Static Image Datasets to Spiking Neuromorphic Datasets Using
# Saccades, Frontiers in Neuroscience 9:437, 2015 (CC BY-SA 4.0). Both mirrors are the authors' own.
_MENDELEY = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files/"
_DROPBOX = "https://www.dropbox.com/sh/tg2ljlbmtzygrag/"
_N_MNIST = (
    (
        Archive("Train.zip", "20959b8e626244a1b502305a9e6e2031", 4 << 30),
        (
            f"{_MENDELEY}39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
            f"{_DROPBOX}AABlMOuR15ugeOxMCX0Pvoxga/Train.zip?dl=1",
        ),
    ),
    (
        Archive("Test.zip", "69ca8762b2fe404d9b9bad1103e97832", 1 << 30),
        (
            f"{_MENDELEY}05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
            f"{_DROPBOX}AADSKgJ2CjaBWh75HnTNZyhca/Test.zip?dl=1",
        ),
    ),
)
NAMES = (*SOURCES, "n-mnist")


def download_called(name: str) -> Download:
    """Files, addresses and page of a data set that can be downloaded.

    Raises:
        DataError: there is none of that name.
    """
    if name in SOURCES:
        source = SOURCES[name]
        files = [(file, tuple(f"{a}{file.file_name}" for a in source.addresses)) for file in source.files]
        return Download(tuple(files), source.page, lambda folder, file: locate(folder, Path(file.file_name).stem))
    if name == "n-mnist":
        return Download(_N_MNIST, "https://www.garrickorchard.com/datasets/n-mnist", _as_it_is_called)
    raise DataError(f"what can be downloaded is {', '.join(NAMES)}; got {name!r}")


def _as_it_is_called(folder: Path, file: Published) -> Path | None:
    path = folder / file.file_name
    return path if path.is_file() else None


def default_folder() -> Path:
    """Where data sets are looked for if no folder is named: STBP_DATA, or the cache folder."""
    return Path(os.environ.get("STBP_DATA") or cache_folder()).expanduser()


def fetch_set(name: str, folder: str | Path | None = None) -> Path:
    """Downloads a data set, going on from what an earlier call left, and checks it; returns the folder that holds it.

    Files that are there already are checked, not downloaded again.

    Args:
        name: `mnist`, `fashion-mnist` or `n-mnist`.
        folder: the folder of data sets, in which the set gets a folder of its name; by default the environment
            variable STBP_DATA names it, or it is the user's cache folder.

    Raises:
        DataError: the name is unknown, a file that is there is not the published one, or no address delivers a file:
            each is listed with its reason, and the page to visit.
    """
    download = download_called(name)
    home = (default_folder() if folder is None else Path(folder).expanduser()) / name
    for file, addresses in download.files:
        there = download.find(home, file)
        if there is None:
            try:
                fetch(file, addresses, home)
            except DataError as error:
                wanted = [f.file_name for f, _ in download.files]
                raise DataError(
                    f"{error}; or get {', '.join(wanted)} from {download.page} and put them into {home}, "
                    f"or into DIR/{name} and pass --data DIR"
                ) from error
        elif fault := file.fault(there):
            raise DataError(f"{there}: {fault}; delete it to download it again")
    return home
