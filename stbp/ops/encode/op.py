"""`bernoulli` and `static`: from an image to the input of a network."""

import ctypes

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from stbp.ops import dispatch, native
from stbp.ops.encode import reference
from stbp.ops.spikes import Spikes


@torch.library.custom_op("stbp::bernoulli", mutates_args=())
def _bernoulli(image: Tensor, T: int, seed: int, epoch: int, sample: Tensor) -> Tensor:
    if image.dtype in (torch.uint8, torch.float32) and dispatch.compiled(others=(image, sample)):
        return _compiled(image, T, seed, epoch, sample)
    if image.dtype in (torch.uint8, torch.float32) and dispatch.triton(image, sample):
        from stbp.ops.encode import gpu

        dispatch.note("bernoulli", "forward", "triton")
        return gpu.bernoulli(image, T, seed, epoch, sample)
    return reference.bernoulli(image, T, seed, epoch, sample)


def _compiled(image: Tensor, T: int, seed: int, epoch: int, sample: Tensor) -> Tensor:
    (B, N), image, sample = image.shape, image.contiguous(), sample.contiguous()
    bits = image.new_empty((T, B, (N + 7) // 8), dtype=torch.uint8)
    native.call(
        "stbp_bernoulli",
        ctypes.c_void_p(image.data_ptr()),
        image.element_size(),
        ctypes.c_int64(B),
        ctypes.c_int64(N),
        T,
        ctypes.c_uint32(seed),
        ctypes.c_uint32(epoch),
        ctypes.c_void_p(sample.data_ptr()),
        ctypes.c_void_p(bits.data_ptr()),
        torch.get_num_threads(),
    )
    dispatch.note("bernoulli", "forward", "events")
    return bits


@_bernoulli.register_fake
def _(image, T, seed, epoch, sample):
    return image.new_empty((T, image.shape[0], (image.shape[1] + 7) // 8), dtype=torch.uint8)


def bernoulli(
    image: Float[Tensor, "B *pixels"] | UInt8[Tensor, "B *pixels"],
    T: int,
    seed: int = 0,
    epoch: int = 0,
    sample: Int64[Tensor, " B"] | None = None,
) -> Spikes:
    """Return Bernoulli-coded spikes: in every step each pixel fires with a probability equal to its value.

    The random numbers are Philox, keyed by `(seed, epoch, sample)`: the spikes of a sample depend on these three and
    its pixels alone, not on the batch around it, its place in it, the number of threads or the device.
    `torch.manual_seed` has no effect, and the same arguments give the same spikes: a training loop has to pass a number
    that moves, as `epoch`, or every step of it sees the same noise.

    Args:
        image: `[B, ...]`, values in [0, 1] as firing probabilities per step, or uint8, where 255 stands for 1.
        T: number of steps, at least 1.
        seed: in [0, 2^32).
        epoch: in [0, 2^32); another one, other spikes.
        sample: `[B]` ids in [0, 2^32), such as each image's index in its data set; 0..B-1 by default.

    Returns:
        Spikes of shape `[T, B, ...]`.

    Raises:
        ValueError: an argument out of its range; the message names it, the rule and the value.
    """
    _check_steps(T)
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= value < 2**32:
            raise ValueError(f"{name} must lie in [0, 2^32); got {value}")
    if image.dim() < 2:
        raise ValueError(f"image must be [B, ...] with at least two axes; got {list(image.shape)}")
    _check_image(image)
    if image.is_floating_point() and image.numel() and not bool(((image >= 0) & (image <= 1)).all()):
        raise ValueError(f"image must hold values in [0, 1]; got {image.min().item():g} to {image.max().item():g}")
    if sample is None:
        sample = torch.arange(image.shape[0], device=image.device)
    elif sample.shape != image.shape[:1] or sample.dtype != torch.int64:
        raise ValueError(
            f"sample must be int64 [{image.shape[0]}], one id an image; got {sample.dtype} {list(sample.shape)}"
        )
    bits = _bernoulli(image.flatten(1), T, seed, epoch, sample)
    return Spikes(bits, (T, *image.shape))


def static(image: Float[Tensor, "B *pixels"] | UInt8[Tensor, "B *pixels"], T: int) -> Float[Tensor, "T B *pixels"]:
    """Return the image as the same input in each of T steps (a view: nothing is copied T times).

    Args:
        image: `[B, ...]` float, or uint8, where 255 stands for 1.
        T: number of steps, at least 1.
    """
    _check_steps(T)
    _check_image(image)
    value = image.to(torch.float32) / 255 if image.dtype == torch.uint8 else image
    return value.expand(T, *value.shape)


def _check_steps(T: int) -> None:
    if not isinstance(T, int) or T < 1:
        raise ValueError(f"T must be at least 1 time step, a whole number; got {T!r}")


def _check_image(image: Tensor) -> None:
    if not image.is_floating_point() and image.dtype != torch.uint8:
        raise ValueError(f"image must be floating point in [0, 1], or uint8; got {image.dtype}")
