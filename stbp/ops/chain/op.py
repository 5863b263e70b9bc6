"""`chain`: a run of layers, [pooling] + synapse + neurons, as one operator: what lies between them stays bits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stbp.ops import dispatch
from stbp.ops.call import Call, saved_bytes
from stbp.ops.stage import Stage, decode, encode

_FLOAT: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults are


def _run(x: Tensor, parameters: Sequence[Tensor], stages: Sequence[Stage], save: bool) -> tuple[Tensor, Tensor, Tensor]:
    if dispatch.triton(x, *parameters):
        from stbp.ops.chain import gpu

        out, saved = gpu.forward(x, parameters, stages, save)
        return out, saved, saved.new_empty(0)
    call = Call(x, stages, parameters, save)
    out = torch.empty((*x.shape[:2], *stages[-1].outputs), **_FLOAT)
    window, rest = (torch.empty(size, dtype=torch.uint8, device="cpu") for size in call.form.saved)
    if out.numel():
        call.keep(window, rest)
        call.forward(out)
        call.note(["forward"])
    return (out, window, rest) if save else (out, window.new_empty(0), rest.new_empty(0))


@torch.library.custom_op("stbp::chain", mutates_args=())
def _chain(
    x: Tensor, parameters: Sequence[Tensor], layout: Sequence[int], numbers: Sequence[float], save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Output of the last stage, `[T, B, ...]`, and what `stbp::chain_backward` needs, in two parts."""
    return _run(x, parameters, decode(layout, numbers), save)


@_chain.register_fake
def _(x, parameters, layout, numbers, save):
    stages = decode(layout, numbers)
    sizes = 0, 0
    if dispatch.triton(x, *parameters):
        from stbp.ops.chain import gpu

        sizes = gpu.saved_bytes(stages, x.shape[0], x.shape[1], save), 0
    elif save:
        sizes = saved_bytes(stages, x.shape[0], x.shape[1], save)
    out = torch.empty((*x.shape[:2], *stages[-1].outputs), dtype=torch.float32, device=x.device)
    window, rest = (torch.empty(size, dtype=torch.uint8, device=x.device) for size in sizes)
    return out, window, rest


def _run_back(
    grad: Tensor,
    saved: Sequence[Tensor],
    stages: Sequence[Stage],
    needs: Sequence[bool],
) -> list[Tensor]:
    x, window, rest, *parameters = saved
    if x.is_cuda or dispatch.triton(x, *parameters):
        from stbp.ops.chain import gpu

        return gpu.backward(grad, x, window, parameters, stages, needs)
    grads = [torch.empty(t.shape if need else 0, **_FLOAT) for t, need in zip((x, *parameters), needs, strict=True)]
    if not grad.numel():
        return [g.zero_() for g in grads]
    call = Call(x, stages, parameters, True)
    call.keep(window, rest)
    call.backward(grad.contiguous(), grads, needs)
    call.note(["weight", "input"])
    return grads


@torch.library.custom_op("stbp::chain_backward", mutates_args=())
def _chain_backward(
    grad: Tensor,
    x: Tensor,
    window: Tensor,
    rest: Tensor,
    parameters: Sequence[Tensor],
    layout: Sequence[int],
    numbers: Sequence[float],
    needs: Sequence[bool],
) -> list[Tensor]:
    """Gradients of x (where it is a current) and the parameters, each an empty tensor where `needs` says so."""
    return _run_back(grad, [x, window, rest, *parameters], decode(layout, numbers), needs)


@_chain_backward.register_fake
def _(grad, x, window, rest, parameters, layout, numbers, needs):
    tensors = zip((x, *parameters), needs, strict=True)
    return [torch.empty(t.shape if need else 0, dtype=torch.float32, device=grad.device) for t, need in tensors]


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, parameters, ctx.layout, ctx.numbers, _ = inputs
    ctx.save_for_backward(x, *output[1:], *parameters)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple:
    x, window, rest, *parameters = ctx.saved_tensors
    if grad is None:
        return None, [None] * len(parameters), None, None, None
    needs = [ctx.needs_input_grad[0], *ctx.needs_input_grad[1]]
    grads = _chain_backward(grad, x, window, rest, parameters, ctx.layout, ctx.numbers, needs)
    found = [g if need else None for g, need in zip(grads, needs, strict=True)]
    return found[0], found[1:], None, None, None


_chain.register_autograd(_backward, setup_context=_setup)


class _Direct(torch.autograd.Function):
    """`stbp::chain` without the dispatcher, whose Python layers take 0.3 ms of a step: as much as the loss and half of
    the optimiser of 784-800-10."""

    @staticmethod
    def forward(ctx, stages, save, x, *parameters):
        out, window, rest = _run(x, parameters, stages, save)
        ctx.save_for_backward(x, window, rest, *parameters)
        ctx.stages = stages
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        needs = ctx.needs_input_grad[2:]
        found = _run_back(grads[0], ctx.saved_tensors, ctx.stages, needs)
        return None, None, *(g if need else None for g, need in zip(found, needs, strict=True))


def chain(x: Tensor, stages: Sequence[Stage], parameters: Sequence[Tensor]) -> Tensor:
    """Output of a run of stages over a window; its definition is the composition of their operators (reference.py).

    Args:
        x: packed spikes `[T, B, ceil(N/8)]`, or for a first stage of kind `current` its current `[T, B, ...]`.
        stages: what to run, front to back; each has neurons.
        parameters: weight and bias of every synapse, in order, where it has them.

    Returns:
        spikes of the last stage, `[T, B, ...]`.
    """
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *parameters))
    if type(x) is Tensor and not dispatch.traced():
        out = _Direct.apply(tuple(stages), save, x, *parameters)
        assert isinstance(out, Tensor)
        return out
    return _chain(x, parameters, *encode(stages), save)[0]


def synapse(bits: Tensor, stage: Stage, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The current `[T, B, ...]` that a synapse alone makes of packed spikes; a frame's sum is the same in any window.

    The kernel behind `stbp::linear` and `stbp::conv2d`, not an operator of its own: it has no autograd.
    """
    call = Call(bits, [stage], [weight] if bias is None else [weight, bias], False)
    out = torch.empty((*bits.shape[:2], *stage.outputs), **_FLOAT)
    if out.numel():
        call.forward(out)
        call.note(["forward"], dispatch.current_layer())
    return out


def synapse_backward(
    grad: Tensor, bits: Tensor, stage: Stage, weight: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias of `synapse`, each an empty tensor where `needs` says so."""
    stage = stage._replace(bias=True)
    grads = [
        torch.empty(shape if need else 0, **_FLOAT)
        for shape, need in zip((weight.shape, weight.shape[:1]), needs, strict=True)
    ]
    if not grad.numel():
        return grads[0].zero_(), grads[1].zero_()
    call = Call(bits, [stage], [weight, grads[1]], True)  # what a bias holds is not read on the way back
    call.backward(grad.contiguous(), [bits, *grads], [False, *needs])
    call.note(["weight"], dispatch.current_layer())
    return grads[0], grads[1]
