"""Sets of recordings as training asks for them: frames as a `Window` says."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from stbp.config import Experiment, Window
from stbp.data.error import DataError
from stbp.data.events.formats.reading import read_events
from stbp.data.events.frames.op import frames
from stbp.data.events.frames.options import SACCADE_US, Augmentation, FrameOptions
from stbp.data.events.sets import EventSet
from stbp.data.folder.recordings import prepared
from stbp.ops.spikes import Spikes


def frame_options(how: Window) -> FrameOptions:
    """Options that divide the events of a recording among the T steps of a window."""
    assert how.step_ms is not None  # an experiment on event data has it
    return FrameOptions(
        step_us=round(1000 * how.step_ms),
        stop_us=SACCADE_US if how.first_saccade else None,
        stabilize=how.stabilize,
        counts=how.counts,
    )


def window_of(
    events: np.ndarray, how: Window, sensor: tuple[int, int], where: str
) -> Spikes | Float[Tensor, "T 1 2 H W"]:
    """The frames `[T, 1, 2, H, W]` of one recording, not augmented.

    Args:
        events: `[n]` of `stbp.data.events.formats.record.EVENT`.
        sensor: height and width that the network was trained for.
        where: the recording, for the message.

    Raises:
        DataError: an event lies off the sensor, or later than 2^32 microseconds (71 minutes).
    """
    H, W = sensor
    if len(events) and (events["x"].max() >= W or events["y"].max() >= H):
        raise DataError(
            f"{where}: its events reach {events['x'].max() + 1} x {events['y'].max() + 1} pixels, "
            f"the network is for {W} x {H}; give it a recording of that sensor"
        )
    if len(events) and not 0 <= events["t"].min() <= events["t"].max() < 2**32:
        raise DataError(f"{where}: its times must lie in 0..2^32-1 us; got {events['t'].min()} to {events['t'].max()}")
    t, x, y = (torch.from_numpy(events[n].astype(d)) for n, d in (("t", "u4"), ("x", "u2"), ("y", "u2")))
    p = torch.from_numpy(np.packbits(events["p"].astype(bool), bitorder="little"))
    offsets, ids = torch.tensor([0, len(events)]), torch.tensor([0])
    return frames(t, x, y, p, offsets, ids, how.T, sensor, frame_options(how))


def window_of_file(file: Path, experiment: Experiment, sensor: tuple[int, int]) -> Spikes | Float[Tensor, "T 1 2 H W"]:
    """The frames of a recording as the experiment's network was trained on them; errors as for `window_of`."""
    events = read_events(file)
    if experiment.data.dataset == "folder":
        events = prepared(events, experiment.data.downscale or 1)
    return window_of(events, experiment.window, sensor, str(file))


@dataclass(frozen=True)
class EventWindows:
    """The recordings of an `EventSet` as windows of frames; `stbp.data.dataset.Samples`."""

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
        """Shape of one frame: 2 polarities, height, width."""
        return self.recordings.shape

    def encoded_rate(self, how: Window, seed: int) -> float:
        """Mean value of the frames of up to 1,000 recordings, at most 1."""
        return min(1.0, self.recordings.rate(how.T, frame_options(how)))

    def encoded(
        self, ids: Int64[Tensor, " B"], how: Window, seed: int, epoch: int, device: torch.device
    ) -> Tensor | Spikes:
        """As `DataSet.window`: frames `[T, B, 2, H, W]`, shifted, thinned and jittered in every epoch but 0."""
        change = Augmentation(how.shift, how.drop, round(1000 * how.jitter_ms)) if epoch else None
        return self.recordings.frames(ids, how.T, frame_options(how), change, seed=seed, epoch=epoch).to(device)

    def picture(self, sample: int) -> UInt8[Tensor, "C H W"]:
        """Number of events of each pixel in the whole recording, by polarity, scaled so that the highest is white."""
        counts = self.recordings.frames(torch.tensor([sample]), 1, FrameOptions(parts="time", counts=True))
        assert isinstance(counts, Tensor)
        return (255 * counts[0, 0] / counts.max().clamp(min=1)).round().to(torch.uint8)
