"""`conv2d`: argument checks, registration with torch's dispatcher, autograd; for dense input and for packed spikes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stbp.ops import dispatch
from stbp.ops.chain.op import synapse, synapse_backward
from stbp.ops.spikes import Spikes, unpack_bits
from stbp.ops.stage import Refused, Stage, conv_stage
from stbp.ops.synapse import conv2d_reference


def _unpack(bits: Tensor, shape: list[int], dtype: torch.dtype) -> Tensor:
    return unpack_bits(bits, math.prod(shape), dtype).unflatten(-1, shape)


def _stage(shape: list[int], weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Stage | Refused:
    return conv_stage(shape, weight.shape, bias is not None, stride, padding)


def _note(step: str, stage: Stage | Refused, *tensors: Tensor | None, others: Sequence[Tensor] = ()) -> None:
    """Note why no kernel runs: none serves the tensors or the shape, or a dense input holds more than spikes."""
    if dispatch.triton(*tensors, *others):
        why = ""
    else:
        why = dispatch.why_not(*tensors, others=others) or (stage.reason if isinstance(stage, Refused) else "")
    reason = why or "a dense input that holds more than 0 and 1"
    dispatch.note("conv2d", step, "reference" if why else "torch", reason=reason)


def _square(weight: Tensor) -> bool:
    """Whether the GPU kernels take a weight."""
    return weight.dtype == torch.float32 and weight.shape[2] == weight.shape[3]


@torch.library.custom_op("stbp::conv2d", mutates_args=())
def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    stage = _stage(list(x.shape[2:]), weight, bias, stride, padding)
    spikes = Spikes.packed(x) if isinstance(stage, Stage) and dispatch.compiled(x, weight, bias) else None
    if isinstance(stage, Stage) and spikes:
        return synapse(spikes.bits, stage, weight, bias)
    _note("forward", stage, x, weight, bias)
    return conv2d_reference.conv2d(x, weight, bias, stride, padding)


@torch.library.custom_op("stbp::conv2d_backward", mutates_args=())
def _conv2d_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    stage = _stage(list(x.shape[2:]), weight, None, stride, padding)
    spikes = Spikes.packed(x) if isinstance(stage, Stage) and dispatch.compiled(x, weight, grad) else None
    if isinstance(stage, Stage) and spikes:
        grad_x = conv2d_reference.conv2d_backward(grad, x, weight, stride, padding, [needs[0], False, False])[0]
        return grad_x, *synapse_backward(grad, spikes.bits, stage, weight, needs[1:])
    _note("weight", stage, x, weight, grad)
    return conv2d_reference.conv2d_backward(grad, x, weight, stride, padding, needs)


@torch.library.custom_op("stbp::conv2d_spikes", mutates_args=())
def _conv2d_spikes(
    bits: Tensor, shape: list[int], weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Tensor:
    stage = _stage(shape, weight, bias, stride, padding)
    if isinstance(stage, Stage) and dispatch.compiled(weight, bias, others=(bits,)):
        return synapse(bits, stage, weight, bias)
    if dispatch.triton(bits, weight, bias) and _square(weight):
        from stbp.ops.synapse import gpu

        dispatch.note("conv2d", "forward", "triton")
        return gpu.spikes_forward(bits, (shape[0], shape[1], shape[2]), weight, bias, stride, padding)
    _note("forward", stage, weight, bias, others=(bits,))
    return conv2d_reference.conv2d(_unpack(bits, shape, weight.dtype), weight, bias, stride, padding)


@torch.library.custom_op("stbp::conv2d_spikes_backward", mutates_args=())
def _conv2d_spikes_backward(
    grad: Tensor, bits: Tensor, shape: list[int], weight: Tensor, stride: int, padding: int, needs: list[bool]
) -> tuple[Tensor, Tensor]:
    stage = _stage(shape, weight, None, stride, padding)
    if isinstance(stage, Stage) and dispatch.compiled(weight, grad, others=(bits,)):
        return synapse_backward(grad, bits, stage, weight, needs)
    if dispatch.triton(bits, weight, grad) and _square(weight):
        from stbp.ops.synapse import gpu

        dispatch.note("conv2d", "weight", "triton")
        return gpu.spikes_backward(grad, bits, (shape[0], shape[1], shape[2]), weight, stride, padding, needs)
    _note("weight", stage, weight, grad, others=(bits,))
    o = _unpack(bits, shape, weight.dtype)
    return conv2d_reference.conv2d_backward(grad, o, weight, stride, padding, [False, *needs])[1:]


@_conv2d.register_fake
def _(x, weight, bias, stride, padding):
    return conv2d_reference.conv2d(x, weight, bias, stride, padding)


@_conv2d_spikes.register_fake
def _(bits, shape, weight, bias, stride, padding):
    return conv2d_reference.conv2d(weight.new_empty((*bits.shape[:2], *shape)), weight, bias, stride, padding)


@_conv2d_backward.register_fake
def _(grad, x, weight, stride, padding, needs):
    shapes = (x.shape, weight.shape, weight.shape[:1])
    return tuple(weight.new_empty(s if need else 0) for s, need in zip(shapes, needs, strict=True))


@_conv2d_spikes_backward.register_fake
def _(grad, bits, shape, weight, stride, padding, needs):
    shapes = (weight.shape, weight.shape[:1])
    return tuple(weight.new_empty(s if need else 0) for s, need in zip(shapes, needs, strict=True))


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, _, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(x, weight)
    ctx.layer = dispatch.current_layer()


def _backward(ctx: Any, grad: Tensor) -> tuple:
    needs = list(ctx.needs_input_grad[:3])
    with dispatch.layer(ctx.layer):
        grads = _conv2d_backward(grad, *ctx.saved_tensors, ctx.stride, ctx.padding, needs)
    return *(g if need else None for g, need in zip(grads, needs, strict=True)), None, None


def _spikes_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    bits, ctx.shape, weight, _, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(bits, weight)
    ctx.layer = dispatch.current_layer()


def _spikes_backward(ctx: Any, grad: Tensor) -> tuple:
    bits, weight = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[2:4])
    with dispatch.layer(ctx.layer):
        grads = _conv2d_spikes_backward(grad, bits, ctx.shape, weight, ctx.stride, ctx.padding, needs)
    return None, None, *(g if need else None for g, need in zip(grads, needs, strict=True)), None, None


_conv2d.register_autograd(_backward, setup_context=_setup)
_conv2d_spikes.register_autograd(_spikes_backward, setup_context=_spikes_setup)


def conv2d(
    x: Float[Tensor, "T B C H W"] | Spikes,
    weight: Float[Tensor, "M C k k"],
    bias: Float[Tensor, " M"] | None = None,
    stride: int = 1,
    padding: int = 0,
) -> Float[Tensor, "T B M H2 W2"]:
    """The convolutional synapse over a window, run once for all T*B frames.

    Args:
        x: spikes or currents, `[T, B, C, H, W]`, as a tensor or packed.
        weight, bias: `[M, C, k, k]` and `[M]`, the layout of `torch.nn.Conv2d`.
        stride, padding: in pixels, the same in both directions.

    Returns:
        input current of the next layer, `[T, B, M, H', W']`.

    Raises:
        ValueError: x is not `[T, B, C, H, W]` with the C of the weight, or a frame is smaller than the kernel.
    """
    if len(x.shape) != 5 or x.shape[2] != weight.shape[1]:
        raise ValueError(f"x must be [T, B, {weight.shape[1]}, H, W] to go with the weight; got {list(x.shape)}")
    if min(x.shape[3:]) + 2 * padding < weight.shape[-1]:
        raise ValueError(f"x has frames of {x.shape[3]}x{x.shape[4]}, smaller than the {weight.shape[-1]}-wide kernel")
    if isinstance(x, Spikes):
        return _conv2d_spikes(x.bits, list(x.shape[2:]), weight, bias, stride, padding)
    if x.shape[0] > 1 and x.stride(0) == 0:  # the same frame in every step: one convolution serves them all
        return _conv2d(x[:1], weight, bias, stride, padding).expand(x.shape[0], -1, -1, -1, -1)
    return _conv2d(x, weight, bias, stride, padding)
