"""Layers over a time window `[T, B, ...]`: neurons, synapses, pooling.

They hold parameters and constants only; a neuron's state is an argument and a result: there is nothing to reset.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from stbp import ops
from stbp.names import GateName, Surrogate
from stbp.ops.neuron.op import State, check_neuron, zero_state
from stbp.ops.neuron.reference import Gate
from stbp.ops.neuron.reference import gates as gates_of
from stbp.ops.neuron.reference import lif as lif_reference
from stbp.ops.spikes import Spikes


class LIF(torch.nn.Module):
    """The iterative leaky integrate-and-fire neuron; arguments as `stbp.ops.lif`."""

    def __init__(
        self,
        decay: float = 0.2,
        threshold: float = 0.5,
        surrogate: Surrogate = "rectangle",
        width: float = 1.0,
        gate: GateName | Gate = "linear",
    ):
        super().__init__()
        check_neuron(decay, threshold, surrogate, width, gate)
        self.decay = decay
        self.threshold = threshold
        self.surrogate: Surrogate = surrogate
        self.width = width
        self.gate: GateName | Gate = gate

    def forward(self, x: Float[Tensor, "T B *N"]) -> Float[Tensor, "T B *N"]:
        """Spikes of a window that starts at rest."""
        return ops.lif(x, self.decay, self.threshold, self.surrogate, self.width, self.gate)

    def run(self, x: Float[Tensor, "T B *N"], state: State | None = None) -> tuple[Float[Tensor, "T B *N"], State]:
        """Spikes, and the state after the last step; `state` is what an earlier window ended with."""
        start = zero_state(x) if state is None else state
        return ops.lif(x, self.decay, self.threshold, self.surrogate, self.width, self.gate, state=start)

    def trace(self, x: Float[Tensor, "T B *N"]) -> tuple[Float[Tensor, "T B *N"], Float[Tensor, "T B *N"]]:
        """Potential and spikes of every step, from rest, by the reference."""
        gate = self.gate if isinstance(self.gate, Gate) else gates_of(self.gate, self.decay)[0]
        return lif_reference(x, *zero_state(x), gate, self.threshold)

    def extra_repr(self) -> str:
        return (
            f"decay={self.decay}, threshold={self.threshold}, surrogate={self.surrogate}, "
            f"width={self.width}, gate={self.gate}"
        )


class Linear(torch.nn.Linear):
    """The fully connected synapse, `[T, B, N]` to `[T, B, M]`; parameters as `torch.nn.Linear`."""

    def forward(self, input: Float[Tensor, "T B N"] | Spikes) -> Float[Tensor, "T B M"]:
        return ops.linear(input, self.weight, self.bias)


class Conv2d(torch.nn.Module):
    """The convolutional synapse, `[T, B, C, H, W]` to `[T, B, M, H', W']`; parameters as `torch.nn.Conv2d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.stride, self.padding = stride, padding
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = torch.nn.Parameter(torch.empty(shape, device=device))
        self.bias = torch.nn.Parameter(torch.empty(out_channels, device=device)) if bias else None
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        for parameter in self.parameters():
            torch.nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Float[Tensor, "T B C H W"] | Spikes) -> Float[Tensor, "T B M H2 W2"]:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        m, c, k, _ = self.weight.shape
        return f"{c}, {m}, kernel_size={k}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(torch.nn.Module):
    """Average of k x k areas, stride k; no neurons."""

    def __init__(self, kernel_size: int):
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Float[Tensor, "T B C H W"] | Spikes) -> Float[Tensor, "T B C H2 W2"]:
        return ops.avg_pool2d(x, self.kernel_size)

    def extra_repr(self) -> str:
        return str(self.kernel_size)


class Flatten(torch.nn.Module):
    """`[T, B, ...]` to `[T, B, N]`."""

    def forward(self, x: Tensor | Spikes) -> Float[Tensor, "T B N"] | Spikes:
        return x.flatten() if isinstance(x, Spikes) else x.flatten(2)
