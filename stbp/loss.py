"""Losses on the output spikes `[T, B, K]` of a window."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from stbp.ops.loss import op


def rate_mse(o: Float[Tensor, "T B K"], y: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
    """The paper's loss: half the squared distance of firing rate and one-hot label, mean over samples.

    L = 1/(2S) sum_s || y_s - (1/T) sum_t o_s^t ||^2, with S = B samples. It can be differentiated once.

    Args:
        o: output spikes, `[T, B, K]`.
        y: class indices, `[B]`, in [0, K).
    """
    _check(o, y)
    return op.rate_mse(o, y)


def cross_entropy(o: Float[Tensor, "T B K"], y: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
    """Cross-entropy with the spike counts of the window as logits, mean over samples; not in the paper.

    Args:
        o: output spikes, `[T, B, K]`.
        y: class indices, `[B]`, in [0, K).
    """
    _check(o, y)
    op.check_labels(y, o.shape[2])
    return torch.nn.functional.cross_entropy(o.sum(0), y)


def _check(o: Tensor, y: Tensor) -> None:
    if o.dim() != 3 or 0 in o.shape:
        raise ValueError(f"o must be [T, B, K] with at least one step, sample and class; got {list(o.shape)}")
    if y.shape != o.shape[1:2] or y.dtype != torch.int64:
        swapped = "; time comes first: was the input [B, T, ...]? Then give x.transpose(0, 1)"
        raise ValueError(
            f"y must be int64 [{o.shape[1]}], a class index for each sample of o {list(o.shape)}; "
            f"got {y.dtype} {list(y.shape)}{swapped if y.shape == o.shape[:1] else ''}"
        )
