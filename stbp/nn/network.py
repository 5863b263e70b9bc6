"""`Network`: a chain of layers over a time window `[T, B, ...]`, and the containers that hold networks."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from stbp.nn.plan import plan, speaks_for
from stbp.nn.record import Trace, describe, name_of, record
from stbp.ops import dispatch
from stbp.ops.spikes import Spikes


class Network(torch.nn.Sequential):
    """A chain of layers over a window; `state_dict` keys count every layer, as in `torch.nn.Sequential`.

    A layer of `torch.nn` gets the T*B frames at once, `flatten(0, 1)`: it stands between ours as if there were no time.
    Every other class gets the whole window `[T, B, ...]`; `Frames(module)` gives it frames instead.
    A `Network` can be part of another one, or of any module of your own. `torch.autocast` has no effect inside.

    Raises:
        ValueError: a container of `torch.nn` holds layers that need the window.
    """

    def __init__(self, *modules: torch.nn.Module | dict[str, torch.nn.Module]):  # a dictionary: for slices
        for module in modules:
            if not isinstance(module, torch.nn.Module | dict):
                kind = type(module).__name__
                raise TypeError(f"Network takes layers one by one, Network(a, b), each a torch.nn.Module; got {kind}")
        super().__init__(*modules)  # pyright: ignore[reportArgumentType, reportCallIssue]
        for index, module in enumerate(self):
            if _is_torchs(module):
                _check_frames(module, f"layer {index}")

    def forward(self, input: Tensor | Spikes) -> Tensor:
        """Output `[T, B, ...]` of a window that starts at rest; input `[T, B, ...]`, a tensor or `Spikes`."""
        x, modules = _entered(input), list(self)
        if torch.compiler.is_compiling():  # what decides on a run of layers are values: the compiler sees operators
            for module in modules:
                x = _called(module, x)
            return _dense(x)
        with _exact(x):
            return _dense(self._fused(modules, x))

    def _fused(self, modules: list[torch.nn.Module], x: Tensor | Spikes) -> Tensor | Spikes:
        """Output of the layers, runs of them as one operator."""
        names, done = self._names(), 0
        while done < len(modules):
            x = _packed(x)
            run = plan(modules[done:], x, names[done:])
            if run.length:
                _note_run(names[done : done + run.length])
                x = run(x)
            else:
                name = names[done] if names else str(done)
                if run.reason:
                    dispatch.refuse(name, run.reason)
                with dispatch.layer(name):
                    x = _called(modules[done], x)
            done += max(1, run.length)
        return x

    def run(self, x: Tensor | Spikes, state: Sequence[Any] | None = None) -> tuple[Tensor, list[Any]]:
        """Output, and the state of every layer with a memory to go on from.

        Two windows in a row, the second given the state that the first returned, equal one long window, bit for bit.

        Raises:
            ValueError: `state` holds another number of layers than the network.
            TypeError: a layer does not say how it goes on from a state.
        """
        remembering = [module for module in self if hasattr(module, "run")]
        if state is not None and len(state) != len(remembering):
            raise ValueError(
                f"state must hold one entry for each of the {len(remembering)} layers with a memory; got {len(state)}"
            )
        given: Iterator[Any] = iter(state if state is not None else [None] * len(remembering))
        states: list[Any] = []
        x = _entered(x)
        names = self._names()
        for index, module in enumerate(self):
            with dispatch.layer(names[index] if names else ""), _exact(x):
                if hasattr(module, "run"):
                    x, after = _continued(module, x, next(given), index)
                    states.append(after)
                else:
                    _check_stateless(module, index)
                    x = _called(module, x)
        return _dense(x), states

    def record(self, x: Tensor | Spikes) -> list[Trace]:
        """As `stbp.nn.record(self, x)`: potential and spikes of every neuron layer, in order."""
        return record(self, x)

    def name(self, index: int | str) -> str:
        """A layer in words, such as `layer 2 (Linear 800-10)` or `layer 3 (LIF behind Linear 800-10)`."""
        return describe(self, str(index))

    def _names(self) -> list[str]:
        """Names of the layers for whoever watches which kernels run; none if nobody does."""
        return [name_of(module, str(index)) for index, module in enumerate(self)] if dispatch.watched() else []


class Frames(torch.nn.Module):
    """A module that knows no time, run on all T*B frames of a window at once.

    Args:
        module: maps frames `[N, ...]` to `[N, ...]`, each for itself.

    Raises:
        ValueError: it holds layers that need the window.
    """

    stateless = True

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module
        _check_frames(module, "the module", trusted=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Residual(torch.nn.Module):
    """A body and a shortcut around it, added: `body(x) + shortcut(x)`.

    End the body with a synapse (or a norm) and put neurons behind the block to add currents; end it with neurons to add
    spikes, as SEW-ResNet does (Fang et al., NeurIPS 2021), whose next layer then sees numbers 0, 1 and 2.

    Args:
        body: layers, as of a `Network`.
        shortcut: a layer or network of the same output size; the identity by default.

    Raises:
        ValueError: body and shortcut give different sizes.
    """

    takes_spikes = True

    def __init__(self, *body: torch.nn.Module, shortcut: torch.nn.Module | None = None):
        super().__init__()
        self.body = Network(*body)
        around = [] if shortcut is None else [shortcut]
        self.shortcut = shortcut if isinstance(shortcut, Network) else Network(*around)

    def forward(self, x: Tensor | Spikes) -> Tensor:
        return _sum(self.body(x), self.shortcut(x))

    def run(self, x: Tensor | Spikes, state: Sequence[Any] | None = None) -> tuple[Tensor, list[Any]]:
        """Output, and the states of body and shortcut; as `Network.run`."""
        body, shortcut = (None, None) if state is None else state
        y, after_body = self.body.run(x, body)
        z, after_shortcut = self.shortcut.run(x, shortcut)
        return _sum(y, z), [after_body, after_shortcut]


def _note_run(names: Sequence[str]) -> None:
    """Record which layers run as one operator."""
    for name in names if len(names) > 1 else ():
        dispatch.note("run", "forward", f"{names[0]} to {names[-1]}", layer=name)


def _sum(y: Tensor, z: Tensor) -> Tensor:
    if y.shape != z.shape:
        raise ValueError(f"body and shortcut must give the same size; got {list(y.shape)} and {list(z.shape)}")
    return y + z


def _entered(x: Tensor | Spikes) -> Tensor | Spikes:
    if not isinstance(x, Tensor | Spikes):
        raise TypeError(f"x must be a tensor or Spikes, [T, B, ...]; got {type(x).__name__}")
    if isinstance(x, Tensor) and not x.is_floating_point():
        raise ValueError(f"x must be floating point; got {x.dtype}: give x.float(), or stbp.Spikes.pack(x) for spikes")
    if len(x.shape) > 0 and x.shape[0] == 0:
        raise ValueError(f"x must be [T, B, ...] with at least one step; got {list(x.shape)}")
    if len(x.shape) < 3:
        raise ValueError(
            f"x must be [T, B, ...], time first, then the batch; got {list(x.shape)}: a single sample is x[:, None]"
        )
    return x


def _exact(x: Tensor | Spikes) -> AbstractContextManager[Any]:
    """No autocast inside: layers compute in the type of their parameters, as the kernels do."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _dense(x: Tensor | Spikes) -> Tensor:
    return x.dense() if isinstance(x, Spikes) else x


