"""`explain`: which kernel runs each layer of a network, or why none does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stbp.nn.record import describe, naming
from stbp.ops import dispatch
from stbp.ops.spikes import Spikes

STEPS = ("forward", "weight", "input")


@dataclass(frozen=True)
class Layer:
    """Account of how one layer was computed."""

    # Name in the network, as in `state_dict`, and in words.
    layer: str
    title: str
    # Kernel of each pass: `forward`, `weight` (its gradient), `input` (the gradient that goes down).
    kernels: dict[str, str]
    # Layers that run as one operator with it, as `0 to 3`; empty where it runs by itself.
    run: str
    # Why no kernel runs, or why it is no part of a fused run; empty where there is nothing to say.
    reason: str


@dataclass(frozen=True)
class Explanation:
    """Account of how each layer of a network was computed; as text, a table."""

    layers: tuple[Layer, ...]

    def records(self) -> list[dict[str, Any]]:
        """The same as plain dictionaries, for JSON."""
        return [{**vars(layer)} for layer in self.layers]

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", *STEPS, "fused", "why not")]
        for layer in self.layers:
            kernels = (layer.kernels.get(step, "") for step in STEPS)
            rows.append((layer.title, *kernels, layer.run, layer.reason))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )


def explain(net: torch.nn.Module, x: Tensor | Spikes) -> Explanation:
    """Run a network forward and backward once and tell, per layer, the kernel that ran or why none did.

    Parameters, buffers and torch's random numbers are as before when it returns.

    Args:
        net: a `Network`, or any module that holds our layers.
        x: its input, `[T, B, ...]`.
    """
    return explain_pass(net, lambda: net(x).sum())


def explain_pass(net: torch.nn.Module, forward: Callable[[], Tensor]) -> Explanation:
    """As `explain`, of a forward pass that gives a number, and of the pass back from it."""
    with torch.random.fork_rng(devices=[]):
        before = [buffer.clone() for buffer in net.buffers()]
        try:
            with dispatch.watch() as seen, naming(net):
                total = forward()
                parameters = [p for p in net.parameters() if p.requires_grad]
                if total.requires_grad and parameters:
                    torch.autograd.grad(total, parameters, allow_unused=True)
        finally:
            with torch.no_grad():
                for buffer, value in zip(net.buffers(), before, strict=True):
                    buffer.copy_(value)
    return _explained(net, seen)


def _explained(net: torch.nn.Module, seen: Sequence[dispatch.Path]) -> Explanation:
    """Explanation of each layer, from records of `dispatch.watch` of one pass under `naming(net)`."""
    found: list[Layer] = []
    for name, module in net.named_modules():
        of_layer = [path for path in seen if path.layer == name and name]
        inside = any(name.startswith(f"{layer.layer}.") for layer in found)
        if inside or (any(True for _ in module.children()) and not of_layer):
            continue
        kernels = {path.step: path.kernel for path in of_layer if path.operator not in ("run", "chain")}
        run = next((path.kernel for path in of_layer if path.operator == "run"), "")
        reason = next((path.reason for path in of_layer if path.reason), "")
        found.append(Layer(name, describe(net, name), kernels, run, reason))
    return Explanation(tuple(found))
