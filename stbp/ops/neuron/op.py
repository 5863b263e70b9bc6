"""`lif`: argument checks, registration with torch's dispatcher, autograd."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args, overload

import torch
from jaxtyping import Float
from torch import Tensor

from stbp.names import GateName, Surrogate
from stbp.ops import dispatch, native
from stbp.ops.autograd import check_once, check_plain
from stbp.ops.neuron import reference
from stbp.ops.neuron.reference import Gate
from stbp.ops.stage import Neuron
from stbp.ops.surrogate import curves as surrogates


class State(NamedTuple):
    """Potential `u` and spikes `o` of a neuron layer after the last step, `[B, ...]` each."""

    u: Tensor
    o: Tensor


def zero_state(x: Float[Tensor, "T B *N"]) -> State:
    """The state of a layer at rest, for the window `x` that is about to enter it."""
    return State(x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:]))


class NeuronStruct(ctypes.Structure):
    """A neuron's constants as the compiled kernels take them: `Lif` in lif.h."""

    _fields_ = (*((name, ctypes.c_float) for name in Neuron._fields[:-1]), ("surrogate", ctypes.c_int32))

    @classmethod
    def of(cls, neuron: Neuron) -> "NeuronStruct":
        """Return the constants in C's layout.

        Raises:
            ValueError: the kernels do not know the surrogate.
        """
        if neuron.surrogate not in native.curves():
            known = ", ".join(native.curves())
            raise ValueError(f"surrogate {neuron.surrogate!r} has no compiled kernel; they know {known}")
        return cls(*neuron[:-1], native.curves().index(neuron.surrogate))


