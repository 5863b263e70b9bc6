"""The non-spiking twin of a network: same layers, rectified linear units in place of spiking neurons, no time."""

import torch

from stbp.nn.build import build as build_spiking
from stbp.nn.layers import LIF
from stbp.nn.network import Network


def build(notation: str, seed: int = 0) -> Network:
    """An ordinary network with the synapses of `stbp.nn.build(notation)`.

    A ReLU stands behind every synapse but the last, whose outputs `[1, B, K]` are the class scores. Weights are drawn
    from PyTorch's default range, biases are 0. Its input is the image itself as a window of one step,
    `[1, B, C, H, W]`.

    Args:
        notation, seed: as for `stbp.nn.build`.

    Raises:
        ValueError: the message names the part of the notation and what is allowed.
    """
    spiking = build_spiking(notation, init="torch", seed=seed)
    modules = [torch.nn.ReLU() if isinstance(module, LIF) else module for module in spiking]
    return Network(*modules[:-1])
