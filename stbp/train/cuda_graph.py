"""A training step as one CUDA graph: recorded once, replayed for every batch, so that no launch waits for Python.

Nothing in it asks the host. The images lie on the device, and what changes from step to step (which samples, learning
rate, weight of the average) stands in tables that the step reads at the place where a counter on the device points.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from stbp.config import Experiment
from stbp.data import DataSet
from stbp.data.images import ImageSet
from stbp.ops import dispatch
from stbp.ops.spikes import Spikes
from stbp.train.optimizer import blend

# A step of the optimiser: from input, labels and the weight of the step in the average to a row of numbers.
Learn = Callable[[Spikes, Tensor, Tensor], Tensor]


def check(experiment: Experiment, samples: DataSet, device: torch.device) -> ImageSet:
    """The samples, if a step on them can be recorded.

    Raises:
        ValueError: it cannot; the message says what is in the way.
    """
    e = experiment
    rules = {
        "a CUDA device, and Triton": dispatch.triton(torch.empty(0, device=device)),
        "images as data": isinstance(samples, ImageSet),
        "encoding bernoulli": e.encoding == "bernoulli",
        "no augmentation (shift, elastic, drop)": not (e.shift or e.elastic or e.drop),
        "no rate_penalty": not e.rate_penalty,
        "optimizer adam": e.optimizer == "adam",
    }
    missing = [rule for rule, kept in rules.items() if not kept]
    if missing or not isinstance(samples, ImageSet):
        raise ValueError(f"graph needs {missing[0]}; leave it away")
    return samples


class StepGraph:
    """The steps of a training on full batches of images.

    Args:
        state: the tensors that a step changes: weights, their average, the optimiser's.
        learn: what a step does with a batch; it may not wait for the device.
    """

    def __init__(
        self,
        experiment: Experiment,
        samples: ImageSet,
        steps: int,
        device: torch.device,
        state: Callable[[], list[Tensor]],
        learn: Learn,
    ):
        self.experiment, self.state, self.learn = experiment, state, learn
        self.images, self.labels = samples.images.to(device), samples.labels.to(device)
        self.order = torch.zeros(steps, experiment.batch_size, dtype=torch.int64, device=device)
        self.rates, self.blends = torch.zeros(2, steps, device=device)
        self.rate = torch.zeros((), device=device)  # for the optimiser
        self.epoch, self.counter = torch.zeros(2, 1, dtype=torch.int64, device=device)
        self.rows: Tensor | None = None
        self.replay: Callable[[], object] | None = None

    def begin(self, epoch: int, order: Tensor) -> None:
        """Lay down what the steps of an epoch, from 0, will read; samples that fill no batch are left out."""
        e, steps = self.experiment, len(self.order)
        full = order[: len(order) // e.batch_size * e.batch_size].view(-1, e.batch_size)
        self.order[: len(full)].copy_(full)
        self.rates.copy_(torch.tensor([e.learning_rate_at(epoch, step / steps) for step in range(steps)]))
        self.blends.copy_(torch.tensor([blend(e, epoch * steps + step + 1) for step in range(steps)]))
        self.epoch.fill_(epoch + 1)  # epoch 0 is kept for evaluation

    def step(self, number: int) -> Tensor:
        """Step `number` of the epoch, from 0; returns its row, which the device may still be working on."""
        if self.replay is None:
            self.replay = self._record()
        assert self.rows is not None
        self.counter.fill_(number)
        self.replay()
        return self.rows[number]

    def _record(self) -> Callable[[], object]:
        """Rehearse a step, so that kernels are compiled and libraries have their memory; undo it; record it."""
        before = [tensor.clone() for tensor in self.state()]
        with beside(self.order.device):
            columns = len(self._learn())
        self.rows = torch.zeros(len(self.order), columns, device=self.order.device)
        for tensor, value in zip(self.state(), before, strict=True):
            tensor.data.copy_(value)
        if not self.order.is_cuda:  # by Triton's interpreter, in tests
            return self._step
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph.replay

    def _step(self) -> None:
        assert self.rows is not None
        self.rows.index_copy_(0, self.counter, self._learn()[None])

    def _learn(self) -> Tensor:
        e = self.experiment
        ids = self.order.index_select(0, self.counter)[0]
        images = self.images.index_select(0, ids)
        self.rate.copy_(self.rates.index_select(0, self.counter)[0])
        bits = _encode(images.flatten(1), e, self.epoch, ids)
        x = Spikes(bits, (e.T, *images.shape))
        return self.learn(x, self.labels.index_select(0, ids), self.blends.index_select(0, self.counter)[0])


@contextlib.contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """On a stream of its own, which waits for the current one and is waited for: where a recording is rehearsed."""
    if device.type != "cuda":
        yield
        return
    here, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    stream.wait_stream(here)
    with torch.cuda.stream(stream):
        yield
    here.wait_stream(stream)


def _encode(images: Tensor, experiment: Experiment, epoch: Tensor, ids: Tensor) -> Tensor:
    from stbp.ops.encode import gpu

    return gpu.bernoulli(images, experiment.T, experiment.seed, epoch, ids)
