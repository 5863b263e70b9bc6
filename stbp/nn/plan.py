"""Which modules of a network run as one operator: `plan`."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stbp import nn
from stbp.ops import dispatch
from stbp.ops.chain.op import chain
from stbp.ops.spikes import Spikes
from stbp.ops.stage import MAX_POOL, Neuron, Refused, Stage, conv_stage, current_stage, linear_stage

_KINDS = {kind.forward: kind for kind in (nn.LIF, nn.Linear, nn.Conv2d, nn.AvgPool2d, nn.Flatten)}


class Chain(NamedTuple):
    """A run of modules as the stages of `stbp.ops.chain`."""

    stages: tuple[Stage, ...] = ()
    parameters: Sequence[Tensor] = ()
    # Modules that it stands for, from the first one given.
    length: int = 0

    def run(self, x: Tensor | Spikes) -> Tensor:
        """Output spikes of the last stage, `[T, B, ...]`."""
        return chain(x.bits if isinstance(x, Spikes) else x, self.stages, self.parameters)


# Of a module its class and what else decides whether and how it can be part of a chain.
Facts = tuple[Any, ...]


def plan(modules: Sequence[torch.nn.Module], x: Tensor | Spikes, first: int = 0) -> Chain:
    """The longest run of modules, from the first, that the kernels take as one operator.

    Such a run is [pooling] + synapse + LIF, again and again; it starts from `Spikes`, or with a LIF from a current.

    Args:
        x: the input of the first module, `[T, B, ...]`.
        first: number of the first module in its network.
    """
    packed = isinstance(x, Spikes)
    if not packed and not (modules and isinstance(modules[0], nn.LIF)):
        return Chain()
    if not (dispatch.fused(others=(x.bits,)) if isinstance(x, Spikes) else dispatch.fused(x)) or _all_watched():
        return Chain()
    facts: list[Facts] = []
    parameters: list[Tensor] = []
    for module in modules:
        own = _own(module)
        fact = _facts(module, *own)
        tensors = [p for p in own if p is not None]
        if fact is None or any(p.device.type != x.device.type or p.dtype != torch.float32 for p in tensors):
            break
        facts.append(fact)
        parameters += tensors
    stages, used, length = _plan(tuple(facts), tuple(x.shape[2:]), packed, first)
    return Chain(stages, parameters[:used], length)


def _own(module: torch.nn.Module) -> tuple[Tensor | None, Tensor | None]:
    """Weight and bias as they are registered: what is computed anew at every look, by a parametrization, is not."""
    return module._parameters.get("weight"), module._parameters.get("bias")


def _facts(module: torch.nn.Module, weight: Tensor | None, bias: Tensor | None) -> Facts | None:
    """None if it is no module of ours, one that computes something else, or one that somebody wants to see called."""
    kind = _KINDS.get(type(module).forward)
    if kind is None or "forward" in vars(module) or _watched(module):
        return None
    if isinstance(module, nn.LIF):
        return kind, float(module.decay), float(module.threshold), module.surrogate, float(module.width), module.gate
    if isinstance(module, nn.AvgPool2d):
        return kind, module.kernel_size
    if isinstance(module, nn.Linear | nn.Conv2d):
        if weight is None or "bias" not in module._parameters or (bias is not None and bias.shape != weight.shape[:1]):
            return None
        numbers = kind, weight.shape, bias is not None
        return (*numbers, module.stride, module.padding) if isinstance(module, nn.Conv2d) else numbers
    return (kind,)


def _watched(module: torch.nn.Module) -> bool:
    """Whether somebody wants to see this very module being called."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _all_watched() -> bool:
    """Whether somebody wants to see every module being called."""
    everywhere = torch.nn.modules.module
    return bool(
        everywhere._global_forward_hooks
        or everywhere._global_forward_pre_hooks
        or everywhere._global_backward_hooks
        or everywhere._global_backward_pre_hooks
    )


# Found once for a network: asking anew in every step took 0.15 ms of one of 784-800-10.
@functools.lru_cache(maxsize=256)
def _plan(
    modules: tuple[Facts, ...], size: tuple[int, ...], packed: bool, first: int
) -> tuple[tuple[Stage, ...], int, int]:
    """Stages of the chain, how many parameters are theirs, and for how many modules it stands."""
    stages: list[Stage] = []
    parameters, length, flat, pool, layer = 0, 0, False, 1, first
    stage: Stage | None = None
    for index, (kind, *numbers) in enumerate(modules):
        if kind is nn.LIF:
            if index == 0 and not packed:
                stage = _taken(current_stage(size, None))
            if stage is None:
                break
            stages.append(stage._replace(neuron=Neuron.of(*numbers), layer=str(layer)))
            parameters += 0 if stage.kind == "current" else 1 + stage.bias
            length, size, flat, pool, stage = index + 1, stage.outputs, False, 1, None
        elif stage is not None:
            break
        elif kind is nn.Flatten:
            flat = True
        elif kind is nn.AvgPool2d:
            if flat or pool > 1 or len(size) != 3 or numbers[0] > min(MAX_POOL, *size[1:]):
                break
            pool = numbers[0]
        else:
            stage = (_linear if kind is nn.Linear else _conv)(numbers, size, flat, pool, not stages)
            layer = first + index
            if stage is None:
                break
    return tuple(stages), parameters, length


def _taken(stage: Stage | Refused) -> Stage | None:
    return stage if isinstance(stage, Stage) else None


def _linear(numbers: Sequence[Any], size: tuple[int, ...], flat: bool, pool: int, first: bool) -> Stage | None:
    """The stage of a linear synapse with the pooling before it; None if sizes differ or the kernels do not take it."""
    (outputs, inputs), bias = numbers
    if first and pool == 1 and flat:  # in the order of the input: nothing to sort
        size = (math.prod(size),)
    maps, height, width = (*size, 1, 1)[:3]
    if len(size) != (3 if flat and len(size) > 1 else 1):
        return None
    if maps * (height // pool) * (width // pool) != inputs:
        return None
    return _taken(linear_stage(size, outputs, bias, pool))


def _conv(numbers: Sequence[Any], size: tuple[int, ...], flat: bool, pool: int, first: bool) -> Stage | None:
    """The same of a convolution."""
    weight, bias, stride, padding = numbers
    if flat or len(size) != 3 or size[0] != weight[1]:
        return None
    return _taken(conv_stage(size, weight, bias, stride, padding, pool))
