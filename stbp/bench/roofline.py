"""Work of a training step of ours on a GPU, moves and products, and the least time for it at measured rates.

Counted from the network alone, as `stbp.ops.chain.gpu` works: a product per synapse whose result the neurons read and
overwrite with their potentials, spikes packed, and unpacked to a byte each for a product (their number in a pooled
area). What caches save is not counted off, what padding and small kernels cost
is not counted on: a bound to compare with, not a prediction.
"""

import math
from dataclasses import dataclass

import torch

from stbp.bench.subject import Task
from stbp.nn.plan import Synapse, piece
from stbp.ops.stage import Neuron

PARTS = 3  # bfloat16 numbers that a float32 weight is split into
CURRENT = 4 + 4 + 4 + 1 / 8  # bytes forward: written by the product, read, potential written, spike packed
GRADIENT = 4 + 4 + 4  # bytes backward: of the spike, potential, of the current
COUNT = 2 * 2  # bytes of an input: its count written and read, in both passes
OPTIMIZER = 4 + 4 + 4 + 28  # bytes of a parameter: read forward and backward, its gradient, Adam's reads and writes


@dataclass(frozen=True)
class Work:
    """Work of one training step."""

    # Read from and written to the device's memory.
    bytes: float
    # Multiplications and additions, in bfloat16 (spikes and weights) and in float32 (gradients of inputs).
    bfloat16: float
    float32: float


@dataclass(frozen=True)
class Rates:
    """Rates of a device, measured: bytes moved by a copy, operations of a large product, each in a second."""

    bytes: float
    bfloat16: float
    float32: float


def work(task: Task) -> Work:
    """Work of one step of a network on packed spikes, encoder and loss left out."""
    frames = task.T * task.batch
    x: torch.Tensor = torch.zeros(1, 1, *task.shape)
    moved = 2.0 * frames * math.ceil(x.numel() / 8)  # packed input, read by both passes
    bfloat16, float32, first = 0.0, 0.0, True
    for layer in task.build():
        before, part = x, piece(layer)
        with torch.no_grad():
            x = layer(x)
        if isinstance(part, Synapse):
            macs = frames * x.numel() * math.prod(part.weight[1:])
            bfloat16 += 2 * 2 * PARTS * macs  # current, and gradient of the weight
            moved += COUNT * frames * before.numel()
            moved += OPTIMIZER * sum(p.numel() for p in layer.parameters())
            moved += 4 * frames * x.numel()  # the current's gradient, read for the weight's
            if not first:
                float32 += 2 * macs
                moved += frames * 4 * (x.numel() + before.numel())  # the same for the input's, which is written
            first = False
        elif isinstance(part, Neuron):
            moved += frames * x.numel() * (CURRENT + GRADIENT)
    return Work(moved, bfloat16, float32)


def least_seconds(found: Work, rates: Rates) -> dict[str, float]:
    """Seconds that the memory, and that the products take at those rates: a step takes at least the longer."""
    return {
        "memory": found.bytes / rates.bytes,
        "products": found.bfloat16 / rates.bfloat16 + found.float32 / rates.float32,
    }
