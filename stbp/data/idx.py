"""The idx format of MNIST, plain or in gzip.

A file is a magic number (two zero bytes, 8 for uint8, the number of dimensions), each dimension as a big-endian uint32,
and the values. Source: Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits, 1998.
"""

import math
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from stbp.data.error import DataError
from stbp.data.published import BROKEN_GZIP, CHUNK, unpacked

KINDS = {0x0801: "labels", 0x0803: "images"}
LARGEST = 1 << 30
"""Bytes of values that a header may announce: twenty times MNIST. A small gzip file can hold more zeros than memory."""


def read_images(path: Path) -> UInt8[np.ndarray, "N H W"]:
    """The images of an idx file, at least one, 0..255, writable.

    Raises:
        DataError: the file is missing, not idx, holds labels, or is not exactly as long as its header says.
    """
    return _read(path, 0x0803)


def read_labels(path: Path, classes: int) -> UInt8[np.ndarray, " N"]:
    """The labels of an idx file, at least one, each in `0..classes-1`, writable.

    Raises:
        DataError: as `read_images`, or a label is out of range.
    """
    labels = _read(path, 0x0801)
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{path}: label {labels[first]} of sample {first} is out of 0..{classes - 1}"
            f" ({len(wrong)} of {len(labels)} labels are); use an undamaged copy"
        )
    return labels


def _read(path: Path, magic: int) -> np.ndarray:
    try:
        with unpacked(path) as file:
            shape = _read_header(file, path, magic)
            return _read_values(file, path, shape)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; name the folder that holds it") from None
    except BROKEN_GZIP as error:
        raise DataError(f"{path}: damaged gzip file ({error}); use an undamaged copy") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the file") from error


def _read_header(file: BufferedIOBase, path: Path, magic: int) -> tuple[int, ...]:
    ndim = magic & 0xFF
    header = file.read(4 * (1 + ndim))
    if len(header) < 4:
        raise DataError(f"{path}: truncated, {len(header)} bytes in all; use an undamaged copy")
    found = int.from_bytes(header[:4], "big")
    if found != magic:
        expected = f"0x{magic:08x} ({KINDS[magic]})"
        if found in KINDS:
            raise DataError(
                f"{path}: mislabelled, its magic number is 0x{found:08x} ({KINDS[found]}), expected {expected};"
                f" put the file of {KINDS[magic]} here"
            )
        raise DataError(
            f"{path}: not an idx file, its magic number is 0x{found:08x}, expected {expected}; use an undamaged copy"
        )
    if len(header) < 4 * (1 + ndim):
        raise DataError(f"{path}: truncated in its header, {len(header)} bytes in all; use an undamaged copy")
    shape = tuple(int(n) for n in np.frombuffer(header, dtype=">u4", offset=4))
    if 0 in shape:
        raise DataError(f"{path}: empty, its header says {_times(shape)}; use an undamaged copy")
    if math.prod(shape) > LARGEST:
        raise DataError(
            f"{path}: its header says {_times(shape)} = {math.prod(shape):,} bytes, more than the {LARGEST:,} allowed;"
            " use an undamaged copy"
        )
    return shape


def _read_values(file: BufferedIOBase, path: Path, shape: tuple[int, ...]) -> np.ndarray:
    size = math.prod(shape)
    values = bytearray()  # grows with what is really there: the header may lie
    while len(values) <= size and (chunk := file.read(min(CHUNK, size + 1 - len(values)))):
        values += chunk
    if len(values) < size:
        raise DataError(
            f"{path}: truncated, {len(values):,} of the {size:,} bytes that its header says ({_times(shape)});"
            " use an undamaged copy"
        )
    if len(values) > size:
        raise DataError(
            f"{path}: trailing bytes after the {size:,} that its header says ({_times(shape)}); use an undamaged copy"
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{n:,}" for n in shape)
