"""The work that every subject is given: batches, and weights in the middle of training."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from stbp import data, loss, ops
from stbp.bench.subject import Task, Weights
from stbp.data import ImageSet
from stbp.ops.philox import SHUFFLE, random_words

WARM_STEPS = 60  # of our own training with Adam at RATE, before anything is timed
RATE = 1e-3
PIXELS = 784  # inputs of a network that is given MNIST


@dataclass(eq=False)
class Source:
    """Where batches come from: uint8 images `[N, ...]`, Bernoulli-coded; `words` says which."""

    images: Tensor
    labels: Tensor
    words: str

    def ids(self, step: int, batch: int) -> Tensor:
        """Ids of the samples of step `step`, in the order of a first epoch."""
        start = step * batch % len(self.labels)
        return self._order[start : start + batch]

    @cached_property
    def _order(self) -> Tensor:
        return random_words(len(self.labels), 0, SHUFFLE).argsort(stable=True)

    def spikes(self, step: int, task: Task) -> tuple[Tensor, Tensor]:
        """Dense float32 spikes `[T, B, *task.shape]` and labels of a step."""
        ids = self.ids(step, task.batch)
        o = ops.bernoulli(self.images[ids].view(len(ids), *task.shape), task.T, sample=ids)
        return o.dense().contiguous(), self.labels[ids]


def images_source(images: ImageSet, name: str) -> Source:
    return Source(images.images, images.labels, f"{name}, Bernoulli-coded")


def synthetic_source(task: Task, density: float, samples: int = 1000, share: float = 0.5) -> Source:
    """Classes with rates of their own: that share of the inputs, drawn for each class, fire, all at one rate.

    Within a sample the spikes are independent in every input and step; `density` is their mean. With a share of 1 all
    classes are alike, and there is nothing to learn.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must lie in (0, 1]; got {density}")
    n, rate = math.prod(task.shape), min(1.0, density / share)
    share = density / rate  # more where the inputs would have to fire more than once a step
    words = random_words(task.classes * n, 1, SHUFFLE).view(task.classes, n)
    ranks = words.argsort(1).argsort(1)
    rates = (ranks < round(share * n)).float() * rate
    labels = torch.arange(samples) % task.classes
    return Source((rates[labels] * 255).round().to(torch.uint8), labels, f"synthetic, {100 * density:g} % iid density")


def source_of(task: Task, images: ImageSet | None, density: float) -> Source:
    """MNIST, where there is some, for a network that takes it; synthetic input of that density for others."""
    if images is not None and takes_mnist(task):
        return images_source(images, "MNIST")
    return synthetic_source(task, density)


def takes_mnist(task: Task) -> bool:
    """True if a network takes MNIST's pixels and has its classes."""
    return task.classes == 10 and math.prod(task.shape) == PIXELS


def mnist(path: str | Path | None) -> ImageSet:
    return data.load("mnist", path)[0]


def trained(task: Task, source: Source, steps: int = WARM_STEPS) -> list[Tensor]:
    """Weights after `steps` steps of our own training; the same for every subject."""
    rate = source.images.float().mean().item() / 255
    net = task.build(input_rate=max(rate, 1e-3))
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
    for step in range(steps):
        ids = source.ids(step, task.batch)
        images = source.images[ids].view(len(ids), *task.shape)
        optimizer.zero_grad()
        loss.rate_mse(net(ops.bernoulli(images, task.T, epoch=1, sample=ids)), source.labels[ids]).backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def on_grid(weights: Weights) -> list[Tensor]:
    """Weights rounded to multiples of 2^-8, so that sums of spikes and weights are exact in any order."""
    return [(256 * w).round() / 256 for w in weights]


def grid_task(task: Task) -> Task:
    """The task with a decay that is exact in every peer's parametrisation."""
    return replace(task, decay=0.5)


def folder(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        raise ValueError(f"out must name a folder, but {path} is a file")
    path.mkdir(parents=True, exist_ok=True)
    return path
