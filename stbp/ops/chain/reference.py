"""The definition of a chain: the composition of the operators that it stands for, stage by stage."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stbp.ops.neuron import reference as lif
from stbp.ops.stage import Stage
from stbp.ops.synapse import conv2d_reference as conv2d
from stbp.ops.synapse import linear_reference as linear
from stbp.ops.synapse.pool import avg_pool2d


def chain(x: Tensor, stages: Sequence[Stage], parameters: Sequence[Tensor]) -> Tensor:
    """Return the output of the last stage, `[T, B, ...]`.

    Args:
        x: spikes or, for a first stage of kind `current`, currents, dense: `[T, B, N]` or `[T, B, C, H, W]`.
        stages, parameters: as `stbp.ops.chain.op.chain`.
    """
    given = iter(parameters)
    for stage in stages:
        if stage.kind != "current":
            x = x.reshape(*x.shape[:2], stage.C, stage.H, stage.W)
            x = avg_pool2d(x, stage.pool) if stage.pool > 1 else x
            weight, bias = next(given), next(given) if stage.bias else None
            if stage.kind == "linear":
                x = linear.linear(x.flatten(2), weight, bias)
            else:
                x = conv2d.conv2d(x, weight, bias, stage.stride, stage.pad)
        if stage.neuron is not None:
            rest = torch.zeros_like(x[0])
            _, x = lif.lif(x, rest, rest, stage.neuron.forward_gate, stage.neuron.threshold)
    return x
