"""A training step as one CUDA graph: recorded once, replayed for every batch, so that no launch waits for Python.

Nothing in it asks the host. The images lie on the device, and what changes from step to step (which samples, learning
rate, weight of the average) stands in tables that the step reads at the place where a counter on the device points.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from stbp.config import Training, Window
from stbp.data.dataset import Windows
from stbp.data.images import ImageSet
from stbp.ops import dispatch
from stbp.ops.spikes import Spikes
from stbp.train.source import Sampled, Source
from stbp.train.step import Learner


def check(training: Training, train: Source, device: torch.device) -> Sampled:
    """The training samples, if a step on them can be recorded.

    Raises:
        ValueError: it cannot; the message says what is in the way.
    """
    windows = train.samples if isinstance(train, Sampled) else None
    images = isinstance(windows, Windows) and isinstance(windows.samples, ImageSet)
    how = windows.how if isinstance(windows, Windows) else Window()
    rules = {
        "a CUDA device, and Triton": dispatch.triton(torch.empty(0, device=device)),
        "images as data": images,
        "encoding bernoulli": how.encoding == "bernoulli",
        "no augmentation (shift, elastic, drop)": not (how.shift or how.elastic or how.drop),
        "no rate_penalty": not training.rate_penalty,
        "optimizer adam": training.optimisation.optimizer == "adam",
    }
    missing = [rule for rule, kept in rules.items() if not kept]
    if missing or not isinstance(train, Sampled):
        raise ValueError(f"graph needs {missing[0]}; omit graph")
    return train


class StepGraph:
    """The steps of a training on full batches of images.

    Args:
        train: what `check` returned.
        learner: its step may not wait for the device, and its optimiser reads its learning rate from `learner.rate`.
    """

    def __init__(self, train: Sampled, learner: Learner):
        windows = train.samples
        assert isinstance(windows, Windows)
        assert isinstance(windows.samples, ImageSet)
        assert learner.rate is not None
        device, steps = train.device, train.steps
        self.windows, self.learner, self.rate = windows, learner, learner.rate
        self.images, self.labels = windows.samples.images.to(device), windows.labels.to(device)
        self.order = torch.zeros(steps, train.batch_size, dtype=torch.int64, device=device)
        self.rates, self.blends = torch.zeros(2, steps, device=device)
        self.epoch, self.counter = torch.zeros(2, 1, dtype=torch.int64, device=device)
        self.rows: Tensor | None = None
        self.replay: Callable[[], object] | None = None

    def begin(self, epoch: int, order: Tensor) -> None:
        """Lay down what the steps of an epoch, from 0, will read; samples that fill no batch are left out."""
        training, (steps, size) = self.learner.training, self.order.shape
        full = order[: len(order) // size * size].view(-1, size)
        self.order[: len(full)].copy_(full)
        first = training.optimisation.learning_rate
        self.rates.copy_(torch.tensor([first * training.rate_factor(epoch, step / steps) for step in range(steps)]))
        self.blends.copy_(torch.tensor([training.blend(epoch * steps + step + 1) for step in range(steps)]))
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
        before = [tensor.clone() for tensor in self.learner.state()]
        with beside(self.order.device):
            columns = len(self._learn())
        self.rows = torch.zeros(len(self.order), columns, device=self.order.device)
        for tensor, value in zip(self.learner.state(), before, strict=True):
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
        how = self.windows.how
        ids = self.order.index_select(0, self.counter)[0]
        images = self.images.index_select(0, ids)
        self.rate.copy_(self.rates.index_select(0, self.counter)[0])
        bits = _encode(images.flatten(1), how.T, self.windows.seed, self.epoch, ids)
        x = Spikes(bits, (how.T, *images.shape))
        return self.learner.step(x, self.labels.index_select(0, ids), self.blends.index_select(0, self.counter)[0])


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


def _encode(images: Tensor, T: int, seed: int, epoch: Tensor, ids: Tensor) -> Tensor:
    from stbp.ops.encode import gpu  # needs Triton

    return gpu.bernoulli(images, T, seed, epoch, ids)