def _packed(x: Tensor | Spikes) -> Tensor | Spikes:
    """Zeros and ones into which no gradient flows as `Spikes`, for the kernels."""
    if isinstance(x, Spikes) or x.requires_grad or not dispatch.compiled(x):
        return x
    return Spikes.packed(x) or x


def _is_torchs(module: torch.nn.Module) -> bool:
    """Return whether torch itself wrote what the module computes."""
    return type(module).forward.__module__.startswith("torch.")


def _called(module: torch.nn.Module, x: Tensor | Spikes) -> Tensor | Spikes:
    """Output of one layer for a window that starts at rest."""
    if _is_torchs(module):
        _check_frames(module, type(module).__name__)
        frames = _dense(x)
        return module(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
    return module(x if getattr(module, "takes_spikes", False) else _dense(x))


# Layers of torch with a memory along their input, or that look at several samples at once.
_SEQUENCES = (torch.nn.RNNBase, torch.nn.MultiheadAttention, torch.nn.Transformer, torch.nn.TransformerEncoder)


def _check_frames(module: torch.nn.Module, where: str, trusted: bool = False) -> None:
    """Raise ValueError if a module that would get frames needs the window, or may need it.

    Args:
        trusted: somebody said that it takes frames, so classes of others in it are none of our business.
    """
    for part in module.modules():
        if isinstance(part, _SEQUENCES):
            raise ValueError(
                f"{where}: {type(part).__name__} has a memory of its own, frames would mix samples; wrap it in a "
                "module of yours that takes the window [T, B, ...]"
            )
        if part is module or _is_torchs(part) or (trusted and not type(part).__module__.startswith("stbp.")):
            continue
        raise ValueError(
            f"{where}, {type(module).__name__}, holds a {type(part).__name__}, which needs whole windows; use "
            "stbp.nn.Network in its place, or stbp.nn.Frames if all of it takes frames"
        )


def _check_stateless(module: torch.nn.Module, index: int) -> None:
    kind = type(module)
    if _is_torchs(module) or (hasattr(module, "stateless") and speaks_for("stateless", kind)):
        return
    raise TypeError(
        f"layer {index}, {kind.__name__}, does not say what it remembers: give it run(x, state) -> (o, state), "
        "or, if it remembers nothing from step to step, the attribute stateless = True"
    )


def _continued(module: Any, x: Tensor | Spikes, state: Any, index: int) -> tuple[Tensor, Any]:
    """Output of a layer with a memory, and its state; hooks see it called as they do in `forward`."""
    kind = type(module)
    if not speaks_for("run", kind) or "forward" in vars(module):
        raise TypeError(
            f"layer {index}, {kind.__name__}, has a forward of its own and an inherited run(x, state): "
            "give it a run that goes with its forward"
        )
    x = x if getattr(module, "takes_spikes", False) else _dense(x)
    if not (module._forward_hooks or module._forward_pre_hooks):
        return module.run(x, state)
    after: list[Any] = []

    def forward(x: Tensor | Spikes) -> Tensor:
        o, ended = module.run(x, state)
        after.append(ended)
        return o

    module.forward = forward
    try:
        return module(x), after[0]
    finally:
        del module.forward
