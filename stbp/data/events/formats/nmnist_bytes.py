"""`writer`: the events of N-MNIST recordings, by the kernel alone; `nmnist.py` is its definition."""

import ctypes
from collections.abc import Callable, Mapping

import numpy as np

from stbp.ops import dispatch, native

SIZE = 5  # bytes of an event

# Called with the interpreter's lock: to let go of it and take it again would cost as much as a recording.
_KERNEL = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, *[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 4)


def writer(columns: Mapping[str, np.ndarray]) -> Callable[[bytes | bytearray, int], bool]:
    """A function that writes the events of a recording into columns.

    Args:
        columns: `t` (uint32, microseconds), `x`, `y`, `p` (uint8), each contiguous.

    Returns:
        `write(raw, first)`: the content of a `.bin` file, and the element at which its first event goes; ValueError
        where the columns have no room for it. False where there are no kernels, or the recording has an overflow
        marker or a fault, which is not said here.
    """
    library = native.kernels() if dispatch.compiled() else None
    if library is None:
        return lambda raw, first: False
    kernel = _KERNEL(("stbp_nmnist", library))
    places = [columns[name].ctypes.data for name in "txyp"]

    def write(raw: bytes | bytearray, first: int) -> bool:
        if not 0 <= first <= len(columns["t"]) - len(raw) // SIZE:
            raise ValueError(
                f"{len(raw) // SIZE} events from element {first} on do not fit {len(columns['t'])} elements"
            )
        return bool(kernel(np.frombuffer(raw, np.uint8).ctypes.data, len(raw), first, *places))

    return write
