"""Downloads that are right or not there: checked by content, renamed into place when whole, resumed when cut off."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock
import requests

from stbp.data.error import DataError
from stbp.data.progress import bar
from stbp.data.published import Published

TIMEOUT = (10.0, 30.0)
"""Seconds to wait for a connection, and for the next bytes."""
CHUNK = 1 << 16

_log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """Error of an address that sent something other than the file; the message says why."""


def fetch(published: Published, addresses: Sequence[str], folder: Path) -> Path:
    """Downloads a file from the first address that has it, and returns its path in `folder`.

    The file is written under a temporary name, compared with the published one, flushed to disk and renamed. What a
    cut connection or an interrupt leaves behind, `FILE.part1` for the first address and so on, is gone on with by the
    next call, where the server can do that; what turns out to be wrong is deleted. Two processes that fetch the same
    file wait for each other. Progress goes to stderr, if that is a terminal.

    Args:
        addresses: of the file on the web, the first to try first.
        folder: made if it does not exist.

    Raises:
        DataError: no address delivers the file (each is listed with the reason), or `folder` cannot be written to.
    """
    path, reasons = folder / published.file_name, list[str]()
    with _alone(path):
        if path.exists() and published.fault(path) is None:  # another process was faster
            return path
        for number, url in enumerate(addresses, start=1):
            part = path.with_name(f"{path.name}.part{number}")
            try:
                _fetch_one(url, published, part)
                part.replace(path)
            except (_RefusedError, requests.RequestException) as error:
                size = part.stat().st_size if part.exists() else 0
                kept = f", {size:,} bytes are kept to go on from" if size else ""
                reasons.append(f"{url} ({_brief(error)}{kept})")
                _log.warning("no download from %s", reasons[-1])
            except OSError as error:
                raise _unwritable(path, error) from error
            else:
                for other in folder.glob(f"{path.name}.part*"):
                    other.unlink()
                return path
    raise DataError(f"cannot download {published.file_name}: {'; '.join(reasons)}")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the file's lock, which a killed process does not keep."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            _log.warning("%s: waiting for another process that downloads it", path)
            lock.acquire()
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield
    finally:
        if path.exists():  # whoever waits for this lock sees the file, so the lock has done its work
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _fetch_one(url: str, published: Published, part: Path) -> None:
    """Bring `part` to the whole file, going on from what it holds, or raise; a wrong one is deleted."""
    while True:
        start = part.stat().st_size if part.exists() else 0
        try:
            resumed = _download(url, part, start, published.largest)
        except _RefusedError:
            part.unlink(missing_ok=True)
            raise
        if (fault := published.fault(part)) is None:
            return
        part.unlink()
        if not resumed:
            raise _RefusedError(fault)
        _log.warning("%s: what was left of an earlier download does not fit (%s); once more from the start", url, fault)


def _download(url: str, part: Path, start: int, largest: int) -> bool:
    """Append to `part` what is missing behind its first `start` bytes; returns whether they were gone on from."""
    # without the first header a server may pack the file once more
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            return True  # nothing is missing
        response.raise_for_status()
        resumed = start > 0 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        size, length = start if resumed else 0, response.headers.get("Content-Length", "0")
        if not length.isdigit():
            raise _RefusedError(f"answer not understood: its length is {length!r}")
        with part.open("ab" if resumed else "wb") as file, bar(part.stem, size + int(length) or None) as advance:
            advance(size)
            for chunk in response.iter_content(CHUNK):
                size += len(chunk)
                if size > largest:
                    raise _RefusedError(f"more than {largest:,} bytes, stopped")
                file.write(chunk)
                advance(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    return resumed


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
