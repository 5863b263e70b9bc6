"""Where batches come from: data sets, pairs of tensors, and `torch.utils.data`."""

import zlib
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from stbp.config import Training, Window
from stbp.data.augment import augment
from stbp.data.dataset import DataSet, Windows
from stbp.data.folds import validation_split
from stbp.data.images import ImageSet, encode
from stbp.ops.philox import SHUFFLE, random_words
from stbp.ops.spikes import Spikes

BATCH = 200  # samples labelled at once
# Input `[T, B, ...]` and labels `[B]`.
Batch = tuple[Tensor | Spikes, Tensor]
# What `fit` trains on and is tested on.
Given = DataSet | ImageSet | tuple[Tensor, Tensor] | Dataset[Any] | DataLoader[Any]


@runtime_checkable
class Source(Protocol):
    """Labelled samples, a batch at a time."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes; None where only their numbers are known."""
        ...

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        """The training batches of an epoch, from 0, in its order, from batch `first` on.

        Before a batch is made, torch's random numbers are set to what seed, epoch and batch say.
        """
        ...

    def plain(self) -> Iterator[Batch]:
        """All samples in their order, as evaluation sees them."""
        ...

    def some(self, n: int) -> Batch:
        """At most n samples, always the same, as evaluation sees them."""
        ...


def reseed(*key: int) -> None:
    """Set torch's random numbers, which Dropout draws, to what a key of whole numbers says."""
    number = zlib.crc32(" ".join(map(str, key)).encode())  # torch's CPU generator takes 32 bits of a seed
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(number)


@dataclass(frozen=True, eq=False)
class Pair:
    """A pair of tensors, from which windows are made as from a `DataSet`.

    Attributes:
        x: windows `[N, T, ...]`, float or bool; with `how` images `[N, ...]`, uint8 or float in [0, 1].
        y: `[N]`, int64, the number of each sample's class.
        how: how images become windows; None where `x` holds windows.
    """

    x: Tensor
    y: Tensor
    how: Window | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        how = self.how
        if how is not None and (how.shift or how.elastic or how.drop) and not self._are_images():
            raise ValueError(
                f"shift, elastic and drop are for images [N, C, H, W], uint8; got {self.x.dtype} {list(self.x.shape)}"
            )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def labels(self) -> Tensor:
        return self.y

    def window(self, ids: Tensor, epoch: int, device: torch.device) -> Tensor | Spikes:
        x = self.x[ids].to(device)
        if self.how is None:
            return _window(x)
        ids = ids.to(device)
        if epoch and self._are_images():
            x = augment(x, self.how, self.seed, epoch, ids)
        return encode(x, self.how, self.seed, epoch, ids)

    def _are_images(self) -> bool:
        return self.x.dtype == torch.uint8 and self.x.dim() == 4


