"""Downloads that are right or not there: checked by content, renamed into place only when whole."""

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pooch
import requests
import urllib3
from tqdm import tqdm

from stbp.data.error import DataError
from stbp.data.original import Original

TIMEOUT = (10.0, 30.0)
"""Seconds to wait for a connection, and for the next bytes."""

_log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """What one address sent is not the file; the message says why."""


class _Sink:
    """A file that takes no more than `limit` bytes, and tells its own faults (a full disk) from the network's."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self.file, self.limit, self.size = file, limit, 0

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self.limit:
            raise _RefusedError(f"more than {self.limit:,} bytes, stopped")
        try:
            self.file.write(chunk)
        except OSError as error:
            raise _unwritable(Path(self.file.name), error) from error

    def flush(self) -> None:
        """pooch flushes after every chunk; one flush at the end is enough."""


def fetch(original: Original, addresses: Sequence[str], folder: Path) -> Path:
    """Downloads `original` from the first address that has it, and returns its path in `folder`.

    The file is written under a temporary name, compared with the original, flushed to disk and renamed; whatever
    goes wrong, an interrupt included, nothing of it stays. Progress goes to stderr, if that is a terminal.

    Args:
        original: the file; `.gz` is added to its name, there and here.
        addresses: folders on the web, each ending in a slash.
        folder: made if it does not exist.

    Raises:
        DataError: no address delivers the file (each is listed with the reason), or `folder` cannot be written to.
    """
    reasons: list[str] = []
    for address in addresses:
        url = f"{address}{original.name}.gz"
        try:
            return _fetch_one(url, original, folder)
        except (_RefusedError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reasons.append(f"{url} ({_brief(error)})")
            _log.warning("no download from %s", reasons[-1])
    raise DataError(f"cannot download {original.name}: {'; '.join(reasons)}")


def _fetch_one(url: str, original: Original, folder: Path) -> Path:
    path = folder / f"{original.name}.gz"
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{original.name}.", suffix=".part", delete=False) as file:
            temporary = Path(file.name)
            _download(url, _Sink(file, _largest(original)))
            file.flush()
            os.fsync(file.fileno())
        if fault := original.fault(temporary):
            raise _RefusedError(fault)
        temporary.replace(path)
        return path
    except requests.RequestException:  # an OSError too, but the network's
        raise
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _download(url: str, sink: _Sink) -> None:
    name = url.rsplit("/", 1)[-1]
    # pooch sets the total; until then it must not be zero or none, or pooch takes the bar for false
    with tqdm(desc=name, total=1, unit="B", unit_scale=True, ncols=79, disable=None) as bar:
        # Without the header a server may pack the file once more, and pooch would show a wrong progress.
        headers = {"Accept-Encoding": "identity"}
        downloader = pooch.HTTPDownloader(
            progressbar=bar,  # pyright: ignore[reportArgumentType] any object with a bar's methods will do
            chunk_size=1 << 16,
            timeout=TIMEOUT,
            headers=headers,
        )
        try:
            downloader(url, sink, None)
        except ValueError as error:
            if isinstance(error, (DataError, requests.RequestException)):
                raise
            raise _RefusedError(f"answer not understood: {error}") from error  # a Content-Length that is no number


def _largest(original: Original) -> int:
    """The size of a gzip file that holds `original` without packing it, generously."""
    return original.size + original.size // 1000 + (1 << 16)


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot be written ({error.strerror or error}); make room or name a folder that holds the data set"
    )


def _brief(error: BaseException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"no answer for {TIMEOUT[0 if isinstance(error, requests.ConnectTimeout) else 1]:g} s"
    root = error
    while not isinstance(root, _RefusedError) and (deeper := root.__cause__ or root.__context__) is not None:
        root = deeper
    text = getattr(root, "strerror", None) or str(root) or type(root).__name__
    return " ".join(str(text).split())[:200]
