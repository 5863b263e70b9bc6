"""`chain`: a run of layers, [pooling] + synapse + neurons, as one operator: what lies between them stays bits."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stbp.ops import native, paths
from stbp.ops.lif.op import Neuron
from stbp.ops.surrogate import Surrogate

CURRENT, LINEAR, CONV, LOOKUP = range(4)
_FLOAT: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults are
PARTS = 8  # as in window.h
_NAMES = ("lif", "linear", "conv2d", "conv2d")
SURROGATES = get_args(Surrogate)
# What the numbers mean that the kernels report, forward, weight and input.
PATHS = ("", "events", "dense", "events by sample", "events by input", "lookup", "events by step")


class Stage(NamedTuple):
    """One stage of a chain in numbers, as `chain` takes it: see `Stage` in stage.h."""

    kind: int
    C: int
    H: int
    W: int
    pool: int
    M: int
    k: int
    pad: int
    OH: int
    OW: int
    fires: int
    complement: int
    bias: int
    surrogate: int
    layer: int  # of the module in its network, to name what was measured

    @property
    def outputs(self) -> tuple[int, ...]:
        without_maps = self.kind == LINEAR or (self.kind == CURRENT and self.OH * self.OW == 1)
        return (self.M,) if without_maps else (self.M, self.OH, self.OW)

    @property
    def row(self) -> int:
        """Potentials of one step of one sample: every position's maps, rounded up to whole units of 16."""
        return self.OH * self.OW * -(-self.M // 16) * 16


class _Stage(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in Stage._fields[:12]),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "grad_weight", "grad_bias", "bits", "u", "inside")),
        ("neuron", Neuron),
    )


class _Window(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("T", "B", "threads", "skip")),
        *((name, ctypes.c_void_p) for name in ("bits", "current", "out", "grad", "grad_current", "density", "path")),
    )


def _stages(layout: Sequence[int]) -> list[Stage]:
    n = len(Stage._fields)
    return [Stage._make(layout[i : i + n]) for i in range(0, len(layout), n)]


def _sizes(stages: list[Stage], T: Any, B: Any, save: bool) -> list[tuple[Any, ...]]:
    """Bytes that each stage leaves behind: potentials of maps inside a window, others, spikes, which are inside.

    T and B are numbers, symbolic ones under torch.compile.
    With the rectangle only the potentials inside its window are written, except of the last stage (window.h): what the
    others would have taken is asked for, but never touched.
    """
    sizes = []
    for stage in stages:
        frames, last, linear = T * B, stage is stages[-1], stage.kind == LINEAR
        kept = save and stage.fires and stage.kind != LOOKUP
        window = kept and stage.kind != CURRENT and SURROGATES[stage.surrogate] == "rectangle" and not last
        units = stage.row // 16
        # a vector more for each stretch: its last one is written whole
        maps = B * (4 * T * stage.OH * stage.OW * stage.M + 64) if window and not linear else 0
        others = 4 * frames * stage.row + (64 * PARTS * units if window else 0) if kept and not maps else 0
        places = 8 * units * B if linear else 0
        spikes = frames * stage.row // 8
        sizes.append((maps, others, 0 if last else spikes, spikes + places if window else 0))
    return sizes


def _saved_bytes(stages: list[Stage], T: Any, B: Any, save: bool) -> tuple[Any, Any]:
    """Bytes of the two tensors that are saved; what is large is one of them, which the allocator keeps more easily."""
    sizes = _sizes(stages, T, B, save)
    return sum(size[0] for size in sizes), sum(sum(size[1:]) for size in sizes)


@functools.lru_cache(maxsize=64)
def _template(stages: tuple[Stage, ...], neurons: tuple[float, ...]) -> bytes:
    """The stages as the kernels take them, without addresses."""
    rows = (_Stage * len(stages))()
    for i, (row, stage) in enumerate(zip(rows, stages, strict=True)):
        for name in Stage._fields[:12]:
            setattr(row, name, getattr(stage, name))
        part = neurons[8 * i : 8 * i + 8]
        row.neuron = Neuron.of(part[:2], part[2:6], part[6], SURROGATES[stage.surrogate], part[7])
    return bytes(rows)


