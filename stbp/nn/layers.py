"""Layers over a time window `[T, B, ...]`: neurons, synapses, pooling.

They hold parameters and constants only; a neuron's state is an argument and a result: there is nothing to reset.

A layer is asked, not recognised. One with a memory along T has `run(x, state) -> (o, state)`; neurons also have
`trace(x) -> (u, o)`. One without says `stateless = True`, and `takes_spikes = True` if it takes packed `Spikes`.
One that can be part of a fused run says by `stage()` what it does there, or why it cannot.
"""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from stbp import ops
from stbp.names import GateName, Surrogate
from stbp.nn.plan import Flat, Part, Pool, Synapse, parameters_of
from stbp.ops.neuron.op import State, check_neuron, zero_state
from stbp.ops.neuron.reference import Gate
from stbp.ops.neuron.reference import gates as gates_of
from stbp.ops.neuron.reference import lif as lif_reference
from stbp.ops.spikes import Spikes
from stbp.ops.stage import Neuron, Refused

_neuron = functools.lru_cache(maxsize=256)(Neuron.of)  # asked for in every step


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

    def stage(self) -> Part:
        """Neurons behind a synapse."""
        return Part(_neuron(self.decay, self.threshold, self.surrogate, self.width, self.gate))

    def extra_repr(self) -> str:
        return (
            f"decay={self.decay}, threshold={self.threshold}, surrogate={self.surrogate}, "
            f"width={self.width}, gate={self.gate}"
        )


class Linear(torch.nn.Linear):
    """The fully connected synapse, `[T, B, N]` to `[T, B, M]`; parameters as `torch.nn.Linear`.

    Maps `[T, B, C, H, W]` of N = C * H * W numbers are flattened.
    """

    stateless = takes_spikes = True

    def forward(self, input: Float[Tensor, "T B *N"] | Spikes) -> Float[Tensor, "T B M"]:
        return ops.linear(_flat(input), self.weight, self.bias)

    def stage(self) -> Part | Refused:
        """A linear synapse."""
        tensors = parameters_of(self)
        if isinstance(tensors, Refused):
            return tensors
        return Part(Synapse("linear", tuple(tensors[0].shape), len(tensors) == 2), tensors)

    def title(self) -> str:
        """The layer in words."""
        return f"Linear {self.in_features}-{self.out_features}"


class Conv2d(torch.nn.Module):
    """The convolutional synapse, `[T, B, C, H, W]` to `[T, B, M, H', W']`; parameters as `torch.nn.Conv2d`.

    With groups, dilation or a kernel that is not square take `torch.nn.Conv2d`, which a `Network` runs frame by frame.
    """

    stateless = takes_spikes = True
    bias: torch.nn.Parameter | None

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
        numbers = {"in_channels": in_channels, "out_channels": out_channels, "kernel_size": kernel_size}
        for name, number in {**numbers, "stride": stride, "padding": padding}.items():
            least = 0 if name == "padding" else 1
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ValueError(
                    f"{name} must be a whole number of at least {least}; got {number!r}; "
                    "for other convolutions put a torch.nn.Conv2d into the network"
                )
        self.stride, self.padding = stride, padding
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = torch.nn.Parameter(torch.empty(shape, device=device))
        self.register_parameter("bias", torch.nn.Parameter(torch.empty(out_channels, device=device)) if bias else None)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        for parameter in self.parameters():
            torch.nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Float[Tensor, "T B C H W"] | Spikes) -> Float[Tensor, "T B M H2 W2"]:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def stage(self) -> Part | Refused:
        """A convolution."""
        tensors = parameters_of(self)
        if isinstance(tensors, Refused):
            return tensors
        shape = tuple(tensors[0].shape)
        return Part(Synapse("conv2d", shape, len(tensors) == 2, self.stride, self.padding), tensors)

    def title(self) -> str:
        """The layer in words."""
        m, c, k, _ = self.weight.shape
        return f"Conv2d {c}-{m}, {k}x{k}"

    def extra_repr(self) -> str:
        m, c, k, _ = self.weight.shape
        return f"{c}, {m}, kernel_size={k}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(torch.nn.Module):
    """Average of k x k areas, stride k; no neurons."""

    stateless = takes_spikes = True

    def __init__(self, kernel_size: int):
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Float[Tensor, "T B C H W"] | Spikes) -> Float[Tensor, "T B C H2 W2"]:
        return ops.avg_pool2d(x, self.kernel_size)

    def stage(self) -> Part:
        """Pooling in front of a synapse."""
        return Part(Pool(self.kernel_size))

    def extra_repr(self) -> str:
        return str(self.kernel_size)


class Flatten(torch.nn.Module):
    """`[T, B, ...]` to `[T, B, N]`."""

    stateless = takes_spikes = True

    def forward(self, x: Tensor | Spikes) -> Float[Tensor, "T B N"] | Spikes:
        return _flat(x)

    def stage(self) -> Part:
        """Flattening in front of a linear synapse."""
        return Part(Flat())


def _flat(x: Tensor | Spikes) -> Tensor | Spikes:
    return x.flatten() if isinstance(x, Spikes) else x.flatten(2) if x.dim() > 3 else x
