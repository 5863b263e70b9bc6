"""`linear`: argument checks, registration with torch's dispatcher, autograd; for dense input and for packed spikes."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stbp.ops import dispatch
from stbp.ops.chain.op import synapse, synapse_backward
from stbp.ops.spikes import Spikes, unpack_bits
from stbp.ops.stage import Stage, linear_stage
from stbp.ops.synapse import linear_reference


def _stage(weight: Tensor, bias: Tensor | None) -> Stage:
    stage = linear_stage(weight.shape[1:], len(weight), bias is not None)
    assert isinstance(stage, Stage)
    return stage


def _bits(x: Tensor, *others: Tensor | None) -> Tensor | None:
    """x packed for the compiled kernels; None where they do not serve it, or it holds more than zeros and ones."""
    if not dispatch.compiled(x, *others):
        return None
    spikes = Spikes.packed(x)
    return None if spikes is None else spikes.bits


def note_dense(operator: str, step: str, *tensors: Tensor | None) -> None:
    """Note why a dense input takes torch's product: no kernels, or values that are no spikes, which suit it well."""
    why = "" if dispatch.triton(*tensors) else dispatch.why_not(*tensors)
    reason = why or "a dense input that holds more than 0 and 1"
    dispatch.note(operator, step, "reference" if why else "torch", reason=reason)


@torch.library.custom_op("stbp::linear", mutates_args=())
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    bits = _bits(x, weight, bias)
    if bits is not None:
        return synapse(bits, _stage(weight, bias), weight, bias)
    note_dense("linear", "forward", x, weight, bias)
    return linear_reference.linear(x, weight, bias)


@torch.library.custom_op("stbp::linear_backward", mutates_args=())
def _linear_backward(grad: Tensor, x: Tensor, weight: Tensor, needs: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    bits = _bits(x, weight, grad)
    if bits is not None:
        grad_x = linear_reference.linear_backward(grad, x, weight, [needs[0], False, False])[0]
        return grad_x, *synapse_backward(grad, bits, _stage(weight, None), weight, needs[1:])
    note_dense("linear", "weight", x, weight, grad)
    return linear_reference.linear_backward(grad, x, weight, needs)


@torch.library.custom_op("stbp::linear_spikes", mutates_args=())
def _linear_spikes(bits: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if dispatch.compiled(weight, bias, others=(bits,)):
        return synapse(bits, _stage(weight, bias), weight, bias)
    if dispatch.triton(bits, weight, bias) and weight.dtype == torch.float32:
        from stbp.ops.synapse import gpu

        dispatch.note("linear", "forward", "triton")
        return gpu.spikes_forward(bits, (weight.shape[1], 1, 1), weight[..., None, None], bias, 1, 0)[..., 0, 0]
    dispatch.note("linear", "forward", "reference", reason=dispatch.why_not(weight, bias, others=(bits,)))
    return linear_reference.linear(unpack_bits(bits, weight.shape[1], weight.dtype), weight, bias)


@torch.library.custom_op("stbp::linear_spikes_backward", mutates_args=())
def _linear_spikes_backward(grad: Tensor, bits: Tensor, weight: Tensor, needs: list[bool]) -> tuple[Tensor, Tensor]:
    if dispatch.compiled(weight, grad, others=(bits,)):
        return synapse_backward(grad, bits, _stage(weight, None), weight, needs)
    if dispatch.triton(bits, weight, grad) and weight.dtype == torch.float32:
        from stbp.ops.synapse import gpu

        dispatch.note("linear", "weight", "triton")
        eps, maps, size = grad[..., None, None], weight[..., None, None], (weight.shape[1], 1, 1)
        found, bias = gpu.spikes_backward(eps, bits, size, maps, 1, 0, needs)
        return found.view(weight.shape) if needs[0] else found, bias
    dispatch.note("linear", "weight", "reference", reason=dispatch.why_not(weight, grad, others=(bits,)))
    o = unpack_bits(bits, weight.shape[1], weight.dtype)
    return linear_reference.linear_backward(grad, o, weight, [False, *needs])[1:]


@_linear.register_fake
@_linear_spikes.register_fake
def _(x, weight, bias):
    return weight.new_empty((*x.shape[:2], weight.shape[0]))


@_linear_backward.register_fake
def _(grad, x, weight, needs):
    shapes = (x.shape, weight.shape, weight.shape[:1])
    return tuple(weight.new_empty(s if need else 0) for s, need in zip(shapes, needs, strict=True))


@_linear_spikes_backward.register_fake
def _(grad, bits, weight, needs):
    shapes = (weight.shape, weight.shape[:1])
    return tuple(weight.new_empty(s if need else 0) for s, need in zip(shapes, needs, strict=True))


def _setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)
    ctx.layer = dispatch.current_layer()


def _backward(ctx: Any, grad: Tensor) -> tuple:
    needs = list(ctx.needs_input_grad)
    with dispatch.layer(ctx.layer):
        grads = _linear_backward(grad, *ctx.saved_tensors, needs)
    return tuple(g if need else None for g, need in zip(grads, needs, strict=True))


def _spikes_backward(ctx: Any, grad: Tensor) -> tuple:
    needs = list(ctx.needs_input_grad[1:])
    with dispatch.layer(ctx.layer):
        grads = _linear_spikes_backward(grad, *ctx.saved_tensors, needs)
    return None, *(g if need else None for g, need in zip(grads, needs, strict=True))


_linear.register_autograd(_backward, setup_context=_setup)
_linear_spikes.register_autograd(_spikes_backward, setup_context=_setup)


def linear(
    x: Float[Tensor, "T B N"] | Spikes, weight: Float[Tensor, "M N"], bias: Float[Tensor, " M"] | None = None
) -> Float[Tensor, "T B M"]:
    """The fully connected synapse over a window, run once for all T*B frames (paper, eq. 3).

    Args:
        x: spikes or currents, `[T, B, N]`, as a tensor or packed.
        weight, bias: `[M, N]` and `[M]`, the layout of `torch.nn.Linear`.

    Returns:
        input current of the next layer, `[T, B, M]`.

    Raises:
        ValueError: x is not `[T, B, N]` with the N of the weight.
    """
    if len(x.shape) != 3 or x.shape[2] != weight.shape[1]:
        raise ValueError(f"x must be [T, B, {weight.shape[1]}] to go with the weight; got {list(x.shape)}")
    if isinstance(x, Spikes):
        return _linear_spikes(x.bits, weight, bias)
    if x.shape[0] > 1 and x.stride(0) == 0:  # the same frame in every step: one product serves them all
        return _linear(x[:1], weight, bias).expand(x.shape[0], -1, -1)
    return _linear(x, weight, bias)