class _Call:
    """The arguments of a kernel; it keeps the tensors alive whose addresses they hold."""

    def __init__(self, x: Tensor, stages: list[Stage], parameters: Sequence[Tensor], neurons: Sequence[float]):
        self.T, self.B = x.shape[:2]
        self.stages = stages
        self.rows = (_Stage * len(stages)).from_buffer_copy(_template(tuple(stages), tuple(neurons)))
        self.kept = [tensor.contiguous() for tensor in (x, *parameters)]
        given = iter(self.kept[1:])
        for row, stage in zip(self.rows, stages, strict=True):
            if stage.kind != CURRENT:
                row.weight = next(given).data_ptr()
            if stage.bias:
                row.bias = next(given).data_ptr()
        self.density = (ctypes.c_double * (3 * len(stages)))()
        self.path = (ctypes.c_int32 * (3 * len(stages)))()
        self.window = _Window(
            T=self.T,
            B=self.B,
            threads=torch.get_num_threads(),
            skip=paths.skip(),
            density=ctypes.addressof(self.density),
            path=ctypes.addressof(self.path),
        )
        setattr(self.window, "current" if stages[0].kind == CURRENT else "bits", self.kept[0].data_ptr())

    def place(self, window: Tensor, rest: Tensor, save: bool) -> None:
        """Point every stage at its parts of what is saved."""
        sizes = _sizes(self.stages, self.T, self.B, save)
        at = 0
        for part, name in enumerate(("u", "u", "bits", "inside")):  # potentials first: they are aligned
            if part < 2:
                at = (window, rest)[part].data_ptr()
            for row, size in zip(self.rows, sizes, strict=True):
                if size[part]:
                    setattr(row, name, at)
                    at += size[part]

    def run(self, name: str) -> None:
        native.call(name, ctypes.byref(self.window), self.rows, len(self.rows))

    def note(self, steps: dict[int, str], name: str | None = None) -> None:
        """Tell the watcher, if there is one, what was taken; `name` for an operator that is no layer of a network."""
        if not paths.watched():
            return
        for i, stage in enumerate(self.stages):
            for column, step in steps.items():
                kernel = PATHS[self.path[3 * i + column]]
                if kernel:
                    density = float("nan") if column == 1 else self.density[3 * i + min(column, 1)]
                    paths.note(name or f"{stage.layer} {_NAMES[stage.kind]}", step, kernel, density)


