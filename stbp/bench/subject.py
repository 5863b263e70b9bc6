"""Task that is timed, and subjects that do it, behind the few calls that a clock needs."""

import contextlib
import importlib.metadata
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

import stbp
from stbp import loss, nn, ops
from stbp.nn.plan import Pool, Synapse, piece
from stbp.ops import dispatch
from stbp.ops.stage import Neuron

Weights = Sequence[Tensor]  # in the order of `Network.parameters()`


@dataclass(frozen=True)
class Task:
    """A network on one kind of input, the same for every subject."""

    network: str
    T: int = 30
    batch: int = 100
    decay: float = 0.2
    threshold: float = 0.3
    width: float = 1.0

    def build(self, input_rate: float = 0.1) -> nn.Network:
        return nn.build(self.network, self.decay, self.threshold, width=self.width, input_rate=input_rate)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one frame of the input: `(N,)`, or `(C, H, W)` for a network that begins with maps."""
        first, second = self.network.split("-")[:2]
        h, w, c = (*(int(n) for n in first.split("x")), 1, 1)[:3]
        return (math.prod((h, w, c)),) if second.isdigit() else (c, h, w)

    @property
    def classes(self) -> int:
        return int(self.network.rpartition("-")[2])


@runtime_checkable
class Subject(Protocol):
    """One library's way to do a task."""

    def start(self, weights: Weights, learning_rate: float) -> None:
        """Take these weights, with an optimiser that has seen nothing."""
        ...

    def place(self, x: Tensor, y: Tensor) -> tuple[Any, Any]:
        """Dense spikes and labels as this library holds them; never timed."""
        ...

    def step(self, x: Any, y: Any) -> None:
        """One training step, zeroing of the gradients included; returns when it is done."""
        ...

    def infer(self, x: Any) -> None:
        """Forward without gradients."""
        ...

    def look(self, x: Any, y: Any) -> tuple[Tensor, list[Tensor]]:
        """Output spikes `[T, B, K]`, and the gradients in the order and layout of the weights."""
        ...

    def encode(self, images: Tensor, labels: Tensor, ids: Tensor) -> tuple[Any, Any]:
        """Input and labels for one step of an epoch, from uint8 images `[B, *shape]`, by the library's own encoder."""
        ...


Encoder = Callable[[Tensor, Tensor], Any]  # of uint8 images [B, ...] and their ids


