"""Sets of recordings as training asks for them: frames as the fields of an experiment say."""

from dataclasses import dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from stbp.data.events.sets import EventSet
from stbp.experiment import Experiment
from stbp.ops.frames.options import SACCADE_US, Augmentation, FrameOptions
from stbp.ops.spikes import Spikes


def frame_options(experiment: Experiment) -> FrameOptions:
    """How the experiment divides the events of a recording among its T steps."""
    assert experiment.step_ms is not None  # an experiment on event data has it
    return FrameOptions(
        step_us=round(1000 * experiment.step_ms),
        stop_us=SACCADE_US if experiment.first_saccade else None,
        stabilize=experiment.stabilize,
        counts=experiment.counts,
    )


@dataclass(frozen=True)
class EventWindows:
    """The recordings of an `EventSet` as windows of frames; a `stbp.data.DataSet`."""

    recordings: EventSet

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def labels(self) -> Int64[Tensor, " N"]:
        """An index into `classes` of every recording."""
        return self.recordings.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.recordings.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one frame: 2 polarities, height, width."""
        return self.recordings.shape

    def rate(self, experiment: Experiment) -> float:
        """Mean value of the frames of up to 1,000 recordings, at most 1."""
        return min(1.0, self.recordings.rate(experiment.T, frame_options(experiment)))

    def window(
        self, ids: Int64[Tensor, " B"], experiment: Experiment, epoch: int, device: torch.device
    ) -> Tensor | Spikes:
        """As `DataSet.window`: frames `[T, B, 2, H, W]`, shifted, thinned and jittered in every epoch but 0."""
        e = experiment
        change = Augmentation(e.shift, e.drop, round(1000 * e.jitter_ms)) if epoch else None
        return self.recordings.frames(ids, e.T, frame_options(e), change, seed=e.seed, epoch=epoch).to(device)

    def picture(self, sample: int) -> UInt8[Tensor, "C H W"]:
        """How many events each pixel had in the whole recording, by polarity, the busiest white."""
        counts = self.recordings.frames(torch.tensor([sample]), 1, FrameOptions(parts="time", counts=True))
        assert isinstance(counts, Tensor)
        return (255 * counts[0, 0] / counts.max().clamp(min=1)).round().to(torch.uint8)
