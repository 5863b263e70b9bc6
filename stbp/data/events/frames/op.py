"""`frames`: from the events of a batch of recordings to the input of a network."""

import ctypes

import torch
from jaxtyping import Float, Int64, UInt, UInt8, UInt32
from torch import Tensor

from stbp.data.events.frames import reference
from stbp.data.events.frames.options import Augmentation, FrameOptions
from stbp.ops import dispatch, native
from stbp.ops.spikes import Spikes

_PARTS = {"step": 0, "time": 1, "events": 2}  # as in cpu.cpp


class _Choice(ctypes.Structure):
    """Options of the kernel, besides the events: `Choice` of cpu.cpp, field by field."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("T", "H", "W", "step_us", "start_us", "stop_us", "jitter_us")),
        *((name, ctypes.c_int32) for name in ("parts", "stabilize", "counts", "shift")),
        *((name, ctypes.c_uint32) for name in ("drop", "seed", "epoch")),
    )


def frames(
    t: UInt32[Tensor, " E"],
    x: UInt[Tensor, " E"],
    y: UInt[Tensor, " E"],
    p: UInt8[Tensor, " bytes"],
    offsets: Int64[Tensor, " bounds"],
    ids: Int64[Tensor, " B"],
    T: int,
    shape: tuple[int, int],
    options: FrameOptions | None = None,
    augmentation: Augmentation | None = None,
    *,
    seed: int = 0,
    epoch: int = 0,
) -> Spikes | Float[Tensor, "T B 2 H W"]:
    """Frames of recordings of an event camera: whether, or how often, a pixel fired in each of T parts of the time.

    A sample's frames depend on its events, the options and, with an augmentation, on `(seed, epoch, id)`: not on the
    batch around it, its place in it or the number of threads. Events off the H x W sensor are left out; a recording
    without events gives zeros.

    Args:
        t: times of all recordings, one behind the other, in microseconds.
        x, y: columns from the left, rows from the top; both uint8, or both uint16.
        p: polarities, one bit each: event e is bit e % 8 of byte e // 8; 1 is ON, and the channel.
        offsets: recording n is the events offsets[n] to offsets[n + 1] - 1.
        ids: the recordings of the batch, in 0..N-1; also what random numbers are drawn by.
        T: number of frames, at least 1.
        shape: height and width of the sensor.
        options: how the events are divided among the frames.
        augmentation: random changes, none by default.
        seed, epoch: in [0, 2^32).

    Returns:
        Spikes of shape `[T, B, 2, H, W]`; with `options.counts` the number of events, a tensor of that shape.

    Raises:
        ValueError: an argument out of its range, or one that has no effect.
    """
    options, a = options or FrameOptions(), augmentation or Augmentation()
    if a.jitter_us and options.parts == "events":
        raise ValueError("jitter_us has no effect on parts 'events', which go by the order; omit one of them")
    _check(t, x, y, p, offsets, ids)
    _check_numbers(T, shape, seed, epoch)
    arrays = tuple(values.contiguous() for values in (t, x, y, p, offsets, ids))
    if dispatch.compiled(others=arrays):
        out = _compiled(arrays, T, shape, options, a, seed, epoch)
    else:
        out = reference.frames(t, x, y, p, offsets, ids, T, shape, options, a, seed, epoch)
    return out if options.counts else Spikes(out, (T, len(ids), 2, *shape))


def _compiled(
    arrays: tuple[Tensor, ...],
    T: int,
    shape: tuple[int, int],
    o: FrameOptions,
    a: Augmentation,
    seed: int,
    epoch: int,
) -> Tensor:
    (H, W), B = shape, len(arrays[-1])
    out = torch.empty(T, B, 2, H, W) if o.counts else torch.empty(T, B, (2 * H * W + 7) // 8, dtype=torch.uint8)
    stop = 2**32 if o.stop_us is None else o.stop_us
    times = T, H, W, o.step, o.start_us, stop, a.jitter_us
    choice = _Choice(*times, _PARTS[o.parts], o.stabilize, o.counts, a.shift, a.drop_level, seed, epoch)
    places = [ctypes.c_void_p(values.data_ptr()) for values in (*arrays, out)]
    wide = arrays[1].dtype == torch.uint16
    native.call("stbp_frames", *places[:-1], ctypes.c_int64(B), wide, choice, places[-1], torch.get_num_threads())
    dispatch.note("frames", "forward", "events")
    return out


def _check(t: Tensor, x: Tensor, y: Tensor, p: Tensor, offsets: Tensor, ids: Tensor) -> None:
    place = torch.uint16 if x.dtype == torch.uint16 else torch.uint8
    dtypes = {"t": torch.uint32, "x": place, "y": place, "p": torch.uint8}
    for (name, dtype), values in zip(dtypes.items(), (t, x, y, p), strict=True):
        length = (len(t) + 7) // 8 if name == "p" else len(t)
        if values.dtype != dtype or values.shape != (length,):
            raise ValueError(
                f"{name} must be {dtype} [{length}] for {len(t)} events; got {values.dtype} {list(values.shape)}"
            )
    for name, values in (("offsets", offsets), ("ids", ids)):
        if values.dtype != torch.int64 or values.dim() != 1:
            raise ValueError(f"{name} must be int64 of one axis; got {values.dtype} {list(values.shape)}")
    N = len(offsets) - 1
    if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < N):
        raise ValueError(f"ids must lie in 0..{N - 1}; got {int(ids.min())} to {int(ids.max())}")
    begin, end = offsets[ids], offsets[ids + 1]
    if bool(((begin < 0) | (end < begin) | (end > len(t))).any()):
        raise ValueError(f"offsets must rise from 0 to {len(t)}, the number of events; a recording lies outside")


def _check_numbers(T: int, shape: tuple[int, int], seed: int, epoch: int) -> None:
    if not isinstance(T, int) or not 1 <= T < 2**20:
        raise ValueError(f"T must be a whole number of frames in 1..{2**20 - 1}; got {T!r}")
    if len(shape) != 2 or not all(isinstance(n, int) and 1 <= n <= 1 << 16 for n in shape):
        raise ValueError(f"shape must be height and width, each in 1..{1 << 16:,}; got {shape!r}")
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= value < 2**32:
            raise ValueError(f"{name} must lie in [0, 2^32); got {value}")
