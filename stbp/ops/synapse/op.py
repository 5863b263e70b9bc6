"""The synapses as one operator, `stbp::synapse`, for dense input and for packed spikes: registration and autograd.

A weight `[M, N]` is a linear synapse, a weight `[M, C, k, k]` a convolution.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from stbp.ops import dispatch
from stbp.ops.autograd import check_once, check_plain
from stbp.ops.call import FLOAT, Call
from stbp.ops.spikes import Spikes, unpack_bits
from stbp.ops.stage import Refused, Stage, conv_stage, linear_stage
from stbp.ops.synapse import conv2d_reference, linear_reference

# Way to compute, the bits and the stage that the compiled kernels take, and why no kernel runs.
_Way = tuple[Literal["compiled", "triton", "torch", "reference"], Tensor, Stage | Refused, str]


def _name(weight: Tensor) -> str:
    return "linear" if weight.dim() == 2 else "conv2d"


def _way(x: Tensor, size: list[int], weight: Tensor, other: Tensor | None, stride: int, padding: int) -> _Way:
    """Choose how to compute; `other` is the bias, or the gradient that comes down."""
    packed, linear = bool(size), weight.dim() == 2
    size = size or list(x.shape[2:])
    bias = other is not None
    stage = linear_stage(size, len(weight), bias) if linear else conv_stage(size, weight.shape, bias, stride, padding)
    way, why = dispatch.choose(weight, other, *(() if packed else (x,)), others=(x,) if packed else ())
    if way == "triton":
        if packed and weight.dtype == torch.float32 and (linear or weight.shape[2] == weight.shape[3]):
            return "triton", x, stage, ""
        why = "the GPU kernels take packed spikes, float32 weights and square kernels"
        return ("reference" if packed else "torch"), x, stage, why
    if way == "reference":
        return way, x, stage, why
    if isinstance(stage, Refused):
        return "reference", x, stage, stage.reason
    if packed:
        return way, x, stage, ""
    spikes = Spikes.packed(x)
    if spikes is None:
        return "torch", x, stage, "a dense input that holds more than 0 and 1"
    return way, spikes.bits, stage, ""


def _dense(x: Tensor, size: list[int], dtype: torch.dtype) -> Tensor:
    return unpack_bits(x, math.prod(size), dtype).unflatten(-1, size) if size else x


@torch.library.custom_op("stbp::synapse", mutates_args=())
def _synapse(x: Tensor, size: list[int], weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Current `[T, B, M]` or `[T, B, M, H', W']`.

    Args:
        x: dense `[T, B, ...]`, or packed `[T, B, bytes]`.
        size: shape of one packed frame; empty for dense input.
    """
    way, bits, stage, why = _way(x, size, weight, bias, stride, padding)
    if way == "compiled":
        assert isinstance(stage, Stage)
        return _compiled(bits, stage, weight, bias)
    dispatch.note(_name(weight), "forward", way, reason=why)
    if way == "triton":
        from stbp.ops.synapse import gpu

        return gpu.spikes_forward(bits, size, weight, bias, stride, padding)
    if weight.dim() == 2:
        return linear_reference.linear(_dense(x, size, weight.dtype), weight, bias)
    return conv2d_reference.conv2d(_dense(x, size, weight.dtype), weight, bias, stride, padding)


@torch.library.custom_op("stbp::synapse_backward", mutates_args=())
def _synapse_backward(
    grad: Tensor, x: Tensor, size: list[int], weight: Tensor, stride: int, padding: int, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias, each an empty tensor where `needs` says that it is not asked for."""
    way, bits, stage, why = _way(x, size, weight, grad, stride, padding)
    if way == "compiled":
        assert isinstance(stage, Stage)
        only_x = [needs[0], False, False]
        grad_x = _reference_backward(grad, x, weight, stride, padding, only_x)[0] if needs[0] else grad.new_empty(0)
        return grad_x, *_compiled_backward(grad, bits, stage, weight, needs[1:])
    dispatch.note(_name(weight), "weight", way, reason=why)
    if way == "triton":
        from stbp.ops.synapse import gpu

        return grad.new_empty(0), *gpu.spikes_backward(grad, bits, size, weight, stride, padding, needs[1:])
    return _reference_backward(grad, _dense(x, size, weight.dtype), weight, stride, padding, needs)


def _reference_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    if weight.dim() == 2:
        return linear_reference.linear_backward(grad, x, weight, needs)
    return conv2d_reference.conv2d_backward(grad, x, weight, stride, padding, needs)


def _compiled(bits: Tensor, stage: Stage, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Current `[T, B, ...]`; a frame's sum is the same in any window."""
    call = Call(bits, [stage], [weight] if bias is None else [weight, bias], False)
    out = torch.empty((*bits.shape[:2], *stage.outputs), **FLOAT)
    if out.numel():
        call.forward(out)
        call.note(["forward"], dispatch.current_layer())
    return out


def _compiled_backward(
    grad: Tensor, bits: Tensor, stage: Stage, weight: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias."""
    shapes = zip((weight.shape, weight.shape[:1]), needs, strict=True)
    grads = [torch.empty(shape if need else 0, **FLOAT) for shape, need in shapes]
    if not grad.numel():
        return grads[0].zero_(), grads[1].zero_()
    call = Call(bits, [stage], [weight, grads[1]], True)  # what a bias holds is not read on the way back
    call.backward(grad.contiguous(), [bits, *grads], [False, *needs])
    call.note(["weight"], dispatch.current_layer())
    return grads[0], grads[1]


@_synapse.register_fake
def _(x, size, weight, bias, stride, padding):
    if weight.dim() == 2:
        return weight.new_empty((*x.shape[:2], weight.shape[0]))
    frames = weight.new_empty((*x.shape[:2], *size)) if size else x
    return conv2d_reference.conv2d(frames, weight, bias, stride, padding)


@_synapse_backward.register_fake
def _(grad, x, size, weight, stride, padding, needs):
    shapes = (x.shape, weight.shape, weight.shape[:1])
    return tuple(weight.new_empty(s if need else 0) for s, need in zip(shapes, needs, strict=True))


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, ctx.size, weight, _, ctx.stride, ctx.padding = inputs
    ctx.save_for_backward(x, weight)
    ctx.layer = dispatch.current_layer()


def _backward(ctx: Any, grad: Tensor) -> tuple:
    x, weight = ctx.saved_tensors
    check_once(_name(weight))
    x_too, _, weight_too, bias_too, *_ = ctx.needs_input_grad
    needs = [x_too, weight_too, bias_too]
    with dispatch.layer(ctx.layer):
        grads = _synapse_backward(grad, x, ctx.size, weight, ctx.stride, ctx.padding, needs)
    to_x, to_weight, to_bias = (g if need else None for g, need in zip(grads, needs, strict=True))
    return to_x, None, to_weight, to_bias, None, None


_synapse.register_autograd(_backward, setup_context=_setup)


def synapse(x: Tensor | Spikes, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> Tensor:
    """The current of a synapse, `[T, B, ...]`; shapes are checked by the caller."""
    if isinstance(x, Spikes):
        check_plain(_name(weight), weight, bias)
        return _synapse(x.bits, list(x.shape[2:]), weight, bias, stride, padding)
    check_plain(_name(weight), x, weight, bias)
    if x.shape[0] > 1 and x.stride(0) == 0:  # the same frame in every step: one product serves them all
        y = _synapse(x[:1], [], weight, bias, stride, padding)
        return y.expand(x.shape[0], *y.shape[1:])
    return _synapse(x, [], weight, bias, stride, padding)