class TorchSubject:
    """A subject that is a torch module over the window `[T, B, ...]`; `mode` wraps every call of it."""

    def __init__(
        self,
        module: torch.nn.Module,
        encoder: Encoder,
        after: Callable[[], None] = lambda: None,
        mode: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ):
        self.module, self.encoder, self.after, self.mode = module, encoder, after, mode
        self.parameters = list(module.parameters())

    def start(self, weights: Weights, learning_rate: float) -> None:
        with torch.no_grad():
            for parameter, weight in zip(self.parameters, weights, strict=True):
                parameter.copy_(weight)
        self.optimizer = torch.optim.Adam(self.parameters, lr=learning_rate, fused=True)

    def place(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, y

    def _backward(self, x: Any, y: Tensor) -> Tensor:
        with self.mode():
            o = self.module(x)
            loss.rate_mse(o, y).backward()
        self.after()
        return o

    def step(self, x: Any, y: Tensor) -> None:
        self._backward(x, y)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def infer(self, x: Any) -> None:
        with torch.no_grad(), self.mode():
            self.module(x)
        self.after()

    def look(self, x: Any, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        o = self._backward(x, y).detach()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        return o, gradients

    def encode(self, images: Tensor, labels: Tensor, ids: Tensor) -> tuple[Any, Tensor]:
        return self.encoder(images, ids), labels


Kind = Literal["ours", "variant", "dense", "peer", "bound"]


@dataclass(frozen=True)
class Entry:
    """A subject's line in the tables."""

    name: str
    # ours; ours in another way, to compare; ours with dense products; a peer; what bounds every framework with dense
    # products.
    kind: Kind
    build: Callable[[Task], Subject]
    # The package it needs besides torch.
    package: str | None = None
    # Translated for the processor as a whole before it runs: torch.compile or XLA.
    compiled: bool = False
    # How it differs from the reference, where its public interface leaves no choice.
    note: str = ""
    # Which of its kernels it takes on a device, where it chooses by itself.
    chosen: Callable[[torch.device], str] | None = None

    @property
    def by_torch(self) -> bool:
        """True if torch.compile translates it, anew for every change and for minutes."""
        return self.compiled and self.package != "spyx"

    @property
    def installed(self) -> bool:
        return self.package is None or importlib.util.find_spec(self.package) is not None

    def choice(self, device: torch.device) -> str:
        """Name of the kernel that it takes on a GPU, if it says so."""
        return self.chosen(device) if self.chosen and device.type == "cuda" else ""

    @property
    def version(self) -> str | None:
        return importlib.metadata.version(self.package) if self.package and self.installed else None


def failure(error: Exception) -> str:
    """The status of a subject that failed, on one line."""
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _ours(task: Task, mode: Callable[[], AbstractContextManager[Any]]) -> TorchSubject:
    return TorchSubject(task.build(), lambda images, ids: ops.bernoulli(images, task.T, epoch=1, sample=ids), mode=mode)


def ours(task: Task) -> TorchSubject:
    """The public interface, every sample's backward pass computed."""
    return _ours(task, dispatch.no_skip)


def ours_in_training(task: Task) -> TorchSubject:
    """The public interface as it is: samples whose gradient is zero are skipped."""
    return _ours(task, contextlib.nullcontext)


def ours_by(products: str) -> Callable[[Task], TorchSubject]:
    """On a GPU, with weights and spikes multiplied in that way: `paths.products`."""
    return lambda task: _ours(task, lambda: dispatch.products(products))


def ours_dense(task: Task) -> TorchSubject:
    """The same with the operators' references: dense products, the definition of right."""
    return _ours(task, dispatch.reference_only)


OURS, DENSE = "stbp", "stbp, dense products"
ENTRIES = (Entry(OURS, "ours", ours), Entry(DENSE, "dense", ours_dense))


def entries(peers: bool, device: str = "cpu") -> tuple[Entry, ...]:
    """All subjects on a kind of device, those of `benchmarks/peers.py` among them if asked for.

    Raises:
        ValueError: there is no checkout to take the peers from.
    """
    if not peers:
        return ENTRIES
    return (*ENTRIES, *_peers().PEERS, *(_peers().GPU_PEERS if device == "cuda" else ()))


def _peers() -> ModuleType:
    home = Path(stbp.__file__).resolve().parent.parent / "benchmarks"
    path = home / "peers.py"
    if not path.exists():
        raise ValueError(f"--peers needs a checkout of the repository, for its benchmarks/: there is no {path}")
    if str(home) not in sys.path:
        sys.path.append(str(home))
    return import_module("peers")


def stages(task: Task) -> list[torch.nn.Sequential]:
    """The synapses before each neuron layer in torch's own modules, which take `[B, ...]` frames.

    Their parameters, stage by stage, are in the order of `Network.parameters()`.
    """
    found: list[list[torch.nn.Module]] = [[]]
    for layer in task.build():
        match piece(layer):
            case Neuron():
                found.append([])
            case Synapse(kind="linear", weight=(outputs, inputs)):
                found[-1].append(torch.nn.Linear(inputs, outputs))
            case Synapse(weight=(maps, channels, k, _)):
                found[-1].append(torch.nn.Conv2d(channels, maps, k))
            case Pool(k=k):
                found[-1].append(torch.nn.AvgPool2d(k))
            case _:
                found[-1].append(torch.nn.Flatten())
    return [torch.nn.Sequential(*modules) for modules in found[:-1]]
