"""A firing rate that gradients flow through, for a penalty on it."""

import torch
from jaxtyping import Float
from torch import Tensor

from stbp import nn
from stbp.ops.spikes import Spikes


def output_and_hidden_rate(net: nn.Network, x: Tensor | Spikes) -> tuple[Float[Tensor, "T B K"], Float[Tensor, ""]]:
    """Output spikes of a window, and the mean firing rate of all hidden neurons, in spikes per neuron and step.

    The layers run one by one: fused, as in `net(x)`, they keep their spikes to themselves. The values are the same.

    Args:
        net: what `nn.build` made, with a hidden layer of neurons.
        x: input `[T, B, ...]`.
    """
    passed = nn.Flatten()(x) if net.flatten_input else x
    spikes: list[Tensor] = []
    for module in net:
        passed = module(passed)
        if isinstance(module, nn.LIF):
            spikes.append(passed)
    *hidden, o = spikes
    return o, torch.stack([layer.sum() for layer in hidden]).sum() / sum(layer.numel() for layer in hidden)
