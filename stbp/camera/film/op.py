"""`film`: the events of a camera that looks at moving images; `reference.py` is its definition."""

import ctypes

import numpy as np
import torch

from stbp.camera.film import reference
from stbp.camera.film.reference import Model
from stbp.ops import dispatch, native

_SIZES = ("h", "w", "H", "W", "steps", "entries_x", "entries_y", "counts_off", "counts_on")
_ARRAYS = ("table_x", "table_y", "offset_x", "offset_y", "on", "off", "counts_off", "counts_on")
_NUMBERS = ("base", "gain", "floor", "alpha", "noise", "dead_on", "dead_off", "step_us")


class _Model(ctypes.Structure):  # Model of cpu.cpp
    _fields_ = (
        *((f"n_{name}", ctypes.c_int64) for name in _SIZES),
        *((name, ctypes.c_void_p) for name in _ARRAYS),
        *((name, ctypes.c_float) for name in _NUMBERS),
        ("seed", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
    )


def film(model: Model, image: np.ndarray, position: np.ndarray, sample: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """As `reference.film`, by the kernel where there is one; on as many threads as torch has."""
    if not dispatch.compiled():
        return reference.film(model, image, position, sample, seed)
    kept = {
        name: np.ascontiguousarray(getattr(model, name), np.uint32 if name.startswith("counts") else np.float32)
        for name in _ARRAYS
    }
    sizes = (
        *image.shape[1:],
        *model.on.shape[::-1],
        position.shape[1] - 1,
        *(len(kept[name]) for name in ("table_x", "table_y", "counts_off", "counts_on")),
    )
    filled = _Model(*sizes, *(kept[name].ctypes.data for name in _ARRAYS), *(getattr(model, n) for n in _NUMBERS), seed)
    image, position = np.ascontiguousarray(image, np.uint8), np.ascontiguousarray(position, np.float32)
    sample, length, found = np.ascontiguousarray(sample, np.int64), np.empty(len(image), np.int64), ctypes.c_void_p()
    native.call(
        "stbp_saccade",
        ctypes.byref(filled),
        *(ctypes.c_void_p(array.ctypes.data) for array in (image, position, sample)),
        ctypes.c_int64(len(image)),
        ctypes.c_void_p(length.ctypes.data),
        ctypes.byref(found),
        torch.get_num_threads(),
    )
    events = {name: np.empty(length.sum(), np.uint32 if name == "t" else np.uint8) for name in "txyp"}
    native.call("stbp_saccade_take", found, *(ctypes.c_void_p(column.ctypes.data) for column in events.values()))
    dispatch.note("saccade", "forward", "compiled")
    return {**events, "length": length}
