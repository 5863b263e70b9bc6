"""`initialise`: initial weights of a network, from counter-based random numbers."""

import math
from typing import Any, get_args

import torch
from torch import Tensor

from stbp.names import Init
from stbp.nn.layers import LIF
from stbp.ops.neuron.reference import Gate
from stbp.ops.philox import BIASES, WEIGHTS, random_words
from stbp.ops.surrogate.curves import TABLE

# What `balanced` expects of a neuron layer that it has scaled is a firing rate of 0.15 (1 - decay): one in six is over
# the threshold, and who fired needs about 1/(1 - decay) steps to build the potential up again (measured in LOG.md).
HIDDEN_RATE, DRAWN = 0.15, 1 << 14  # DRAWN: random numbers at a time


def _uniform(weight: Tensor, seed: int, index: int) -> Tensor:
    """Rows as many and as long as the weight's, from U[-1, 1); drawn in parts, for their integers take much memory."""
    w = torch.empty_like(weight, memory_format=torch.contiguous_format).view(-1)
    for number, part in enumerate(w.split(DRAWN)):
        part.copy_(random_words(len(part), seed, WEIGHTS, index, number * DRAWN) * 2.0**-31 - 1)
    return w.view(len(weight), -1)


@torch.no_grad()
def initialise(
    net: torch.nn.Module, init: Init = "balanced", input_rate: float = 0.1, seed: int = 0, bias: float = 0.0
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
        net: a `Network`, or any module that holds one; layers count in the order in which they are registered.
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
    layers = [module for module in net.modules() if not any(True for _ in module.children())]
    synapses = [index for index, module in enumerate(layers) if _is_synapse(module)]
    rate = input_rate
    for index in synapses:
        module: Any = layers[index]
        w = _uniform(module.weight, seed, index)
        if init == "paper":
            w /= w.norm(dim=1, keepdim=True)
        elif init == "torch":
            w /= math.sqrt(w.shape[1])
        else:
            neuron: Any = next((m for m in layers[index:] if hasattr(m, "gate")), LIF())
            decay = neuron.gate.keep0 if isinstance(neuron.gate, Gate) else neuron.decay
            noise = rate * (1 - rate) / (1 - decay**2) + (rate / (1 - decay)) ** 2
            w *= neuron.threshold * math.sqrt(3 / (w.shape[1] * noise))  # U[-1, 1) has variance 1/3
            if index == synapses[-1] and neuron.threshold <= TABLE[neuron.surrogate].reach * neuron.width:
                w *= 0.25
            rate = HIDDEN_RATE * (1 - decay)
        module.weight.copy_(w.view_as(module.weight))
        if module.bias is not None:
            module.bias.copy_(random_words(len(module.bias), seed, BIASES, index) * (bias * 2.0**-32))


def _is_synapse(module: torch.nn.Module) -> bool:
    """Return whether a layer has a weight for each pair of an output and an input, ours or torch's."""
    weight = module._parameters.get("weight")
    return weight is not None and weight.dim() >= 2 and hasattr(module, "bias")
