"""stbp: training spiking neural networks directly, by backpropagation through space and time.

Wu, Deng, Li, Zhu, Shi, "Spatio-Temporal Backpropagation for Training High-Performance Spiking Neural
Networks", arXiv 1706.02609. The names below are resolved on first use; importing `stbp` imports nothing else.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stbp import data as data
    from stbp import loss as loss
    from stbp import nn as nn
    from stbp import ops as ops
    from stbp.config import Experiment as Experiment
    from stbp.experiments.run import evaluate as evaluate
    from stbp.experiments.run import fit as fit
    from stbp.nn.explain import explain as explain
    from stbp.ops.spikes import Spikes as Spikes
    from stbp.train.evaluate import load_run as load_run

__version__ = "0.1.0"

_HOME = {
    "data": "stbp.data",
    "loss": "stbp.loss",
    "nn": "stbp.nn",
    "ops": "stbp.ops",
    "Experiment": "stbp.config:Experiment",
    "Spikes": "stbp.ops.spikes:Spikes",
    "explain": "stbp.nn.explain:explain",
    "evaluate": "stbp.experiments.run:evaluate",
    "fit": "stbp.experiments.run:fit",
    "load_run": "stbp.train.evaluate:load_run",
}

__all__ = [
    "data",
    "loss",
    "nn",
    "ops",
    "Experiment",
    "Spikes",
    "evaluate",
    "explain",
    "fit",
    "load_run",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'stbp' has no attribute {name!r}")
    module, _, attribute = _HOME[name].partition(":")
    value = importlib.import_module(module)
    return getattr(value, attribute) if attribute else value


def __dir__() -> list[str]:
    return sorted([*_HOME, "__version__"])
