"""Layers over a time window `[T, B, ...]`, networks of them, and `build` for the paper's notation."""

from stbp.nn.build import build
from stbp.nn.explain import Explanation, explain
from stbp.nn.init import initialise
from stbp.nn.layers import LIF, AvgPool2d, Conv2d, Flatten, Linear
from stbp.nn.network import Frames, Network, Residual
from stbp.nn.norm import TdBatchNorm1d, TdBatchNorm2d
from stbp.nn.record import Trace, record

__all__ = [
    "LIF",
    "AvgPool2d",
    "Conv2d",
    "Explanation",
    "Flatten",
    "Frames",
    "Linear",
    "Network",
    "Residual",
    "TdBatchNorm1d",
    "TdBatchNorm2d",
    "Trace",
    "build",
    "explain",
    "initialise",
    "record",
]
