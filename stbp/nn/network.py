"""`Network`: a chain of modules over a time window `[T, B, ...]`."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stbp.nn.layers import LIF, AvgPool2d, Conv2d, Flatten, Linear
from stbp.ops import dispatch
from stbp.ops.neuron.op import State
from stbp.ops.spikes import Spikes

_FLATTEN = Flatten()
_OVER_WINDOWS = (LIF, Linear, Conv2d, AvgPool2d, Flatten)


class Trace(NamedTuple):
    """What one neuron layer did in a window: its place in the network, potential and spikes, `[T, B, ...]` each."""

    layer: int
    u: Tensor
    o: Tensor


class Network(torch.nn.Sequential):
    """A chain of modules over a window; `state_dict` keys count every module, as in `torch.nn.Sequential`.

    Modules that are not of this file get the T*B frames at once, `flatten(0, 1)`: layers of `torch.nn` fit in between.

    Args:
        flatten_input: flatten `[T, B, C, H, W]` input for a first layer that takes `[T, B, N]`.

    Raises:
        ValueError: a module that is not of this file holds one that is.
    """

    def __init__(self, *modules: torch.nn.Module, flatten_input: bool = False):
        super().__init__(*modules)
        self.flatten_input = flatten_input
        for index, module in enumerate(self):
            inside = [m for m in module.modules() if m is not module and isinstance(m, _OVER_WINDOWS)]
            if inside and not isinstance(module, _OVER_WINDOWS):
                raise ValueError(
                    f"module {index}, {type(module).__name__}, holds a {type(inside[0]).__name__}, which needs whole "
                    "windows; put the modules into the network itself, one by one"
                )

    def forward(self, input: Tensor | Spikes) -> Tensor:
        """Output spikes `[T, B, K]` of a window that starts at rest; input `[T, B, ...]`, a tensor or `Spikes`."""
        if torch.compiler.is_compiling():  # what decides on a run of layers are values: the compiler sees operators
            return self.run(input)[0]
        from stbp.nn.plan import plan  # which imports this file

        x, modules, done = self._enter(input), list(self), 0
        while done < len(modules):
            x = _packed(x)
            chain = plan(modules[done:], x, done)
            if chain.length:
                x = chain.run(x)
            else:
                module = modules[done]
                x = _apply(module, _dense(x) if isinstance(module, LIF) else x)
            done += max(1, chain.length)
        return _dense(x)

    def run(self, x: Tensor | Spikes, state: Sequence[State] | None = None) -> tuple[Tensor, list[State]]:
        """Output spikes, and the state of every neuron layer to go on from.

        Two windows in a row, the second given the state that the first returned, equal one long window, bit for bit.

        Raises:
            ValueError: `state` holds another number of layers than the network.
        """
        layers = sum(isinstance(module, LIF) for module in self)
        if state is not None and len(state) != layers:
            raise ValueError(f"state must hold one entry for each of the {layers} neuron layers; got {len(state)}")
        given: Iterator[State | None] = iter(state if state is not None else [None] * layers)
        states: list[State] = []
        x = self._enter(x)
        for module in self:
            if isinstance(module, LIF):
                x, after = module.run(_dense(x), next(given))
                states.append(after)
            else:
                x = _apply(module, x)
        return _dense(x), states

    @torch.no_grad()
    def record(self, x: Tensor | Spikes) -> list[Trace]:
        """Potential and spikes of every neuron layer for a window that starts at rest; no gradient."""
        traces, x = [], self._enter(x)
        for index, module in enumerate(self):
            if isinstance(module, LIF):
                u, x = module.trace(_dense(x))
                traces.append(Trace(index, u, x))
            else:
                x = _apply(module, x)
        return traces

    def _enter(self, x: Tensor | Spikes) -> Tensor | Spikes:
        return _FLATTEN(x) if self.flatten_input else x

    def name(self, index: int) -> str:
        """Module `index` in words, such as `layer 2 (Linear 800-10)` or `layer 3 (LIF behind Linear 800-10)`."""
        return f"layer {index} ({self._kind(index)})"

    def _kind(self, index: int) -> str:
        module = self[index]
        if isinstance(module, Linear):
            return f"Linear {module.in_features}-{module.out_features}"
        if isinstance(module, Conv2d):
            m, c, k, _ = module.weight.shape
            return f"Conv2d {c}-{m}, {k}x{k}"
        if isinstance(module, LIF) and index > 0:
            return f"LIF behind {self._kind(index - 1)}"
        return type(module).__name__


def _dense(x: Tensor | Spikes) -> Tensor:
    return x.dense() if isinstance(x, Spikes) else x


def _packed(x: Tensor | Spikes) -> Tensor | Spikes:
    """Zeros and ones into which no gradient flows as `Spikes`, for the kernels."""
    if isinstance(x, Spikes) or x.requires_grad or x.dim() < 3 or not dispatch.compiled(x):
        return x
    return Spikes.packed(x) or x


def _apply(module: torch.nn.Module, x: Tensor | Spikes) -> Tensor | Spikes:
    if isinstance(module, _OVER_WINDOWS):
        return module(x)
    frames = _dense(x)
    return module(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
