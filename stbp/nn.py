"""Modules over a time window `[T, B, ...]`, `Network`, and `build` for the paper's notation.

Modules hold parameters and constants only; a neuron's state is an argument and a result: there is nothing to reset.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from stbp import ops
from stbp.ops import paths
from stbp.ops.encode.reference import BIASES, WEIGHTS, random_words
from stbp.ops.lif.op import State, check_neuron, zero_state
from stbp.ops.lif.reference import Gate, GateName
from stbp.ops.lif.reference import gates as gates_of
from stbp.ops.lif.reference import lif as lif_reference
from stbp.ops.spikes import Spikes
from stbp.ops.surrogate import REACH, Surrogate

Init = Literal["balanced", "paper", "torch"]

# What `balanced` expects of a neuron layer that it has scaled is a firing rate of 0.15 (1 - decay): one in six is over
# the threshold, and who fired needs about 1/(1 - decay) steps to build the potential up again (measured in LOG.md).
HIDDEN_RATE, DRAWN = 0.15, 1 << 14  # DRAWN: random numbers at a time


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
        from stbp.fusion import plan  # which imports this file

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
    if isinstance(x, Spikes) or x.requires_grad or x.dim() < 3 or not paths.compiled(x):
        return x
    return Spikes.packed(x) or x


def _apply(module: torch.nn.Module, x: Tensor | Spikes) -> Tensor | Spikes:
    if isinstance(module, _OVER_WINDOWS):
        return module(x)
    frames = _dense(x)
    return module(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])


def build(
    notation: str,
    decay: float = 0.2,
    threshold: float = 0.5,
    surrogate: Surrogate = "rectangle",
    width: float = 1.0,
    gate: GateName | Gate = "linear",
    init: Init = "balanced",
    input_rate: float = 0.1,
    seed: int = 0,
    bias: float = 0.0,
) -> Network:
    """A network from the paper's notation, such as `784-800-10`, `28x28-15C5-P2-40C5-P2-300-10`, `34x34x2-800-10`.

    `28x28`, `34x34x2`: input, height x width x channels; `nCk`: n maps, k x k kernel, stride 1, no padding, then LIF;
    `Pk`: k x k average, stride k, without neurons; a number: Linear, then LIF, the last one too.

    Args:
        decay, threshold, surrogate, width, gate: the neurons, as `stbp.ops.lif`.
        init, input_rate, seed, bias: as `initialise`.

    Raises:
        ValueError: the message names the part of the notation, or the argument, and what is allowed.
    """
    check_neuron(decay, threshold, surrogate, width, gate)
    size, parts = parse(notation)
    flatten_input = isinstance(parts[0], int)
    if flatten_input:
        size = (math.prod(size),)
    modules: list[torch.nn.Module] = []
    for position, part in enumerate(parts, start=2):
        if isinstance(part, int):
            if len(size) > 1:
                modules.append(Flatten())
            modules.append(torch.nn.utils.skip_init(Linear, math.prod(size), part))
            size = (part,)
        else:
            size = _append_maps(modules, part, size, f"part {position} of network {notation!r} is {part[0]!r}")
        if not isinstance(modules[-1], AvgPool2d):
            modules.append(LIF(decay, threshold, surrogate, width, gate))
    net = Network(*modules, flatten_input=flatten_input)
    initialise(net, init, input_rate, seed, bias)
    return net


def _append_maps(
    modules: list[torch.nn.Module], part: tuple[str, int, int], size: tuple[int, ...], where: str
) -> tuple[int, ...]:
    """Append one `nCk` (maps, k) or `Pk` (0, k) to the modules; return the size `(C, H, W)` behind it."""
    _, maps, k = part
    if len(size) != 3:
        raise ValueError(
            f"{where}: it needs maps, but what comes before it is {size[0]} numbers without height and width"
        )
    c, h, w = size
    if k > min(h, w):
        raise ValueError(f"{where}: it is {k} pixels wide, but what comes before it is {h}x{w}")
    if maps:
        modules.append(torch.nn.utils.skip_init(Conv2d, c, maps, k))
        return maps, h - k + 1, w - k + 1
    modules.append(AvgPool2d(k))
    return c, h // k, w // k


def parse(notation: str) -> tuple[tuple[int, ...], list[int | tuple[str, int, int]]]:
    """Size of the input, `(N,)` or `(C, H, W)`, and the parts: a number, or `(text, maps, k)` with 0 maps for `Pk`."""
    first, *rest = notation.split("-")
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*)(?:x([1-9]\d*))?)?", first)
    if match is None:
        raise ValueError(f"part 1 of network {notation!r} is {first!r}: the input must be like 784, 28x28 or 34x34x2")
    height, width, channels = (int(group) if group else None for group in match.groups())
    assert height is not None
    size = (height,) if width is None else (channels or 1, height, width)
    parts: list[int | tuple[str, int, int]] = []
    for position, text in enumerate(rest, start=2):
        match = re.fullmatch(r"(?:(?P<maps>[1-9]\d*)C|(?P<pool>P))?(?P<n>[1-9]\d*)", text)
        if match is None:
            raise ValueError(
                f"part {position} of network {notation!r} is {text!r}: it must be like 15C5 (maps), P2 (pooling) or 300"
            )
        n = int(match["n"])
        parts.append((text, int(match["maps"] or 0), n) if match["maps"] or match["pool"] else n)
    if not parts or not isinstance(parts[-1], int):
        raise ValueError(f"network {notation!r} must end in the number of its outputs, as 10 in 784-800-10")
    return size, parts


def _uniform(weight: Tensor, seed: int, index: int) -> Tensor:
    """Rows as many and as long as the weight's, from U[-1, 1); drawn in parts, for their integers take much memory."""
    w = torch.empty_like(weight, memory_format=torch.contiguous_format).view(-1)
    for number, part in enumerate(w.split(DRAWN)):
        part.copy_(random_words(len(part), seed, WEIGHTS, index, number * DRAWN) * 2.0**-31 - 1)
    return w.view(len(weight), -1)


