"""Activity of a network's neurons in a window: for plots, health, penalties; of any module that holds our layers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stbp.nn.plan import speaks_for
from stbp.ops import dispatch
from stbp.ops.spikes import Spikes


class Trace(NamedTuple):
    """One neuron layer's activity in a window."""

    # Name of the layer in its network, as in `state_dict`: `1`, `body.3`.
    layer: str
    # The layer itself.
    neurons: torch.nn.Module
    # Potential, `[T, B, ...]`; None of a layer that does not tell it.
    u: Tensor | None
    # Spikes, `[T, B, ...]`.
    o: Tensor


_names: ContextVar[dict[int, str] | None] = ContextVar("names", default=None)


@contextmanager
def naming(net: torch.nn.Module) -> Iterator[None]:
    """Inside, records of what ran name layers as `net` does, also those that stand in no `Network`."""
    token = _names.set({id(module): name for name, module in net.named_modules()})
    handles: list[Any] = []
    chained = {id(module) for part in net.modules() if isinstance(part, torch.nn.Sequential) for module in part}
    for name, module in net.named_modules():
        if id(module) not in chained and not any(True for _ in module.children()):
            handles += _name_calls(module, name)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        _names.reset(token)


def _name_calls(module: torch.nn.Module, name: str) -> list[Any]:
    """Let whatever runs inside a call of the module be recorded under its name."""
    called: list[Any] = []

    def before(module: torch.nn.Module, inputs: object) -> None:
        called.append(dispatch.layer(name))
        called[-1].__enter__()

    def after(module: torch.nn.Module, inputs: object, output: object) -> None:
        called.pop().__exit__(None, None, None)

    before.tap = after.tap = True  # pyright: ignore[reportFunctionMemberAccess]
    return [module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=True)]


def name_of(module: torch.nn.Module, default: str) -> str:
    """Name of a layer inside `naming`; the default outside."""
    return (_names.get() or {}).get(id(module), default)


Tap = Callable[[str, torch.nn.Module, Any, Tensor], None]


def neuron_layers(net: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Layers of neurons by name: those that can tell what they do by `trace`."""
    return {name: module for name, module in net.named_modules() if hasattr(module, "trace")}


def synapses(net: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Layers of synapses by name, ours and torch's: each has a weight for every pair of an output and an input."""
    return {
        name: module
        for name, module in net.named_modules()
        if isinstance(weight := getattr(module, "weight", None), Tensor) and weight.dim() >= 2
    }


@contextmanager
def tapped(net: torch.nn.Module, tap: Tap, layers: Mapping[str, torch.nn.Module] | None = None) -> Iterator[None]:
    """Inside, `tap(name, layer, x, o)` is called with input and output of each of the layers, in their order.

    Args:
        layers: by name; those of neurons by default.

    The layers run one by one: fused, they keep what they do to themselves. The values are the same.
    """
    handles = []
    for name, module in (neuron_layers(net) if layers is None else layers).items():

        def hook(module: torch.nn.Module, inputs: tuple[Any, ...], o: Tensor, name: str = name) -> None:
            tap(name, module, inputs[0], o)

        hook.tap = True  # pyright: ignore[reportFunctionMemberAccess]
        handles.append(module.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(net: torch.nn.Module) -> Iterator[None]:
    """Inside, the network is in evaluation mode: nothing is dropped, no running mean moves."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def record(net: torch.nn.Module, x: Tensor | Spikes) -> list[Trace]:
    """Potential and spikes of every neuron layer for a window that starts at rest; evaluation mode, no gradient.

    Args:
        net: a `Network` or any module that holds our layers.
        x: its input, `[T, B, ...]`.
    """
    traces: list[Trace] = []

    def tap(name: str, module: torch.nn.Module, x: Tensor, o: Tensor) -> None:
        if speaks_for("trace", type(module)) and "forward" not in vars(module):
            traces.append(Trace(name, module, *module.trace(x)))  # pyright: ignore[reportCallIssue]
        else:
            traces.append(Trace(name, module, None, o))

    with evaluating(net), tapped(net, tap):
        net(x)
    return traces


def spikes_of(net: torch.nn.Module, x: Tensor | Spikes) -> tuple[Tensor, list[Tensor]]:
    """Output, and the spikes of every neuron layer, in order; gradients flow through all of them."""
    spikes: list[Tensor] = []
    with tapped(net, lambda name, module, x, o: spikes.append(o)):
        o = net(x)
    return o, spikes


def describe(net: torch.nn.Module, name: str) -> str:
    """A layer in words, such as `layer 2 (Linear 800-10)` or `layer body.3 (LIF behind Linear 800-10)`."""
    return f"layer {name} ({_kind(net, name)})"


def _kind(net: torch.nn.Module, name: str) -> str:
    module = net.get_submodule(name)
    if hasattr(module, "title"):
        return module.title()  # pyright: ignore[reportCallIssue]
    parent, _, index = name.rpartition(".")
    if hasattr(module, "trace") and index.isdecimal() and int(index) > 0:
        before = f"{parent}.{int(index) - 1}" if parent else str(int(index) - 1)
        return f"{type(module).__name__} behind {_kind(net, before)}"
    return type(module).__name__
