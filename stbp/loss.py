"""Losses on the output spikes `[T, B, K]` of a window."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def rate_mse(o: Float[Tensor, "T B K"], y: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
    """The paper's loss: half the squared distance of firing rate and one-hot label, mean over samples.

    L = 1/(2S) sum_s || y_s - (1/T) sum_t o_s^t ||^2, with S = B samples.

    Args:
        o: output spikes, `[T, B, K]`.
        y: class indices, `[B]`, in [0, K).
    """
    _check(o, y)
    rate = o.mean(0)
    target = torch.zeros_like(rate).scatter_(1, y[:, None], 1.0)
    return torch.nn.functional.mse_loss(rate, target, reduction="sum") / (2 * len(y))


def cross_entropy(o: Float[Tensor, "T B K"], y: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
    """Cross-entropy with the spike counts of the window as logits, mean over samples; not in the paper.

    Args:
        o: output spikes, `[T, B, K]`.
        y: class indices, `[B]`, in [0, K).
    """
    _check(o, y)
    return torch.nn.functional.cross_entropy(o.sum(0), y)


def _check(o: Tensor, y: Tensor) -> None:
    if o.dim() != 3 or 0 in o.shape:
        raise ValueError(f"o must be [T, B, K] with at least one step, sample and class; got {list(o.shape)}")
    if y.shape != o.shape[1:2] or y.dtype != torch.int64:
        raise ValueError(f"y must be int64 [{o.shape[1]}], a class index a sample; got {y.dtype} {list(y.shape)}")
    if y.device.type == "cpu":
        least, most = (int(bound) for bound in y.aminmax())
        if not 0 <= least <= most < o.shape[2]:
            raise ValueError(f"y must hold class indices in [0, {o.shape[2]}); got {least} to {most}")
