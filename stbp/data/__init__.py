"""Data sets of images, and recordings of event cameras.

The public names are `load`, `load_folder`, `fetch_set`, `DataSet`, `Windows`, `ImageSet`, `read_events`,
`write_events` and `DataError`. They are resolved on first use, so that importing this package does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stbp.data.dataset import DataSet as DataSet
    from stbp.data.dataset import Windows as Windows
    from stbp.data.downloads import fetch_set as fetch_set
    from stbp.data.error import DataError as DataError
    from stbp.data.events.formats.reading import read_events as read_events
    from stbp.data.events.formats.reading import write_events as write_events
    from stbp.data.folder.load import load_folder as load_folder
    from stbp.data.images import ImageSet as ImageSet
    from stbp.data.sets import load as load

_HOMES = {
    "load": "stbp.data.sets",
    "load_folder": "stbp.data.folder.load",
    "fetch_set": "stbp.data.downloads",
    "DataSet": "stbp.data.dataset",
    "Windows": "stbp.data.dataset",
    "ImageSet": "stbp.data.images",
    "read_events": "stbp.data.events.formats.reading",
    "write_events": "stbp.data.events.formats.reading",
    "DataError": "stbp.data.error",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
