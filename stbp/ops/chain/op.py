"""`chain`: a run of layers, [pooling] + synapse + neurons, as one operator: what lies between them stays bits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stbp.ops import dispatch
from stbp.ops.autograd import check_once, check_plain
from stbp.ops.call import FLOAT, Call, saved_bytes
from stbp.ops.stage import Stage, decode, encode


def _run(x: Tensor, parameters: Sequence[Tensor], stages: Sequence[Stage], save: bool) -> tuple[Tensor, Tensor, Tensor]:
    if dispatch.triton(x, *parameters):
        from stbp.ops.chain import gpu

        out, saved = gpu.forward(x, parameters, stages, save)
        return out, saved, saved.new_empty(0)
    call = Call(x, stages, parameters, save)
    out = torch.empty((*x.shape[:2], *stages[-1].outputs), **FLOAT)
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
    grads = [torch.empty(t.shape if need else 0, **FLOAT) for t, need in zip((x, *parameters), needs, strict=True)]
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


def _keep(ctx: Any, stages: Sequence[Stage], tensors: Sequence[Tensor]) -> None:
    ctx.stages = stages
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad: Tensor, needs: Sequence[bool]) -> list[Tensor | None]:
    """Gradients of x and the parameters, None where they are not needed."""
    check_once("a run of layers")
    x, window, rest, *parameters = ctx.saved_tensors
    check_plain("a run of layers", grad)
    if _direct(grad):
        found = _run_back(grad, ctx.saved_tensors, ctx.stages, needs)
    else:
        found = _chain_backward(grad, x, window, rest, parameters, *encode(ctx.stages), needs)
    return [g if need else None for g, need in zip(found, needs, strict=True)]


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, parameters, layout, numbers, _ = inputs
    _keep(ctx, decode(layout, numbers), (x, *output[1:], *parameters))
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple:
    needs = [ctx.needs_input_grad[0], *ctx.needs_input_grad[1]]
    found = [None] * len(needs) if grad is None else _gradients(ctx, grad, needs)
    return found[0], found[1:], None, None, None


_chain.register_autograd(_backward, setup_context=_setup)


class _Direct(torch.autograd.Function):
    """`stbp::chain` without the dispatcher, whose Python layers take longer than the loss."""

    @staticmethod
    def forward(ctx, stages, save, x, *parameters):
        out, window, rest = _run(x, parameters, stages, save)
        _keep(ctx, stages, (x, window, rest, *parameters))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, None, *_gradients(ctx, grads[0], ctx.needs_input_grad[2:])


def _direct(x: Tensor) -> bool:
    """True if nobody needs to see the operator called by torch's dispatcher."""
    return type(x) is Tensor and not dispatch.traced()


def chain(x: Tensor, stages: Sequence[Stage], parameters: Sequence[Tensor]) -> Tensor:
    """Return the output of a run of stages over a window: the composition of their operators, as in reference.py.

    Args:
        x: packed spikes `[T, B, ceil(N/8)]`, or for a first stage of kind `current` its current `[T, B, ...]`.
        stages: what to run, front to back; each has neurons.
        parameters: weight and bias of every synapse, in order, where it has them.

    Returns:
        spikes of the last stage, `[T, B, ...]`.

    Raises:
        NotImplementedError: `torch.func` transforms, forward-mode derivatives, a second derivative.
    """
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *parameters))
    check_plain("a run of layers", x, *parameters)
    if _direct(x):
        out = _Direct.apply(tuple(stages), save, x, *parameters)
        assert isinstance(out, Tensor)
        return out
    return _chain(x, parameters, *encode(stages), save)[0]
