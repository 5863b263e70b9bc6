"""Cross-validation: one fold of a set as the test set, all others as the training set; and validation samples.

Which fold a sample is in follows from the set alone: number the samples by class, those of a class in the set's own
order (training samples by name, then test samples by name); the n-th, from 0, is in fold n mod `folds`. So the sizes
of the folds differ by one at most, and so do their shares of a class.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from stbp.config import Window
from stbp.data.dataset import Samples, mean_input
from stbp.data.error import DataError
from stbp.ops.philox import SPLIT, random_words
from stbp.ops.spikes import Spikes


def fold_of(labels: Int64[Tensor, " N"], folds: int) -> Int64[Tensor, " N"]:
    """The fold of every sample, by the rule above."""
    fold = torch.empty_like(labels)
    fold[labels.argsort(stable=True)] = torch.arange(len(labels)) % folds
    return fold


def split(whole: Samples, folds: int, fold: int) -> tuple["Part", "Part"]:
    """Training and test set of a fold.

    Raises:
        DataError: there are fewer samples than folds.
    """
    if folds > len(whole):
        raise DataError(f"folds must be at most the number of samples, {len(whole)}; got {folds}")
    tested = fold_of(whole.labels, folds) == fold
    return Part(whole, (~tested).nonzero().flatten()), Part(whole, tested.nonzero().flatten())


def validation_split(n: int, held_out: int, seed: int) -> tuple[Int64[Tensor, " M"], Int64[Tensor, " V"]]:
    """Ids of the samples to train on and of those held out for validation, drawn by the seed, each ascending.

    Raises:
        ValueError: no sample is left to train on.
    """
    if held_out >= n:
        raise ValueError(f"validation must leave samples to train on, of which there are {n}; got {held_out}")
    order = random_words(n, seed, SPLIT).argsort(stable=True)
    return order[held_out:].sort().values, order[:held_out].sort().values


@dataclass(frozen=True, eq=False)
class Part:
    """Some of the samples of a data set; `stbp.data.dataset.Samples`.

    Attributes:
        samples: `[N]`, the ids in the whole set. They, not the place in this one, decide a sample's random numbers.
    """

    whole: Samples
    samples: Int64[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labels(self) -> Int64[Tensor, " N"]:
        """An index into `classes` of every sample."""
        return self.whole.labels[self.samples]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.whole.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the input in one step: C, H, W."""
        return self.whole.shape

    def encoded_rate(self, how: Window, seed: int) -> float:
        """Mean value of the input of up to 1,000 of these samples, spread evenly, at most 1."""
        cpu = torch.device("cpu")
        return min(1.0, mean_input(len(self), lambda ids: self.encoded(ids, how, seed, 0, cpu)))

    def encoded(
        self, ids: Int64[Tensor, " B"], how: Window, seed: int, epoch: int, device: torch.device
    ) -> Tensor | Spikes:
        """As `DataSet.window`."""
        return self.whole.encoded(self.samples[ids], how, seed, epoch, device)

    def picture(self, sample: int) -> UInt8[Tensor, "C H W"]:
        """As `DataSet.picture`."""
        return self.whole.picture(int(self.samples[sample]))
