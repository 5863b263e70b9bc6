"""The optimisers of an experiment; their learning rate, a number or a tensor that a recorded step reads; averages."""

import torch
from torch import Tensor

from stbp.config import Experiment


def optimizer(experiment: Experiment, net: torch.nn.Module, rate: Tensor | None) -> torch.optim.Optimizer:
    """The experiment's optimiser; one whose learning rate is a tensor, `rate`, can be recorded."""
    if experiment.optimizer == "adam":
        lr, recorded = (experiment.learning_rate, False) if rate is None else (rate, rate.is_cuda)
        decay = experiment.weight_decay
        kind = torch.optim.AdamW if decay else torch.optim.Adam
        adam = kind(net.parameters(), lr=lr, fused=True, capturable=recorded, weight_decay=decay)
        adam._warned_capturable_if_run_uncaptured = True  # some steps are not recorded, which is meant
        return adam
    return torch.optim.SGD(net.parameters(), lr=experiment.learning_rate, momentum=experiment.momentum or 0.0)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def bind_rate(optimizer: torch.optim.Optimizer, rate: Tensor) -> None:
    """Let the optimiser read its learning rate from the tensor again, of which loading its state made a copy."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def blend(experiment: Experiment, step: int) -> float:
    """The weight of step `step`, from 1, in the average of the weights: sum_s d^(step-s) w_s / sum_s d^(step-s)."""
    decay = experiment.average
    return 0.0 if decay is None else (1 - decay) / (1 - decay**step)
