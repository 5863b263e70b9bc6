"""Runs of layers that work as one operator: layers are asked for their part of a run, and the parts are joined."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stbp.ops import dispatch
from stbp.ops.chain.op import chain
from stbp.ops.spikes import Spikes
from stbp.ops.stage import Neuron, Refused, Stage, conv_stage, current_stage, linear_stage


class Pool(NamedTuple):
    """Average of k x k areas, stride k."""

    k: int


class Flat(NamedTuple):
    """Maps become one row of numbers."""


class Synapse(NamedTuple):
    """A linear synapse or a convolution: shape of the weight, and how it is moved over the maps."""

    kind: str  # `linear` or `conv2d`
    weight: tuple[int, ...]
    bias: bool
    stride: int = 1
    padding: int = 0


class Affine(NamedTuple):
    """A scale and an offset for each output of the synapse in front, which they are folded into."""


CURRENT = "its input is a current, not spikes"
Piece = Pool | Flat | Synapse | Affine | Neuron


class Part(NamedTuple):
    """Part of a layer in a run: its piece, and the tensors that go with it (weight, bias; scale, offset)."""

    piece: Piece
    tensors: tuple[Tensor, ...] = ()


class Run(NamedTuple):
    """The longest run of layers from some layer on, as stages of `stbp.ops.chain`."""

    stages: tuple[Stage, ...] = ()
    parameters: Sequence[Tensor] = ()
    # Layers that it stands for.
    length: int = 0
    # Why the layer behind the run is not part of it; empty at the end of a network.
    reason: str = ""

    def __call__(self, x: Tensor | Spikes) -> Tensor:
        """Output of the last stage, `[T, B, ...]`."""
        return chain(x.bits if isinstance(x, Spikes) else x, self.stages, self.parameters)


def plan(modules: Sequence[torch.nn.Module], x: Tensor | Spikes, names: Sequence[str] = ()) -> Run:
    """The longest run of layers, from the first, that the kernels take as one operator.

    Such a run is [pooling] + synapse + neurons, again and again; it starts from `Spikes`, or with neurons from a
    current.

    Args:
        x: input of the first layer, `[T, B, ...]`.
        names: names of the layers, for the record of what ran.
    """
    if _everything_is_watched():
        return Run(reason="a global hook is called with every layer")
    parts, ends, reason = _parts(modules, x.device.type)
    pieces = tuple(part.piece for part in parts)
    stages, used, why = _joined(pieces, tuple(x.shape[2:]), isinstance(x, Spikes))
    curves = {stage.neuron.surrogate for stage in stages if stage.neuron is not None}
    floats, bits = ((), (x.bits,)) if isinstance(x, Spikes) else ((x,), ())
    if lacking := dispatch.why_not_fused(*floats, others=bits, curves=curves):
        return Run(reason=lacking)
    length = ends[used - 1] if used else 0
    parameters = [tensor for part in parts[:used] for tensor in part.tensors]
    if names:
        layers = (names[ends[i] - 1] for i in range(used) if _names_a_stage(pieces, i))
        stages = tuple(stage._replace(layer=name) for stage, name in zip(stages, layers, strict=True))
    if why == CURRENT and isinstance(x, Tensor) and x.requires_grad:
        why = "its input needs a gradient, which packed spikes do not have"
    return Run(stages, parameters, length, why or reason)


def _names_a_stage(pieces: tuple[Piece, ...], i: int) -> bool:
    """Return whether a stage is called after piece i: after its synapse, or its neurons where it has no other."""
    return isinstance(pieces[i], Synapse) or (i == 0 and isinstance(pieces[i], Neuron))


def _parts(modules: Sequence[torch.nn.Module], device: str) -> tuple[list[Part], list[int], str]:
    """Parts of the first layers that have one, how many layers each and those before it stand for, and why no more."""
    parts: list[Part] = []
    ends: list[int] = []
    for number, module in enumerate(modules, start=1):
        part = asked(module)
        if isinstance(part, Refused):
            return parts, ends, part.reason
        for tensor in part.tensors:
            if tensor.device.type != device:
                return parts, ends, f"its weight is on {tensor.device.type}, the input on {device}"
            if tensor.dtype != torch.float32:
                return (
                    parts,
                    ends,
                    f"its weight is {str(tensor.dtype).removeprefix('torch.')}; the kernels take float32",
                )
        if not isinstance(part.piece, Affine):
            parts.append(part)
            ends.append(number)
        elif parts and isinstance(parts[-1].piece, Synapse):
            parts[-1], ends[-1] = _folded(parts[-1], *part.tensors), number
        else:
            return parts, ends, "it stands behind no synapse that it could be folded into"
    return parts, ends, ""


def _folded(synapse: Part, scale: Tensor, offset: Tensor) -> Part:
    """The synapse whose currents are scaled and moved."""
    assert isinstance(synapse.piece, Synapse)
    weight, *bias = synapse.tensors
    scaled = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    return Part(synapse.piece._replace(bias=True), (scaled, bias[0] * scale + offset if bias else offset))


def asked(module: torch.nn.Module) -> Part | Refused:
    """Answer of a layer about its part in a run, unless somebody changed or wants to see what its `forward` does."""
    if hooks := _hooks(module):
        return Refused("" if all(hasattr(hook, "tap") for hook in hooks) else "it has a hook, which sees it called")
    if not hasattr(module, "stage"):
        return Refused(f"{type(module).__name__} is not part of fused runs")
    if not speaks_for("stage", type(module)) or "forward" in vars(module):
        return Refused(f"{type(module).__name__} has a forward of its own, and no stage that goes with it")
    return module.stage()  # pyright: ignore[reportCallIssue]


def piece(layer: torch.nn.Module) -> Piece | None:
    """Piece that a layer is in a run, for whoever counts or translates a network; None if the layer does not say."""
    part = layer.stage() if hasattr(layer, "stage") else None  # pyright: ignore[reportCallIssue]
    return part.piece if isinstance(part, Part) else None


@functools.lru_cache(maxsize=1024)
def speaks_for(name: str, kind: type) -> bool:
    """Return whether what a class says by `name` goes with its `forward` and `run`: no subclass changed these alone."""

    def definer(attribute: str) -> type:
        return next((base for base in kind.__mro__ if attribute in vars(base)), object)

    return all(issubclass(definer(name), definer(method)) for method in ("forward", "run"))


def parameters_of(module: torch.nn.Module) -> tuple[Tensor, ...] | Refused:
    """Weight and, if there is one, bias as they are registered.

    What a parametrization computes anew at every look is not registered.
    """
    own = module._parameters
    weight, bias = own.get("weight"), own.get("bias")
    if weight is None or "bias" not in own:
        return Refused("its weight or bias is computed or replaced, not registered")
    if bias is None:
        return (weight,)
    if bias.shape != weight.shape[:1]:
        return Refused(f"its bias has {len(bias)} values for {len(weight)} outputs")
    return weight, bias


def _hooks(module: torch.nn.Module) -> list[object]:
    return [
        *module._forward_hooks.values(),
        *module._forward_pre_hooks.values(),
        *module._backward_hooks.values(),
        *module._backward_pre_hooks.values(),
    ]


def _everything_is_watched() -> bool:
    everywhere = torch.nn.modules.module
    return bool(
        everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks
        or everywhere._global_backward_pre_hooks
    )


class _Maps:
    """Where a run has come to: size of what comes in, and what stands between the last neurons and the next synapse."""

    def __init__(self, size: tuple[int, ...]):
        self.size, self.flat, self.pool = size, False, 1

    def pooled(self, k: int) -> str:
        """Pool, or return why not."""
        if self.flat or self.pool > 1:
            return "pooling stands behind a flattening or another pooling"
        if len(self.size) != 3 or k > min(self.size[1:]):
            return f"areas of {k}x{k} do not fit into {list(self.size)}"
        self.pool = k
        return ""

    def into(self, synapse: Synapse, first: bool) -> Stage | Refused:
        """The stage of a synapse that stands here, without its neurons."""
        if synapse.kind == "linear":
            return self._into_linear(synapse, first)
        if self.flat or len(self.size) != 3 or self.size[0] != synapse.weight[1]:
            return Refused(f"its input is {list(self.size)}, not maps of {synapse.weight[1]} channels")
        return conv_stage(self.size, synapse.weight, synapse.bias, synapse.stride, synapse.padding, self.pool)

    def _into_linear(self, synapse: Synapse, first: bool) -> Stage | Refused:
        outputs, inputs = synapse.weight
        size = self.size
        if first and self.pool == 1:  # in the order of the input: nothing to sort
            size = (math.prod(size),)
        channels, height, width = (*size, 1, 1)[:3]
        seen = channels * (height // self.pool) * (width // self.pool)
        if seen != inputs:
            return Refused(f"its input has {seen} numbers, its weight is for {inputs}")
        return linear_stage(size, outputs, synapse.bias, self.pool)


# Found once for a network: a plan is asked for in every step.
@functools.lru_cache(maxsize=256)
def _joined(pieces: tuple[Piece, ...], size: tuple[int, ...], packed: bool) -> tuple[tuple[Stage, ...], int, str]:
    """Stages of the run, how many pieces are theirs, and why the next piece is not."""
    stages: list[Stage] = []
    used, maps = 0, _Maps(size)
    stage: Stage | Refused | None = None if packed else current_stage(size, None)
    for index, piece in enumerate(pieces):
        reason = ""
        if isinstance(stage, Refused):
            reason = stage.reason
        elif isinstance(piece, Neuron):
            if stage is None:
                reason = "no synapse stands in front of the neurons"
            else:
                stages.append(stage._replace(neuron=piece))
                used, stage, maps = index + 1, None, _Maps(stages[-1].outputs)
        elif stage is not None:
            reason = "no neurons stand right behind it" if packed or stages else CURRENT
        elif isinstance(piece, Flat):
            maps.flat = True
        elif isinstance(piece, Pool):
            reason = maps.pooled(piece.k)
        elif isinstance(piece, Synapse):
            stage = maps.into(piece, not stages)
            reason = stage.reason if isinstance(stage, Refused) else ""
        if reason:
            return tuple(stages), used, reason
    return tuple(stages), used, "" if used == len(pieces) else "no neurons stand right behind it"