def _run(
    x: Tensor, parameters: Sequence[Tensor], stages: list[Stage], neurons: Sequence[float], save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if paths.triton(x, *parameters):
        from stbp.ops.chain import gpu

        out, saved = gpu.forward(x, parameters, stages, neurons, save)
        return out, saved, saved.new_empty(0)
    call = _Call(x, stages, parameters, neurons)
    out = torch.empty((*x.shape[:2], *stages[-1].outputs), **_FLOAT)
    sizes = _saved_bytes(stages, call.T, call.B, save)
    window, rest = (torch.empty(size, dtype=torch.uint8, device="cpu") for size in sizes)
    if out.numel():
        call.window.out = out.data_ptr()
        call.place(window, rest, save)
        call.run("stbp_chain_forward")
        call.note({0: "forward"})
    return (out, window, rest) if save else (out, window.new_empty(0), rest.new_empty(0))


@torch.library.custom_op("stbp::chain", mutates_args=())
def _chain(
    x: Tensor, parameters: Sequence[Tensor], layout: Sequence[int], neurons: Sequence[float], save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Output of the last stage, `[T, B, ...]`, and what `stbp::chain_backward` needs, in two parts."""
    return _run(x, parameters, _stages(layout), neurons, save)


@_chain.register_fake
def _(x, parameters, layout, neurons, save):
    stages = _stages(layout)
    sizes = _saved_bytes(stages, x.shape[0], x.shape[1], True) if save else (0, 0)
    if paths.triton(x, *parameters):
        from stbp.ops.chain import gpu

        sizes = gpu.saved_bytes(stages, neurons, x.shape[0], x.shape[1], save), 0
    out = torch.empty((*x.shape[:2], *stages[-1].outputs), dtype=torch.float32, device=x.device)
    window, rest = (torch.empty(size, dtype=torch.uint8, device=x.device) for size in sizes)
    return out, window, rest


def _run_back(
    grad: Tensor,
    saved: Sequence[Tensor],
    stages: list[Stage],
    neurons: Sequence[float],
    needs: Sequence[bool],
) -> list[Tensor]:
    x, window, rest, *parameters = saved
    if x.is_cuda or paths.triton(x, *parameters):
        from stbp.ops.chain import gpu

        return gpu.backward(grad, x, window, parameters, stages, neurons, needs)
    call = _Call(x, stages, parameters, neurons)
    grads = [torch.empty(t.shape if need else 0, **_FLOAT) for t, need in zip((x, *parameters), needs, strict=True)]
    if not grad.numel():
        return [g.zero_() for g in grads]
    grad = grad.contiguous()
    call.window.grad = grad.data_ptr()
    call.place(window, rest, True)
    if needs[0]:
        call.window.grad_current = grads[0].data_ptr()
    given = zip(grads[1:], needs[1:], strict=True)
    for row, stage in zip(call.rows, stages, strict=True):
        for part in ("weight",) * (stage.kind != CURRENT) + ("bias",) * stage.bias:
            tensor, need = next(given)
            setattr(row, f"grad_{part}", tensor.data_ptr() if need else None)
    call.run("stbp_chain_backward")
    call.note({1: "weight", 2: "input"})
    return grads


@torch.library.custom_op("stbp::chain_backward", mutates_args=())
def _chain_backward(
    grad: Tensor,
    x: Tensor,
    window: Tensor,
    rest: Tensor,
    parameters: Sequence[Tensor],
    layout: Sequence[int],
    neurons: Sequence[float],
    needs: Sequence[bool],
) -> list[Tensor]:
    """Gradients of x (where it is a current) and the parameters, each an empty tensor where `needs` says so."""
    return _run_back(grad, [x, window, rest, *parameters], _stages(layout), neurons, needs)


@_chain_backward.register_fake
def _(grad, x, window, rest, parameters, layout, neurons, needs):
    tensors = zip((x, *parameters), needs, strict=True)
    return [torch.empty(t.shape if need else 0, dtype=torch.float32, device=grad.device) for t, need in tensors]


def _setup(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, parameters, ctx.layout, ctx.neurons, _ = inputs
    ctx.save_for_backward(x, *output[1:], *parameters)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple:
    x, window, rest, *parameters = ctx.saved_tensors
    if grad is None:
        return None, [None] * len(parameters), None, None, None
    needs = [ctx.needs_input_grad[0], *ctx.needs_input_grad[1]]
    grads = _chain_backward(grad, x, window, rest, parameters, ctx.layout, ctx.neurons, needs)
    found = [g if need else None for g, need in zip(grads, needs, strict=True)]
    return found[0], found[1:], None, None, None


_chain.register_autograd(_backward, setup_context=_setup)


class _Direct(torch.autograd.Function):
    """`stbp::chain` without the dispatcher, whose Python layers take 0.3 ms of a step: as much as the loss and half of
    the optimiser of 784-800-10."""

    @staticmethod
    def forward(ctx, stages, neurons, save, x, *parameters):
        out, window, rest = _run(x, parameters, stages, neurons, save)
        ctx.save_for_backward(x, window, rest, *parameters)
        ctx.rest = stages, neurons
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        needs = ctx.needs_input_grad[3:]
        stages, neurons = ctx.rest
        found = _run_back(grads[0], ctx.saved_tensors, stages, neurons, needs)
        return None, None, None, *(g if need else None for g, need in zip(found, needs, strict=True))


def chain(x: Tensor, stages: Sequence[Stage], parameters: Sequence[Tensor], neurons: Sequence[float]) -> Tensor:
    """A run of stages over a window; its definition is the composition of their operators (reference.py).

    Args:
        x: packed spikes `[T, B, ceil(N/8)]`, or for a first stage of kind CURRENT its current `[T, B, ...]`.
        stages: what to run, front to back.
        parameters: weight and bias of every synapse, in order, where it has them.
        neurons: of every stage: keep0 and keep1 of the forward gate, the four numbers of the backward gate, threshold,
            width of the surrogate.

    Returns:
        spikes of the last stage, `[T, B, ...]`.
    """
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *parameters))
    if type(x) is Tensor and not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()):
        out = _Direct.apply(list(stages), neurons, save, x, *parameters)
        assert isinstance(out, Tensor)
        return out
    return _chain(x, parameters, [number for stage in stages for number in stage], neurons, save)[0]


# The neurons of a stage that has none.
_NO_NEURON = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]


def synapse(bits: Tensor, stage: Stage, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The current `[T, B, ...]` that a synapse alone makes of packed spikes; a frame's sum is the same in any window.

    The kernel behind `stbp::linear` and `stbp::conv2d`, not an operator of its own: it has no autograd.
    """
    stage = stage._replace(fires=0, complement=0)
    call = _Call(bits, [stage], [weight] if bias is None else [weight, bias], _NO_NEURON)
    out = torch.empty((*bits.shape[:2], *stage.outputs), **_FLOAT)
    if out.numel():
        call.window.out = out.data_ptr()
        call.run("stbp_chain_forward")
        call.note({0: "forward"}, _NAMES[stage.kind])
    return out


def synapse_backward(
    grad: Tensor, bits: Tensor, stage: Stage, weight: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias of `synapse`, each an empty tensor where `needs` says so."""
    stage = stage._replace(fires=0, complement=0, bias=0)
    call = _Call(bits, [stage], [weight], _NO_NEURON)
    grads = [
        torch.empty(shape if need else 0, **_FLOAT)
        for shape, need in zip((weight.shape, weight.shape[:1]), needs, strict=True)
    ]
    if not grad.numel():
        return grads[0].zero_(), grads[1].zero_()
    grad = grad.contiguous()
    call.window.grad = grad.data_ptr()
    for name, tensor, need in zip(("grad_weight", "grad_bias"), grads, needs, strict=True):
        setattr(call.rows[0], name, tensor.data_ptr() if need else None)
    call.run("stbp_chain_backward")
    call.note({1: "weight"}, _NAMES[stage.kind])
    return grads[0], grads[1]