@torch.no_grad()
def initialise(
    net: Network, init: Init = "balanced", input_rate: float = 0.1, seed: int = 0, bias: float = 0.0
) -> None:
    """Draw all weights of the synapses from counter-based random numbers, and their biases where `bias` is not zero.

    `balanced` (the default): uniform weights of mean 0, scaled so that the potential, without reset, has a standard
    deviation of one threshold over the neurons of a layer: about one in six is over the threshold and most of the
    others are within reach of a surrogate. The last layer gets a quarter of that where a potential of 0 is within the
    surrogate's reach: it starts silent, so the loss first pulls the right class up, instead of pushing all classes
    down, out of reach, from where no gradient brings one back (LOG.md). With n inputs of rate r that fire
    independently, u = sum over past steps s of decay^s x has variance
        var(w) n (r (1 - r) / (1 - decay^2) + r^2 / (1 - decay)^2)
    Pooled neighbours mostly fire together, so an average of theirs counts as one input. (The idea is that of
    fluctuation-driven initialisation: Rossbroich, Gygax, Zenke, Neuromorph. Comput. Eng. 2, 2022.)
    `paper`: weights from U[-1, 1], each row divided by its L2 norm, whatever the threshold: at the paper's threshold of
    1.5 such a network is silent on MNIST. `torch`: PyTorch's default range, as in the authors' later code.

    Args:
        input_rate: mean value of the network's input per step, in (0, 1]; read by `balanced` alone.
        seed: in [0, 2^32).
        bias: biases are drawn from U[0, bias), which makes a network fire that its weights leave silent.

    Raises: ValueError, for an unknown name, or a rate or seed out of its range.
    """
    if init not in get_args(Init):
        raise ValueError(f"init must be one of {', '.join(get_args(Init))}; got {init!r}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must lie in [0, 2^32); got {seed}")
    if not 0 < input_rate <= 1:
        raise ValueError(f"input_rate must lie in (0, 1]: the mean input per step; got {input_rate}")
    rate = input_rate
    last = max((index for index, module in enumerate(net) if isinstance(module, Linear | Conv2d)), default=0)
    for index, module in enumerate(net):
        if not isinstance(module, Linear | Conv2d):
            continue
        w = _uniform(module.weight, seed, index)
        if init == "paper":
            w /= w.norm(dim=1, keepdim=True)
        elif init == "torch":
            w /= math.sqrt(w.shape[1])
        else:
            neuron = next((m for m in list(net)[index:] if isinstance(m, LIF)), LIF())
            decay = neuron.gate.keep0 if isinstance(neuron.gate, Gate) else neuron.decay
            noise = rate * (1 - rate) / (1 - decay**2) + (rate / (1 - decay)) ** 2
            w *= neuron.threshold * math.sqrt(3 / (w.shape[1] * noise))  # U[-1, 1) has variance 1/3
            if index == last and neuron.threshold <= REACH[neuron.surrogate] * neuron.width:
                w *= 0.25
            rate = HIDDEN_RATE * (1 - decay)
        module.weight.copy_(w.view_as(module.weight))
        if module.bias is not None:
            module.bias.copy_(random_words(len(module.bias), seed, BIASES, index) * (bias * 2.0**-32))
