"""Data sets as training, evaluation and plots see them, whatever their samples are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from stbp.config import Window
from stbp.ops.spikes import Spikes

RATE_SAMPLES, RATE_BATCH = 1000, 100


@runtime_checkable
class DataSet(Protocol):
    """Labelled samples, each of which becomes a window of input: what `stbp.fit` trains on."""

    @property
    def labels(self) -> Int64[Tensor, " N"]:
        """An index into `classes` of every sample."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the input in one step, such as C, H, W."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def rate(self) -> float:
        """Mean value of the input per step, to which initial weights are scaled."""
        ...

    def window(self, ids: Int64[Tensor, " B"], epoch: int, device: torch.device) -> Tensor | Spikes:
        """The network's input `[T, B, C, H, W]` for the samples with these ids, on the device.

        It depends on the epoch and each sample's id alone, not on the batch around it. Epoch 0 is kept for evaluation:
        nothing is shifted, dropped or otherwise augmented in it.
        """
        ...

    def picture(self, sample: int) -> UInt8[Tensor, "C H W"]:
        """One sample as a person would look at it, 0 (dark) to 255 (bright)."""
        ...


@runtime_checkable
class Samples(Protocol):
    """Labelled samples before it is decided how they become windows, as `ImageSet`; `Windows` decides it."""

    @property
    def labels(self) -> Int64[Tensor, " N"]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    def __len__(self) -> int: ...
    def picture(self, sample: int) -> UInt8[Tensor, "C H W"]: ...

    def encoded_rate(self, how: Window, seed: int) -> float:
        """Mean value of the input per step."""
        ...

    def encoded(
        self, ids: Int64[Tensor, " B"], how: Window, seed: int, epoch: int, device: torch.device
    ) -> Tensor | Spikes:
        """As `DataSet.window`."""
        ...


@dataclass(frozen=True, eq=False)
class Windows:
    """Samples, and how they become windows of input; a `DataSet`.

    Attributes:
        samples: the samples.
        how: length of the window, encoding, augmentation, division of recordings into steps.
        seed: decides all random numbers in the windows.
    """

    samples: Samples
    how: Window
    seed: int = 0

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labels(self) -> Int64[Tensor, " N"]:
        """An index into `classes` of every sample."""
        return self.samples.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.samples.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the input in one step: C, H, W."""
        return self.samples.shape

    def rate(self) -> float:
        """Mean value of the input per step."""
        return self.samples.encoded_rate(self.how, self.seed)

    def window(self, ids: Int64[Tensor, " B"], epoch: int, device: torch.device) -> Tensor | Spikes:
        """As `DataSet.window`."""
        return self.samples.encoded(ids, self.how, self.seed, epoch, device)

    def picture(self, sample: int) -> UInt8[Tensor, "C H W"]:
        """As `DataSet.picture`."""
        return self.samples.picture(sample)


def mean_input(n: int, window: Callable[[Int64[Tensor, " B"]], Tensor | Spikes]) -> float:
    """Mean value of what `window` gives for up to 1,000 of n samples, spread evenly over them; 0 for none."""
    total, most = 0.0, min(n, RATE_SAMPLES)
    for part in (torch.arange(most) * n // max(1, most)).split(RATE_BATCH):
        x = window(part)
        total += len(part) * (x.density() if isinstance(x, Spikes) else x.double().mean().item())
    return total / max(1, most)
