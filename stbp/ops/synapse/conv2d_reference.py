"""The convolutional synapse over a window: all T*B frames are one convolution."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# With few frames torch takes another convolution, which rounds differently; blank frames are added up to this number,
# so that each frame's sums do not depend on how many there are.
FRAMES = 32


def exact_convolutions(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """On a GPU cuDNN would round float32 to TF32, and sum in an order that changes from call to call."""
    return _ieee() if x.is_cuda else contextlib.nullcontext()


@contextlib.contextmanager
def _ieee() -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    before = cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark
    cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark = "ieee", True, False
    try:
        yield
    finally:
        cudnn.conv.fp32_precision, cudnn.deterministic, cudnn.benchmark = before


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`[T, B, C, H, W]` to `[T, B, M, H', W']`, weight `[M, C, k, k]`, as torch's own on each frame."""
    frames = x.flatten(0, 1).contiguous()
    n = len(frames)
    if n < FRAMES:
        frames = torch.nn.functional.pad(frames, (0, 0, 0, 0, 0, 0, 0, FRAMES - n))
    with exact_convolutions(x):
        y = torch.nn.functional.conv2d(frames, weight, bias, stride, padding)
    return y[:n].unflatten(0, x.shape[:2])


def conv2d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias, each an empty tensor where `needs` says that it is not asked for."""
    s, p = [stride, stride], [padding, padding]
    eps, o = grad.flatten(0, 1).contiguous(), x.flatten(0, 1).contiguous()
    with exact_convolutions(x):
        grads = torch.ops.aten.convolution_backward(
            eps, o, weight, [weight.shape[0]], s, p, [1, 1], False, [0, 0], 1, needs
        )
    grad_x, grad_weight, grad_bias = (g if need else grad.new_empty(0) for g, need in zip(grads, needs, strict=True))
    return (grad_x.unflatten(0, x.shape[:2]) if needs[0] else grad_x), grad_weight, grad_bias
