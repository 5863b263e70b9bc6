"""A firing rate that gradients flow through, for a penalty on it."""

import torch
from jaxtyping import Float
from torch import Tensor

from stbp.nn.record import spikes_of
from stbp.ops.spikes import Spikes


def output_and_hidden_rate(
    net: torch.nn.Module, x: Tensor | Spikes
) -> tuple[Float[Tensor, "T B K"], Float[Tensor, ""]]:
    """Output of a window, and the mean firing rate of all hidden neurons, in spikes per neuron and step.

    The layers run one by one: fused, as in `net(x)`, they keep their spikes to themselves. The values are the same.

    Args:
        net: a network with a hidden layer of neurons and neurons at its end.
        x: input `[T, B, ...]`.
    """
    o, (*hidden, _) = spikes_of(net, x)
    return o, torch.stack([layer.sum() for layer in hidden]).sum() / sum(layer.numel() for layer in hidden)
