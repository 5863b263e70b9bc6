"""The optimiser of a training, and its learning rate, a number or a tensor that a recorded step reads."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from stbp.config import Optimizer

# From parameters to their optimiser.
Make = Callable[[Iterator[torch.nn.Parameter]], torch.optim.Optimizer]


def optimizer(asked: Optimizer, net: torch.nn.Module, rate: Tensor | None) -> torch.optim.Optimizer:
    """The optimiser; one whose learning rate is a tensor, `rate`, can be recorded."""
    if asked.optimizer == "adam":
        lr, recorded = (asked.learning_rate, False) if rate is None else (rate, rate.is_cuda)
        decay = asked.weight_decay
        kind = torch.optim.AdamW if decay else torch.optim.Adam
        adam = kind(net.parameters(), lr=lr, fused=True, capturable=recorded, weight_decay=decay)
        adam._warned_capturable_if_run_uncaptured = True  # some steps are not recorded, which is meant
        return adam
    return torch.optim.SGD(net.parameters(), lr=asked.learning_rate, momentum=asked.momentum or 0.0)


def set_rates(optimizer: torch.optim.Optimizer, rates: list[float]) -> None:
    """Set the learning rate of each group of parameters for the next step."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def bind_rate(optimizer: torch.optim.Optimizer, rate: Tensor) -> None:
    """Let the optimiser read its learning rate from the tensor again, of which loading its state made a copy."""
    for group in optimizer.param_groups:
        group["lr"] = rate
