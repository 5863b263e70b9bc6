"""Layers over a time window `[T, B, ...]`, networks of them, and `build` for the paper's notation."""

from stbp.nn.build import build
from stbp.nn.init import initialise
from stbp.nn.layers import LIF, AvgPool2d, Conv2d, Flatten, Linear
from stbp.nn.network import Network, Trace

__all__ = ["LIF", "AvgPool2d", "Conv2d", "Flatten", "Linear", "Network", "Trace", "build", "initialise"]
