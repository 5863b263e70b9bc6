"""Small idx files, a cache folder of the test's own, and a web server on this machine."""

import gzip
import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from stbp.data import mnist
from stbp.data.published import Original

REAL_DATA = os.environ.get("STBP_DATA")
PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx_bytes(values: np.ndarray) -> bytes:
    """The idx file of a uint8 array."""
    return struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape) + values.tobytes()


def small_set(seed: int = 0) -> dict[str, bytes]:
    """Four unpacked idx files: 30 training and 20 test images of 5x4 pixels."""
    random = np.random.default_rng(seed)
    arrays = [part for n in (30, 20) for part in (random.integers(0, 256, (n, 5, 4)), random.integers(0, 10, n))]
    return {name: idx_bytes(array.astype(np.uint8)) for name, array in zip(PARTS, arrays, strict=True)}


def write_set(folder: Path, contents: dict[str, bytes], ending: str = ".gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / f"{name}{ending}").write_bytes(gzip.compress(content) if ending == ".gz" else content)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees the user's own folders: STBP_DATA is unset and the cache is a folder of the test's own."""
    monkeypatch.delenv("STBP_DATA", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name, **_: folder)
    return folder


@dataclass
class Server:
    """Answers `/FOLDER/FILE` by what `answers[FOLDER]` does with the request, counting the requests."""

    port: int
    answers: dict[str, Callable[[BaseHTTPRequestHandler, str], None]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def address(self, folder: str) -> str:
        return f"http://127.0.0.1:{self.port}/{folder}/"


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5  # seconds; no test may hang

        def do_GET(self) -> None:
            found.requests.append(self.path)
            folder, name = self.path.strip("/").split("/")
            with suppress(ConnectionError):  # some tests want the client to hang up
                found.answers[folder](self, name)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = False  # so that closing waits for every answer
        found = Server(http.server_address[1])
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        http.shutdown()
        thread.join()


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, server: Server) -> dict[str, bytes]:
    """A small set that takes the place of MNIST, published at the addresses `first` and `second` of the server."""
    contents = small_set()
    originals = [
        Original(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()
    ]
    addresses = (server.address("first"), server.address("second"))
    monkeypatch.setitem(
        mnist.SOURCES, "mnist", mnist.Source(tuple("0123456789"), addresses, "http://127.0.0.1/page", *originals)
    )
    return contents
