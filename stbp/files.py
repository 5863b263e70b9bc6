"""Files that survive a kill at any moment: each is written whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import platformdirs

CACHE = "STBP_CACHE"  # environment variable


def cache_folder() -> Path:
    """Return the folder of what can be fetched or made again, downloads and stores: STBP_CACHE, or the user's cache."""
    return Path(os.environ.get(CACHE) or platformdirs.user_cache_dir("stbp", appauthor=False)).expanduser()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is the old one or the new one, whatever happens."""
    with written_atomically(path) as file:
        file.write(content)


@contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name in the same folder, flushed to disk and renamed unless something is raised."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself is on disk only when its folder is
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, content: object) -> None:
    """One JSON document, indented, written atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