@dataclass(frozen=True, eq=False)
class Sampled:
    """Samples of a data set by their ids."""

    samples: DataSet | Pair
    ids: Int64[Tensor, " N"]
    batch_size: int
    seed: int
    device: torch.device

    @property
    def classes(self) -> tuple[str, ...] | None:
        return None if isinstance(self.samples, Pair) else self.samples.classes

    @property
    def steps(self) -> int:
        return -(-len(self.ids) // self.batch_size)

    def __len__(self) -> int:
        return len(self.ids)

    def order(self, epoch: int) -> Int64[Tensor, " N"]:
        """The ids in the order of an epoch."""
        return self.ids[random_words(len(self.ids), self.seed, SHUFFLE, epoch).argsort(stable=True)]

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        for step, ids in enumerate(self.order(epoch).split(self.batch_size)):
            if step >= first:
                reseed(self.seed, epoch, step)
                yield self._batch(ids, epoch + 1)  # epoch 0 is kept for evaluation

    def plain(self) -> Iterator[Batch]:
        return (self._batch(ids, 0) for ids in self.ids.split(BATCH)) if len(self) else iter(())

    def some(self, n: int) -> Batch:
        return self._batch(self.ids[:n], 0)

    def _batch(self, ids: Tensor, epoch: int) -> Batch:
        return self.samples.window(ids, epoch, self.device), self.samples.labels[ids].to(self.device)


@dataclass(frozen=True, eq=False)
class Loaded:
    """Batches of a `DataLoader`, whose own order, batch size and workers they have."""

    loader: DataLoader[Any]
    seed: int
    device: torch.device
    classes = None

    @property
    def steps(self) -> int:
        return len(self.loader)

    def __len__(self) -> int:
        size = self.loader.batch_size
        most = len(self.loader.dataset) if hasattr(self.loader.dataset, "__len__") else self.steps * (size or 1)  # pyright: ignore[reportArgumentType]
        return min(most, self.steps * size) if size and self.loader.drop_last else most

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        return (self._batch(loaded) for step, loaded in enumerate(self._loaded(epoch)) if step >= first)

    def _loaded(self, epoch: int) -> Iterator[Any]:
        """Batches of an epoch as the loader gives them; torch's random numbers are set before each."""
        reseed(self.seed, epoch)
        if self.loader.generator is not None:
            self.loader.generator.manual_seed(self.seed + epoch)
        batches = iter(self.loader)
        for step in range(self.steps):
            reseed(self.seed, epoch, step)
            loaded = next(batches, None)
            if loaded is None:
                raise ValueError(f"the DataLoader ended after {step} batches; its length says {self.steps}")
            yield loaded

    def plain(self) -> Iterator[Batch]:
        with torch.random.fork_rng(devices=[]):
            reseed(self.seed)
            batches = iter(self.loader)
        return map(self._batch, batches)

    def some(self, n: int) -> Batch:
        x, y = self._first
        return x[:, :n], y[:n]

    @cached_property
    def _first(self) -> tuple[Tensor, Tensor]:
        return self._batch(next(iter(self._loaded(0)), None))

    def _batch(self, loaded: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(loaded, tuple | list) or len(loaded) != 2 or not all(isinstance(t, Tensor) for t in loaded):
            raise ValueError(f"a DataLoader must give pairs (x, y) of tensors; got {_kind(loaded)}")
        x, y = loaded
        _check_pair(x, y, "a batch of the DataLoader", None)
        return _window(x).to(self.device), y.to(self.device)


def open_pair(
    train: Given, test: Given, training: Training, how: Window | None, device: torch.device
) -> tuple[Source, Source, Source]:
    """The training samples, those held out for validation, and the test samples.

    Raises:
        ValueError: the data are of no kind that `fit` takes, or a setting has no effect on them.
    """
    found, seed, size = opened(train, how, training.seed, "train"), training.seed, training.batch_size
    tested = source(test, how, seed, device, "test")
    if isinstance(found, DataLoader):
        if training.validation:
            raise ValueError(
                "validation has no effect on a DataLoader; give the validation samples as test, or a Dataset"
            )
        return Loaded(found, seed, device), _nothing(device), tested
    ids = validation_split(len(cast(Sized, found)), training.validation, seed)
    if isinstance(found, Dataset):
        kept, held_out = (Subset(found, part.tolist()) for part in ids)
        shuffled = DataLoader(kept, size, shuffle=True, generator=torch.Generator())
        checked = Loaded(DataLoader(held_out, BATCH), seed, device) if training.validation else _nothing(device)
        return Loaded(shuffled, seed, device), checked, tested
    kept, held_out = (Sampled(found, part, size, seed, device) for part in ids)
    return kept, held_out, tested


def source(given: Given, how: Window | None, seed: int, device: torch.device, name: str) -> Source:
    """All samples of what was given, to be evaluated on."""
    found = opened(given, how, seed, name)
    if isinstance(found, DataLoader):
        return Loaded(found, seed, device)
    if isinstance(found, Dataset):
        return Loaded(DataLoader(found, BATCH), seed, device)
    return Sampled(found, torch.arange(len(found)), BATCH, seed, device)


def opened(given: Given, how: Window | None, seed: int, name: str) -> DataSet | Pair | Dataset[Any] | DataLoader[Any]:
    """The given samples, checked; images together with how they become windows."""
    if isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(part, Tensor) for part in given):
        x, y = given
        _check_pair(x, y, name, how)
        return Pair(x, y, how, seed)
    if isinstance(given, ImageSet):
        if how is None:
            raise ValueError(f"{name} holds images: give the number of time steps, as T=10")
        return Windows(given, how, seed)
    kinds = DataLoader | Dataset
    if isinstance(given, tuple | list) or not isinstance(given, kinds | DataSet):
        raise ValueError(
            f"{name} must be a pair (x, y) of tensors, a stbp.data.DataSet, a torch.utils.data.Dataset or a DataLoader;"
            f" got {_kind(given)}"
        )
    if how is not None:
        raise ValueError(f"T and encoding have no effect on a {type(given).__name__}, which gives windows; omit them")
    if isinstance(given, IterableDataset):
        raise ValueError(f"{name} is an IterableDataset: put it into a DataLoader, which knows its batches")
    if isinstance(given, kinds) and not hasattr(given, "__len__"):
        raise ValueError(f"{name} must have a length: the schedule of the learning rate counts its batches")
    if isinstance(given, DataLoader):
        try:
            len(given)
        except TypeError as error:
            raise ValueError(f"{name} must have a length: the schedule counts its batches ({error})") from error
    return given


def _check_pair(x: Tensor, y: Tensor, name: str, how: Window | None) -> None:
    sizes = f"got x {x.dtype} {list(x.shape)}, y {y.dtype} {list(y.shape)}"
    if y.dim() != 1 or y.dtype != torch.int64 or x.dim() < 1 or len(x) != len(y):
        raise ValueError(
            f"{name} must be x, one sample each on its first axis, and y, int64 [N], their classes; {sizes}"
        )
    if how is None and x.dtype == torch.uint8:
        raise ValueError(f"{name}: uint8 are images, which need T=; windows [N, T, ...] are floating point; {sizes}")
    if how is None and x.dim() < 3:
        raise ValueError(f"{name}: x must be windows [N, T, ...]; for images give T=; {sizes}")
    if how is not None and x.dim() < 2:
        raise ValueError(f"{name}: x must be images [N, ...]; {sizes}")


def _window(x: Tensor) -> Tensor:
    """Windows `[B, T, ...]` as the network takes them, `[T, B, ...]`."""
    return (x if x.is_floating_point() else x.float()).transpose(0, 1)


def _nothing(device: torch.device) -> Sampled:
    nothing = torch.zeros(0, dtype=torch.int64)
    return Sampled(Pair(torch.zeros(0, 1, 1), nothing), nothing, BATCH, 0, device)


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {', '.join(type(part).__name__ for part in value[:4])}"
    return type(value).__name__
