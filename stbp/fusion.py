"""Which modules of a network run as one operator: `plan`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stbp import nn
from stbp.ops import paths
from stbp.ops.chain import op
from stbp.ops.chain.op import CURRENT, Stage
from stbp.ops.chain.stages import MAX_POOL, conv_stage, linear_stage
from stbp.ops.lif.reference import Gate, gates
from stbp.ops.spikes import Spikes

_FORWARD = tuple(kind.forward for kind in (nn.LIF, nn.Linear, nn.Conv2d, nn.AvgPool2d, nn.Flatten))


@dataclass
class Chain:
    """A run of modules as the stages of `stbp.ops.chain`."""

    stages: list[Stage] = field(default_factory=list)
    parameters: list[Tensor] = field(default_factory=list)
    neurons: list[float] = field(default_factory=list)
    # Modules that it stands for, from the first one given.
    length: int = 0

    def run(self, x: Tensor | Spikes) -> Tensor:
        """Output spikes of the last stage, `[T, B, ...]`."""
        return op.chain(x.bits if isinstance(x, Spikes) else x, self.stages, self.parameters, self.neurons)

    def add(self, stage: Stage, layer: int, parameters: list[Tensor], neuron: nn.LIF, length: int) -> None:
        """One more stage, of module `layer` of the network; with it the chain stands for `length` modules."""
        forward, backward = (
            (neuron.gate, neuron.gate) if isinstance(neuron.gate, Gate) else gates(neuron.gate, neuron.decay)
        )
        self.stages.append(stage._replace(surrogate=op.SURROGATES.index(neuron.surrogate), layer=layer))
        self.parameters += parameters
        self.neurons += [*forward[:2], *backward, neuron.threshold, neuron.width]
        self.length = length


def plan(modules: Sequence[torch.nn.Module], x: Tensor | Spikes, first: int = 0) -> Chain:
    """The longest run of modules, from the first, that the kernels take as one operator.

    Such a run is [pooling] + synapse + LIF, again and again; it starts from `Spikes`, or with a LIF from a current.

    Args:
        x: the input of the first module, `[T, B, ...]`.
        first: number of the first module in its network.
    """
    chain = Chain()
    size, flat, pool = tuple(x.shape[2:]), False, 1
    stage: Stage | None = None
    parameters: list[Tensor] = []
    layer = first
    if not isinstance(x, Spikes) and not (modules and isinstance(modules[0], nn.LIF)):
        return chain
    if not (paths.fused(others=(x.bits,)) if isinstance(x, Spikes) else paths.fused(x)):
        return chain
    for index, module in enumerate(modules):
        if _watched(module) or not _plain(module):
            break
        if isinstance(module, nn.LIF):
            if index == 0 and not isinstance(x, Spikes):
                stage = _current(size)
            if stage is None:
                break
            chain.add(stage, layer, parameters, module, index + 1)
            size, flat, pool, stage = stage.outputs, False, 1, None
        elif stage is not None:
            break
        elif isinstance(module, nn.Flatten):
            flat = True
        elif isinstance(module, nn.AvgPool2d):
            if flat or pool > 1 or len(size) != 3 or module.kernel_size > min(MAX_POOL, *size[1:]):
                break
            pool = module.kernel_size
        elif isinstance(module, nn.Linear | nn.Conv2d):
            stage = _synapse(module, size, flat, pool, first=not chain.stages)
            layer = first + index
            parameters = [p for p in (module.weight, module.bias) if p is not None]
            if stage is None or not paths.fused(*parameters, others=(x.bits if isinstance(x, Spikes) else x,)):
                break
        else:
            break
    return chain


def _watched(module: torch.nn.Module) -> bool:
    """Whether somebody wants to see this very module being called."""
    everywhere = torch.nn.modules.module
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks
        or everywhere._global_backward_pre_hooks
    )


def _plain(module: torch.nn.Module) -> bool:
    """Whether the module does what its class in `nn` does: no subclass of it that computes something else."""
    return "forward" not in vars(module) and type(module).forward in _FORWARD


def _current(size: tuple[int, ...]) -> Stage | None:
    if len(size) not in (1, 3) or (len(size) == 3 and size[1] * size[2] == 1):
        return None
    maps, height, width = (*size, 1, 1)[:3]
    return Stage(CURRENT, maps, height, width, 1, maps, 1, 0, height, width, 1, 0, 0, 0, 0)


def _synapse(module: nn.Linear | nn.Conv2d, size: tuple[int, ...], flat: bool, pool: int, first: bool) -> Stage | None:
    """The stage of a synapse with the pooling before it; None if the kernels do not take it, or it does not fit."""
    bias = module.bias is not None
    if isinstance(module, nn.Linear):
        if first and pool == 1 and flat:  # in the order of the input: nothing to sort
            size = (math.prod(size),)
        maps, height, width = (*size, 1, 1)[:3]
        if len(size) != (3 if flat and len(size) > 1 else 1):
            return None
        if maps * (height // pool) * (width // pool) != module.in_features:
            return None
        return linear_stage(size, module.out_features, bias, pool)
    if flat or len(size) != 3 or size[0] != module.weight.shape[1]:
        return None
    return conv_stage(size, module.weight.shape, bias, module.stride, module.padding, pool, first)
