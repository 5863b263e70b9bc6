"""A chain on a GPU: per stage one product, into whose result the neurons write their potentials, and one launch of the
neurons, which leave packed spikes. No layer's spikes or currents outlive the stage behind it."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stbp.ops import dispatch
from stbp.ops.neuron import gpu as lif
from stbp.ops.stage import Neuron, Stage
from stbp.ops.synapse import gpu as synapse
from stbp.ops.synapse.gpu import Geometry, counts

_ALIGNED = 16  # bytes


class _Layer(NamedTuple):
    """A stage, its parameters, and where it keeps what the backward pass asks for."""

    stage: Stage
    neuron: Neuron
    weight: Tensor | None
    bias: Tensor | None
    kept: Tensor | None  # potentials or words of bits
    bits: Tensor | None  # spikes

    @property
    def outputs(self) -> int:
        return math.prod(self.stage.outputs)

    @property
    def scale(self) -> float:
        return 1 / self.stage.pool**2

    @property
    def size(self) -> tuple[int, int, int]:
        """Maps in front of the pooling."""
        return self.stage.C, self.stage.H, self.stage.W

    @property
    def geometry(self) -> Geometry:
        C, height, width = self.stage.C, self.stage.H // self.stage.pool, self.stage.W // self.stage.pool
        if self.stage.kind == "linear":
            return Geometry(C * height * width, 1, 1, 1, 1, 1, 1, 0)
        return Geometry.of((C, height, width), self.stage.k, self.stage.stride, self.stage.pad)


def _neuron(stage: Stage) -> Neuron:
    assert stage.neuron is not None
    return stage.neuron


def _bytes(stages: Sequence[Stage], T: Any, B: Any, save: bool) -> list[tuple[Any, Any]]:
    """Bytes that each stage leaves behind: potentials or words of bits; spikes."""
    sizes = []
    for i, stage in enumerate(stages):
        N = math.prod(stage.outputs)
        bits = lif.keeps_bits(T, _neuron(stage))
        kept = (8 * lif.words(T) if bits else 4 * T) * B * N if save else 0
        spikes = T * B * ((N + 7) // 8) if i < len(stages) - 1 else 0
        sizes.append(tuple((size + _ALIGNED - 1) // _ALIGNED * _ALIGNED for size in (kept, spikes)))
    return sizes


def saved_bytes(stages: Sequence[Stage], T: Any, B: Any, save: bool) -> Any:
    """Bytes of what is saved; T and B are numbers, symbolic ones under torch.compile."""
    return sum(itertools.chain.from_iterable(_bytes(stages, T, B, save)))


def _layers(
    x: Tensor,
    saved: Tensor,
    stages: Sequence[Stage],
    parameters: Sequence[Tensor],
    save: bool,
) -> Iterator[_Layer]:
    T, B = x.shape[:2]
    given, at = iter(parameters), 0
    for i, (stage, (kept, spikes)) in enumerate(zip(stages, _bytes(stages, T, B, save), strict=True)):
        neuron = _neuron(stage)
        weight, bias = next(given) if stage.kind != "current" else None, next(given) if stage.bias else None
        parts = saved[at : at + kept], saved[at + kept : at + kept + spikes]
        at += kept + spikes
        N = math.prod(stage.outputs)
        words = lif.keeps_bits(T, neuron)
        shape = (2, lif.words(T), B, N) if words else (T, B, N)
        held = parts[0].view(torch.int32 if words else torch.float32)[: math.prod(shape)].view(shape) if save else None
        row = (N + 7) // 8
        bits = parts[1][: T * B * row].view(T, B, row) if i < len(stages) - 1 else None
        yield _Layer(stage, neuron, weight, bias, held, bits)


def _currents(layer: _Layer, x: Tensor) -> Tensor:
    """Currents `[T, B, outputs]` of packed spikes; if the neurons keep potentials, in the memory of these."""
    shape = (*x.shape[:2], layer.outputs)
    out = layer.kept
    if out is None or out.dtype != torch.float32:
        out = torch.empty(shape, dtype=torch.float32, device=x.device)
    assert layer.weight is not None
    seen = counts(x, layer.size, layer.stage.pool)
    return synapse.forward(seen, layer.weight, layer.bias, layer.geometry, layer.scale, out)


def forward(x: Tensor, parameters: Sequence[Tensor], stages: Sequence[Stage], save: bool) -> tuple[Tensor, Tensor]:
    """Output of the last stage, `[T, B, ...]`, and what the backward pass needs."""
    T, B = x.shape[:2]
    out = torch.empty((T, B, *stages[-1].outputs), dtype=torch.float32, device=x.device)
    saved = torch.empty(saved_bytes(stages, T, B, save), dtype=torch.uint8, device=x.device)
    if not out.numel():
        return out, saved
    for layer in _layers(x, saved, stages, parameters, save):
        if layer.stage.kind == "current":
            current = x.reshape(T, B, layer.outputs)
        else:
            current = _currents(layer, x)
        target = {"o": out} if layer.bits is None else {"bits": layer.bits}
        size, strides = (T, B, layer.outputs), lif.Strides(*current.stride())
        lif.launch_forward(current, size, strides, layer.neuron, layer.kept, **target)
        _note(layer.stage, "forward")
        x = out if layer.bits is None else layer.bits
    return out, saved


def backward(
    grad: Tensor,
    x: Tensor,
    saved: Tensor,
    parameters: Sequence[Tensor],
    stages: Sequence[Stage],
    needs: Sequence[bool],
) -> list[Tensor]:
    """Gradients of x (where it is a current) and the parameters, each an empty tensor where `needs` says so."""
    tensors = zip((x, *parameters), needs, strict=True)
    grads = [torch.empty(t.shape if need else 0, dtype=torch.float32, device=grad.device) for t, need in tensors]
    if not grad.numel():
        return [g.zero_() for g in grads]
    T, B = x.shape[:2]
    layers = list(_layers(x, saved, stages, parameters, True))
    place = len(grads)  # of a stage's parameters, from the last one
    behind = (1, 1, 1)
    for i, layer in reversed(list(enumerate(layers))):
        eps = torch.empty((T, B, layer.outputs), dtype=torch.float32, device=grad.device)
        flat = grad.reshape(T, B, -1)
        assert layer.kept is not None
        size, strides = (T, B, layer.outputs), lif.Strides(*flat.stride())
        lif.launch_backward(flat, size, strides, layer.neuron, layer.kept, eps, pooled=behind)
        _note(layer.stage, "input")
        if layer.stage.kind == "current":
            grads[0] = eps.view(x.shape)
            return grads
        assert layer.weight is not None
        frames = eps.view(T * B, *layer.stage.outputs)
        place -= 1 + layer.stage.bias
        if needs[place]:
            before = layers[i - 1].bits if i else x
            assert before is not None
            seen = counts(before, layer.size, layer.stage.pool)
            grads[place] = synapse.weight_gradient(seen, frames, tuple(layer.weight.shape), layer.geometry, layer.scale)
            _note(layer.stage, "weight")
        if layer.stage.bias and needs[place + 1]:
            grads[place + 1] = frames.sum((0, *range(2, frames.dim())))
        if i:
            grad = synapse.input_gradient(frames, layer.weight, layer.geometry)
            behind = (layer.stage.pool, layer.stage.H, layer.stage.W)
    return grads


def _note(stage: Stage, step: str) -> None:
    name = "lif" if step == "input" or stage.kind == "current" else (stage.kind)
    dispatch.note(name, step, "triton", layer=stage.layer)
