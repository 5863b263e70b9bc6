"""What a chain is: the composition of the operators that it stands for, stage by stage."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stbp.ops.chain.call import CURRENT, LINEAR, Stage
from stbp.ops.neuron import reference as lif
from stbp.ops.synapse import conv2d_reference as conv2d
from stbp.ops.synapse import linear_reference as linear
from stbp.ops.synapse import pool_reference as pool


def chain(x: Tensor, stages: Sequence[Stage], parameters: Sequence[Tensor], neurons: Sequence[float]) -> Tensor:
    """Output spikes of the last stage, `[T, B, ...]`.

    Args:
        x: spikes or, for a first stage of kind CURRENT, currents, dense: `[T, B, N]` or `[T, B, C, H, W]`.
        stages, parameters, neurons: as `stbp.ops.chain.op.chain`.
    """
    given = iter(parameters)
    for i, stage in enumerate(stages):
        if stage.kind != CURRENT:
            x = x.reshape(*x.shape[:2], stage.C, stage.H, stage.W)
            x = pool.avg_pool2d(x, stage.pool) if stage.pool > 1 else x
            weight, bias = next(given), next(given) if stage.bias else None
            if stage.kind == LINEAR:
                x = linear.linear(x.flatten(2), weight, bias)
            else:
                x = conv2d.conv2d(x, weight, bias, 1, stage.pad)
        keep0, keep1, *_, threshold, _ = neurons[8 * i : 8 * i + 8]
        rest = torch.zeros_like(x[0])
        _, x = lif.lif(x, rest, rest, lif.Gate(keep0, keep1, 0.0, 0.0), threshold)
    return x
