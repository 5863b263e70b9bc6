"""Stateless operators over a whole time window `[T, B, ...]`; the derivation is in README.md beside this file.

Each operator's folder holds `reference.py`, the definition of right, and `op.py`, which checks the arguments and
registers the operator with torch's dispatcher, so that a kernel for a device replaces the reference without a caller
noticing.
"""

from stbp.ops.encode.op import bernoulli, static
from stbp.ops.neuron.op import State, lif, zero_state
from stbp.ops.neuron.reference import Gate
from stbp.ops.spikes import Spikes
from stbp.ops.synapse.conv2d import conv2d
from stbp.ops.synapse.linear import linear
from stbp.ops.synapse.pool import avg_pool2d

__all__ = ["Gate", "Spikes", "State", "avg_pool2d", "bernoulli", "conv2d", "lif", "linear", "static", "zero_state"]
