"""Tasks over time: images read row by row, adding marked bits, recalling a pattern after a delay.

What a network is asked lies steps in the past: it must keep it in its potentials, and learning it needs gradients that
reach back there. The two synthetic tasks are drawn from Philox alone, at key (0, SEQUENCES): everyone has the same.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from stbp import ops
from stbp.config import Window
from stbp.data.images import ImageSet
from stbp.ops.philox import SEQUENCES, random_words
from stbp.ops.spikes import Spikes

TRAINING, TEST = 5000, 2000  # samples of the synthetic tasks
CUE = 3  # steps at the end of a synthetic task in which the last input fires: the answer is wanted
PATTERNS, CHANNELS, SHOWN = 8, 20, 5  # patterns to recall; inputs and steps of one
DENSITY, NOISE = 0.3, 0.02  # probability of a spike in a pattern; of one to be added or taken away, at any time


@dataclass(frozen=True, eq=False)
class SequenceSet:
    """Labelled sequences of T steps; `stbp.data.dataset.Samples`.

    Attributes:
        values: `[N, T, n]`, uint8: n inputs in each of T steps, 0 (nothing) to 255 (a spike for sure).
        labels: `[N]`, an index into `classes` each.
    """

    values: UInt8[Tensor, "N T n"]
    labels: Int64[Tensor, " N"]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the input in one step: 1, 1, n."""
        return 1, 1, self.values.shape[2]

    def encoded_rate(self, how: Window, seed: int) -> float:
        """Mean value of all inputs per step, in [0, 1], however they become windows."""
        return self.values.sum(dtype=torch.int64).item() / (255 * max(1, self.values.numel()))

    def encoded(
        self, ids: Int64[Tensor, " B"], how: Window, seed: int, epoch: int, device: torch.device
    ) -> Tensor | Spikes:
        """As `DataSet.window`: each input of each step as a spike of that probability, or as a current."""
        values = self.values[ids].to(device)
        if how.encoding == "static":
            return (values.transpose(0, 1).float() / 255)[:, :, None, None]
        drawn = ops.bernoulli(values, 1, seed, epoch, ids.to(device)).dense(torch.uint8)
        return Spikes.pack(drawn[0].transpose(0, 1)[:, :, None, None].contiguous())

    def picture(self, sample: int) -> UInt8[Tensor, "C H W"]:
        """Inputs from top to bottom, time from left to right."""
        return self.values[sample].T[None].contiguous()


def rows(images: ImageSet, permuted: bool) -> SequenceSet:
    """Images `[N, 1, H, W]` row by row, a step each, all pixels first put in one fixed random order if `permuted`."""
    pixels = images.images.flatten(1)
    if permuted:
        pixels = pixels[:, random_words(pixels.shape[1], 0, SEQUENCES, _index("permutation")).argsort(stable=True)]
    return SequenceSet(pixels.view(len(images), *images.shape[1:]), images.labels, images.classes)


def adding(T: int) -> tuple[SequenceSet, SequenceSet]:
    """Training and test set for telling how many of two marked bits were 1.

    A random bit in every step, as a spike of the first input for 1, of the second for 0. The third input fires in two
    steps, one in each half of the steps before the cue, both places equally likely; the fourth is the cue. Whoever
    always says 1 is right half of the time.

    Raises:
        ValueError: T leaves no step in one of the halves.
    """
    steps = T - CUE
    if steps < 2:
        raise ValueError(f"T must be at least {CUE + 2} with dataset adding; got {T}")
    halves = ((0, steps // 2), (steps // 2, steps))
    sets = []
    for split, n in (("training", TRAINING), ("test", TEST)):
        bits = random_words(n * T, 0, SEQUENCES, _index("bits", split)).view(n, T) >> 31
        places = random_words(n * 2, 0, SEQUENCES, _index("places", split)).view(n, 2)
        values = torch.zeros(n, T, 4, dtype=torch.int64)
        values[..., 0], values[..., 1], values[:, steps:, 3] = bits, 1 - bits, 1
        labels = torch.zeros(n, dtype=torch.int64)
        for (first, end), place in zip(halves, places.T, strict=True):
            step = first + (place * (end - first) >> 32)
            values[torch.arange(n), step, 2] = 1
            labels += bits[torch.arange(n), step]
        sets.append(SequenceSet((255 * values).to(torch.uint8), labels, ("0", "1", "2")))
    return sets[0], sets[1]


def recall(T: int) -> tuple[SequenceSet, SequenceSet]:
    """Training and test set for telling which of eight fixed patterns of spikes was shown in the first steps.

    20 inputs show it in 5 steps, in which 30 % of its places hold a spike, and are silent until the cue, the 21st,
    fires in the last 3 steps. At any time each of the 20 changes with a probability of 2 %.

    Raises:
        ValueError: T has no room for pattern and cue.
    """
    if T < SHOWN + CUE:
        raise ValueError(f"T must be at least {SHOWN + CUE} with dataset recall; got {T}")
    drawn = random_words(PATTERNS * SHOWN * CHANNELS, 0, SEQUENCES, _index("patterns"))
    patterns = drawn.view(PATTERNS, SHOWN, CHANNELS) < round(DENSITY * 2**32)
    sets = []
    for split, n in (("training", TRAINING), ("test", TEST)):
        labels = random_words(n, 0, SEQUENCES, _index("labels", split)) * PATTERNS >> 32
        noise = random_words(n * T * CHANNELS, 0, SEQUENCES, _index("noise", split)) < round(NOISE * 2**32)
        values = torch.zeros(n, T, CHANNELS + 1, dtype=torch.bool)
        values[:, :SHOWN, :-1] = patterns[labels]
        values[..., :-1] ^= noise.view(n, T, CHANNELS)
        values[:, T - CUE :, -1] = True
        sets.append(SequenceSet(255 * values.to(torch.uint8), labels, tuple("ABCDEFGH")))
    return sets[0], sets[1]


def _index(use: str, split: str = "") -> int:
    """Every use has its own random numbers."""
    return ("permutation", "patterns", "bits", "places", "labels", "noise").index(use) * 2 + (split == "test")
