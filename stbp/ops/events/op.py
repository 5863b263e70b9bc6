"""`columns`: the events of N-MNIST recordings, by the kernel alone; `stbp.data.events.nmnist` is its definition."""

import ctypes
from collections.abc import Sequence

import numpy as np

from stbp.ops import native, paths


def columns(raws: Sequence[bytes], length: np.ndarray) -> dict[str, np.ndarray] | None:
    """The events of several recordings, one behind the other.

    Args:
        raws: the content of N `.bin` files.
        length: `[N]`, int64, the number of whole events of each.

    Returns:
        `t` (uint32, microseconds), `x`, `y`, `p` (uint8), each `[E]`; None where there are no kernels, or a recording
        has an overflow marker or a fault, which is not said here.
    """
    if not paths.compiled():
        return None
    found = {name: np.empty(length.sum(), np.uint32 if name == "t" else np.uint8) for name in "txyp"}
    contents = (ctypes.c_char_p * len(raws))(*raws)
    sizes = (ctypes.c_int64 * len(raws))(*map(len, raws))
    places = (ctypes.c_void_p(column.ctypes.data) for column in found.values())
    return found if native.call("stbp_nmnist", contents, sizes, ctypes.c_int64(len(raws)), *places) else None
