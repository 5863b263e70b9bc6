"""Batch normalisation for spiking networks (tdBN)."""

import torch
from jaxtyping import Float
from torch import Tensor

from stbp.nn.plan import Affine, Part
from stbp.ops.stage import Refused


class TdBatchNorm2d(torch.nn.Module):
    """Threshold-dependent batch normalisation, for maps or for numbers (Zheng et al., AAAI 2021, arXiv 2011.05280).

    y = weight * alpha * threshold * (x - mean) / sqrt(var + eps) + bias, with mean and variance of each channel over
    time, batch and space. It stands between a synapse and its neurons. In evaluation it is folded into the synapse.

    Args:
        features: number of channels, or of neurons.
        threshold: threshold of the neurons behind it.
        alpha: 1 in a chain of layers, 1/sqrt(number of branches) where branches are added.
        eps: added to the variance.
        momentum: share of a batch in the running mean and variance.

    Raises:
        ValueError: an argument out of its range.
    """

    stateless = True
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, features: int, threshold: float = 0.5, alpha: float = 1.0, eps: float = 1e-5, momentum: float = 0.1
    ):
        super().__init__()
        if features < 1:
            raise ValueError(f"features must be at least 1; got {features}")
        for name, value in {"threshold": threshold, "alpha": alpha, "eps": eps}.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be positive and finite; got {value}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1]; got {momentum}")
        self.threshold, self.alpha, self.eps, self.momentum = threshold, alpha, eps, momentum
        self.weight, self.bias = torch.nn.Parameter(torch.ones(features)), torch.nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Float[Tensor, "T B C *space"]) -> Float[Tensor, "T B C *space"]:
        if x.shape[2] != len(self.weight):
            raise ValueError(f"x must have {len(self.weight)} channels, [T, B, C, ...]; got {list(x.shape)}")
        y = torch.nn.functional.batch_norm(
            x.flatten(0, 1),
            self.running_mean,
            self.running_var,
            self.weight * (self.alpha * self.threshold),
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )
        return y.unflatten(0, x.shape[:2])

    def stage(self) -> Part | Refused:
        """In evaluation, a scale and an offset of the synapse in front."""
        if self.training:
            return Refused("in training it scales by the statistics of the batch")
        scale = self.weight * (self.alpha * self.threshold) / torch.sqrt(self.running_var + self.eps)
        return Part(Affine(), (scale, self.bias - self.running_mean * scale))

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, threshold={self.threshold}, alpha={self.alpha}"


TdBatchNorm1d = TdBatchNorm2d  # the name that goes with numbers `[T, B, N]`