@torch.library.custom_op("stbp::lif", mutates_args=())
def _lif(
    x: Tensor,
    u: Tensor,
    o: Tensor,
    constants: Sequence[float],
    surrogate: str,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, last potential and, with `save`, what `stbp::lif_backward` needs: the potentials of all steps.

    `constants` are those of a `Neuron` in its order, without the surrogate.
    """
    neuron = Neuron._make((*constants, surrogate))
    way, why = dispatch.choose(x, u, o, curves=(surrogate,))
    if way == "compiled":
        return _compiled(x, u, o, neuron, save)
    dispatch.note("lif", "forward", way, reason=why)
    if way == "triton":
        from stbp.ops.neuron import gpu

        return gpu.lif(x, u, o, neuron, save)
    us, os = reference.lif(x, u, o, neuron.forward_gate, neuron.threshold)
    return os, us[-1].clone(), us if save else x.new_empty(0)


def _compiled(x: Tensor, u: Tensor, o: Tensor, neuron: Neuron, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    x, u, o = x.contiguous(), u.contiguous(), o.contiguous()
    os, u_last, us = torch.empty_like(x), torch.empty_like(u), torch.empty_like(x) if save else x.new_empty(0)
    places = [ctypes.c_void_p(t.data_ptr()) for t in (os, us, u_last)]
    if not save:
        places[1] = ctypes.c_void_p()
    given = [ctypes.c_void_p(t.data_ptr()) for t in (x, u, o)]
    size = (ctypes.byref(NeuronStruct.of(neuron)), len(x), ctypes.c_int64(u.numel()))
    native.call("stbp_lif_forward", *given, *size, *places, torch.get_num_threads())
    dispatch.note("lif", "forward", "window")
    return os, u_last, us


@_lif.register_fake
def _(x, u, o, constants, surrogate, save):
    saved = x.new_empty(x.shape if save else 0)
    if dispatch.choose(x, u, o, curves=(surrogate,))[0] == "triton":
        from stbp.ops.neuron import gpu

        saved = gpu.saved_like(x, Neuron._make((*constants, surrogate)), save)
    return x.new_empty(x.shape), u.new_empty(u.shape), saved


@torch.library.custom_op("stbp::lif_backward", mutates_args=())
def _lif_backward(
    grad_o: Tensor,
    grad_u: Tensor,
    saved: Tensor,
    u: Tensor,
    o: Tensor,
    constants: Sequence[float],
    surrogate: str,
) -> tuple[Tensor, Tensor, Tensor]:
    neuron = Neuron._make((*constants, surrogate))
    way, why = dispatch.choose(grad_o, grad_u, curves=(surrogate,))
    if way == "compiled":
        return _compiled_backward(grad_o, grad_u, saved, u, o, neuron)
    if saved.dtype == torch.int32:  # bits: what the GPU's forward pass kept
        way, why = "triton", ""
    dispatch.note("lif", "input", way, reason=why)
    if way == "triton":
        from stbp.ops.neuron import gpu

        return gpu.lif_backward(grad_o, grad_u, saved, u, o, neuron)
    *_, threshold, width, _ = neuron
    return reference.lif_backward(grad_o, grad_u, saved, u, o, neuron.backward_gate, threshold, surrogate, width)


def _compiled_backward(
    grad_o: Tensor, grad_u: Tensor, us: Tensor, u: Tensor, o: Tensor, neuron: Neuron
) -> tuple[Tensor, Tensor, Tensor]:
    given = [t.contiguous() for t in (grad_o, grad_u, us, u, o)]
    grads = torch.empty_like(given[2]), torch.empty_like(given[3]), torch.empty_like(given[4])
    places = [ctypes.c_void_p(t.data_ptr()) for t in (*given, *grads)]
    size = (ctypes.byref(NeuronStruct.of(neuron)), len(us), ctypes.c_int64(u.numel()))
    native.call("stbp_lif_backward", *places[:5], *size, *places[5:], torch.get_num_threads())
    dispatch.note("lif", "input", "window")
    return grads


@_lif_backward.register_fake
def _(grad_o, grad_u, saved, u, o, constants, surrogate):
    return grad_o.new_empty(grad_o.shape), u.new_empty(u.shape), o.new_empty(o.shape)


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    _, u, o, *ctx.neuron, _ = inputs
    ctx.save_for_backward(output[2], u, o)
    ctx.mark_non_differentiable(output[2])
    ctx.layer = dispatch.current_layer()


def _backward(ctx: Any, grad_o: Tensor, grad_u: Tensor, _: Tensor) -> tuple:
    check_once("lif")
    with dispatch.layer(ctx.layer):
        return *_lif_backward(grad_o, grad_u, *ctx.saved_tensors, *ctx.neuron), None, None, None


_lif.register_autograd(_backward, setup_context=_setup)


@overload
def lif(
    x: Float[Tensor, "T B *N"],
    decay: float = ...,
    threshold: float = ...,
    surrogate: Surrogate = ...,
    width: float = ...,
    gate: GateName | Gate = ...,
    state: None = None,
) -> Float[Tensor, "T B *N"]: ...
@overload
def lif(
    x: Float[Tensor, "T B *N"],
    decay: float = ...,
    threshold: float = ...,
    surrogate: Surrogate = ...,
    width: float = ...,
    gate: GateName | Gate = ...,
    *,
    state: State,
) -> tuple[Float[Tensor, "T B *N"], State]: ...
def lif(
    x: Float[Tensor, "T B *N"],
    decay: float = 0.2,
    threshold: float = 0.5,
    surrogate: Surrogate = "rectangle",
    width: float = 1.0,
    gate: GateName | Gate = "linear",
    state: State | None = None,
) -> Float[Tensor, "T B *N"] | tuple[Float[Tensor, "T B *N"], State]:
    """Return the spikes of iterative leaky integrate-and-fire neurons over a window (paper, eq. 4 to 7).

    The gradient is exact, with the surrogate in place of the step's derivative.

    Equivalent to, for t = 1..T:  u = u * f(o) + x[t];  o = (u >= threshold)

    Args:
        x: input current (synapse output plus bias), `[T, B, ...]`, in units of the threshold.
        decay: the paper's tau, what remains of u after one step without a spike, in [0, 1); not exp(-dt/tau).
        threshold: V_th, positive; a neuron fires when u >= threshold.
        surrogate: the curve h1..h4 used for do/du: `rectangle`, `polynomial`, `sigmoid`, `gaussian`.
        width: width of the rectangle of the same height, in units of u; the curve's peak is 1/width.
        gate: f(o): `linear` (tau*(1-o)), `paper` (tau*exp(-o/tau)), `detached` (linear, reset not differentiated),
            `spatial` (linear, no gradient backward in time), or a `Gate` of four numbers, which replaces `decay`.
        state: potential and spikes to go on from, `[B, ...]` each; None starts at rest.

    Returns:
        o, `[T, B, ...]`, 0 or 1; with a state given, o and the state after the last step. Gradients flow through both.

    Raises:
        ValueError: an argument out of its range; the message names it, the rule and the value.
        NotImplementedError: `torch.func` transforms, forward-mode derivatives, a second derivative.
    """
    check_neuron(decay, threshold, surrogate, width, gate)
    if x.dim() < 2 or x.shape[0] == 0 or not x.is_floating_point():
        raise ValueError(f"x must be floating point [T, B, ...] with T >= 1; got {x.dtype} {list(x.shape)}")
    start = zero_state(x) if state is None else state
    check_plain("lif", x, *start)
    for part, value in start._asdict().items():
        if value.shape != x.shape[1:] or value.dtype != x.dtype:
            raise ValueError(
                f"state.{part} must be {x.dtype} {list(x.shape[1:])}, as x is; got {value.dtype} {list(value.shape)}"
            )
    *constants, curve = Neuron.of(decay, threshold, surrogate, width, gate)
    save = torch.is_grad_enabled() and (x.requires_grad or start.u.requires_grad or start.o.requires_grad)
    o, u_last, _ = _lif(x, start.u, start.o, constants, curve, save)
    return o if state is None else (o, State(u_last, o[-1]))


def check_neuron(decay: float, threshold: float, surrogate: str, width: float, gate: str | Gate) -> None:
    """Raise ValueError, naming argument, rule and value, unless these describe a neuron."""
    for name, value in (("decay", decay), ("threshold", threshold), ("width", width)):
        if isinstance(value, Tensor):
            raise ValueError(
                f"{name} must be a number: learnt constants, and one for each neuron, are not built yet; got a "
                f"{type(value).__name__} of {list(value.shape)}; give a number, of a tensor with one value its item()"
            )
    if not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1): it is the share of u kept from one step to the next; got {decay}")
    if not 1e-30 < threshold < float("inf"):
        raise ValueError(f"threshold must be positive and finite, and not below 1e-30; got {threshold}")
    surrogates.check(surrogate, width)
    if not isinstance(gate, Gate) and gate not in get_args(GateName):
        raise ValueError(f"gate must be one of {', '.join(get_args(GateName))}, or a Gate; got {gate!r}")
