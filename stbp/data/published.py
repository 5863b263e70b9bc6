"""Published files, known by their content: as they are, or unpacked."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Protocol, runtime_checkable

CHUNK = 1 << 20
BROKEN_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged gzip file raises. `BadGzipFile` is an OSError: catch these first."""


@contextmanager
def unpacked(path: Path) -> Iterator[BufferedIOBase]:
    """Opens a file for reading, through gzip if its first two bytes are gzip's, whatever its name."""
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if is_gzip:
            with gzip.GzipFile(fileobj=raw, mode="rb") as inner:
                yield inner
        else:
            yield raw


@runtime_checkable
class Published(Protocol):
    """A file that can be told from any other by its content."""

    @property
    def file_name(self) -> str:
        """Its name in the folder."""
        ...

    @property
    def largest(self) -> int:
        """Bytes that a download of it never exceeds."""
        ...

    def fault(self, path: Path) -> str | None:
        """Fault that sets the file at `path` apart from it, in a few words; None if there is none."""
        ...


@dataclass(frozen=True)
class Archive:
    """A published file, known by the MD5 of its bytes as they are.

    Attributes:
        file_name: its name in the folder of the set.
        md5: hexadecimal digest.
        largest: bytes that it cannot exceed.
    """

    file_name: str
    md5: str
    largest: int

    def fault(self, path: Path) -> str | None:
        """Fault that sets the file at `path` apart from the published one, in a few words; None if there is none."""
        try:
            with path.open("rb") as file:
                if file.read(64).lstrip().startswith(b"<"):
                    return "a web page, not the file"
                file.seek(0)
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        return None if found == self.md5 else f"md5 {found[:12]}..., expected {self.md5[:12]}..."


@dataclass(frozen=True)
class Original:
    """A published file, as it is when unpacked: gzip containers differ between mirrors.

    Attributes:
        name: file name without `.gz`.
        size: bytes.
        sha256: hexadecimal digest.
    """

    name: str
    size: int
    sha256: str

    @property
    def file_name(self) -> str:
        """Name of a download."""
        return f"{self.name}.gz"

    @property
    def largest(self) -> int:
        """The size of a gzip file that holds it without packing it, generously."""
        return self.size + self.size // 1000 + (1 << 16)

    def fault(self, path: Path) -> str | None:
        """Fault that sets the file at `path` apart from the original, in a few words; None if there is none.

        Never unpacks more than `size` bytes and one chunk.
        """
        digest, size, start = hashlib.sha256(), 0, b""
        try:
            with unpacked(path) as file:
                while size <= self.size and (chunk := file.read(CHUNK)):
                    start = start or chunk[:64]
                    size += len(chunk)
                    digest.update(chunk)
        except BROKEN_GZIP as error:
            return f"damaged gzip file: {error}"
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"
        if size > self.size:
            return f"more than the expected {self.size:,} bytes when unpacked"
        if start.lstrip().startswith(b"<"):
            return "a web page, not the file"
        if size < self.size:
            return f"{size:,} bytes when unpacked, expected {self.size:,}"
        if digest.hexdigest() != self.sha256:
            return f"sha256 {digest.hexdigest()[:12]}... when unpacked, expected {self.sha256[:12]}..."
        return None
