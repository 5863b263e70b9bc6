"""One step of training: forward, loss, backward, optimiser, average of the weights."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stbp import loss as losses
from stbp.config import Training
from stbp.nn.explain import explain_pass
from stbp.nn.record import neuron_layers
from stbp.ops.spikes import Spikes
from stbp.train.checkpoint import Checkpoint
from stbp.train.evaluate import predict, read_out
from stbp.train.health import owner
from stbp.train.optimizer import Make, bind_rate, optimizer, set_rates
from stbp.train.penalty import output_and_hidden_rate

# From the output spikes that count `[T, B, K]` and class numbers `[B]` to a scalar.
Loss = Callable[[Tensor, Tensor], Tensor]
LOSS, RIGHT, SAMPLES = range(3)  # columns of a row, before the norms of gradients and weights


class Learner:
    """A network in training, its optimiser, and the average of its weights.

    Args:
        net: maps a window `[T, B, ...]` to `[T, B, K]`; it lies on its device already.
        training: how it is trained.
        loss_of, make: a loss and an optimiser to take in place of the ones that `training` names.
        rate: a tensor on the device that holds the learning rate, for a step that is recorded.
    """

    def __init__(
        self,
        net: torch.nn.Module,
        training: Training,
        loss_of: Loss | None = None,
        make: Make | None = None,
        rate: Tensor | None = None,
    ):
        self.net, self.training, self.rate = net, training, rate
        # What is evaluated and kept: the network that learns, or one with the mean of its weights over the steps. Its
        # buffers, such as the running means of a BatchNorm, are those of the network that learns: they are means over
        # many steps already, and a mean of counters is none.
        self.kept = net if training.optimisation.average is None else copy.deepcopy(net)
        self.optimizer = optimizer(training.optimisation, net, rate) if make is None else make(net.parameters())
        groups = self.optimizer.param_groups
        given = training.optimisation.learning_rate
        self.first_rates = [given if make is None else float(group["lr"]) for group in groups]
        self.loss_of: Loss = loss_of or getattr(losses, training.loss)
        if training.rate_penalty and len(neuron_layers(net)) < 2:
            raise ValueError("rate_penalty has no effect on a network without hidden neurons; omit it")

    def step(
        self,
        x: Tensor | Spikes,
        y: Tensor,
        share: float | Tensor,
        look: Callable[[Tensor | Spikes], None] | None = None,
    ) -> Tensor:
        """One step of the optimiser; returns loss, right answers, samples and the norms of gradients and weights.

        Args:
            share: weight of this step in the average.
            look: called between backward pass and optimiser.
        """
        self.optimizer.zero_grad()
        o, batch_loss = self.loss(x, y)
        batch_loss.backward()
        if look is not None:
            look(x)
        gradients = [p.grad.norm() for p in self.net.parameters() if p.grad is not None]
        self.optimizer.step()
        with torch.no_grad():
            if self.kept is not self.net:
                for mean, weight in zip(self.kept.parameters(), self.net.parameters(), strict=True):
                    mean.lerp_(weight, share)
                for kept, live in zip(self.kept.buffers(), self.net.buffers(), strict=True):
                    kept.copy_(live)
            weights = [p.norm() for p in self.net.parameters()]
            right = (predict(o) == y).sum()
            return torch.stack([batch_loss.detach() * len(y), right, right.new_full((), len(y)), *gradients, *weights])

    def loss(self, x: Tensor | Spikes, y: Tensor) -> tuple[Tensor, Tensor]:
        """The output spikes that count, and what training makes small."""
        readout, penalty = self.training.readout, self.training.rate_penalty
        if penalty == 0:
            o = read_out(self.net(x), readout)
            return o, self.loss_of(o, y)
        all_steps, rate = output_and_hidden_rate(self.net, x)
        o = read_out(all_steps, readout)
        return o, self.loss_of(o, y) + penalty * rate

    def set_rate(self, factor: float) -> None:
        """Set the learning rate of the next step, as a multiple of the one at the start."""
        set_rates(self.optimizer, [factor * first for first in self.first_rates])

    def column(self, index: int) -> str:
        """Meaning of a column of a step's row, in words."""
        named = [(name, p) for name, p in self.net.named_parameters()]
        words = ["the loss", "the number of right answers", "the number of samples"]
        words += [f"the gradient of {self._words(name)}" for name, p in named if p.grad is not None]
        return [*words, *(self._words(name) for name, _ in named)][index]

    def _words(self, name: str) -> str:
        return f"the {name.rpartition('.')[2]} of {owner(self.net, name)}"

    def kernels(self, x: Tensor | Spikes, y: Tensor) -> list[dict[str, Any]]:
        """Kernels that run each layer in a step on this batch, forward and backward; nothing is changed by it."""
        return explain_pass(self.net, lambda: self.loss(x, y)[1]).records()

    def state(self) -> list[Tensor]:
        """All tensors that a step changes."""
        nets = [self.net] if self.kept is self.net else [self.net, self.kept]
        tensors = [t for net in nets for t in (*net.parameters(), *net.buffers())]
        return [*tensors, *(v for s in self.optimizer.state.values() for v in s.values())]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint.

        Raises:
            ValueError: the optimiser keeps something that is neither a tensor nor a number.
        """
        tensors = {f"network.{name}": tensor for name, tensor in self.kept.state_dict().items()}
        if self.kept is not self.net:
            tensors |= {f"live.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for parameter, state in self.optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, int | float):
                    value = torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)
                if value is not None and not isinstance(value, Tensor):
                    raise ValueError(
                        f"the optimiser keeps {key}, a {type(value).__name__}, which a checkpoint cannot hold; train "
                        "without out, or take another optimiser"
                    )
                if value is not None:
                    tensors[f"optimizer.{parameter}.{key}"] = value
        return tensors

    def restore(self, saved: Checkpoint) -> None:
        """Go back to the moment of a checkpoint."""
        saved.load(self.kept, "network")
        if self.kept is not self.net:
            saved.load(self.net, "live")
        state: dict[int, dict[str, Tensor | float]] = {}
        for name, tensor in saved.part("optimizer").items():
            parameter, _, key = name.partition(".")
            number = tensor.dim() == 0 and tensor.dtype in (torch.float64, torch.int64)
            state.setdefault(int(parameter), {})[key] = tensor.item() if number else tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        if self.rate is not None:
            bind_rate(self.optimizer, self.rate)
