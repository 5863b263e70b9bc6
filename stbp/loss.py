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
    target = torch.nn.functional.one_hot(y, o.shape[2]).to(o.dtype)
    return (target - o.mean(0)).square().sum(1).mean() / 2


def cross_entropy(o: Float[Tensor, "T B K"], y: Int64[Tensor, " B"]) -> Float[Tensor, ""]:
    """Cross-entropy with the spike counts of the window as logits, mean over samples; not in the paper.

    Args:
        o: output spikes, `[T, B, K]`.
        y: class indices, `[B]`, in [0, K).
    """
    return torch.nn.functional.cross_entropy(o.sum(0), y)
