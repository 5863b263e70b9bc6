"""Sets of recordings, ready to train on."""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt, UInt8, UInt32
from torch import Tensor

from stbp.data.dataset import mean_input
from stbp.data.error import DataError
from stbp.data.events import source, store
from stbp.data.events.formats.record import empty
from stbp.data.events.frames.op import frames
from stbp.data.events.frames.options import Augmentation, FrameOptions
from stbp.files import cache_folder
from stbp.ops.spikes import Spikes

NAME = "n-mnist"
SENSOR = (34, 34)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class EventSet:
    """Recordings of one sensor with one label each; the events stay on disk until they are used.

    Attributes:
        t, x, y, p, offsets: the events of all recordings, as `stbp.data.events.frames.op.frames` takes them.
        labels: `[N]`, int64, an index into `classes` each.
        classes: the names of the K classes.
        sensor: height and width.
        names_: the recordings' labels and file names with zero bytes between them.
    """

    t: UInt32[Tensor, " E"]
    x: UInt[Tensor, " E"]
    y: UInt[Tensor, " E"]
    p: UInt8[Tensor, " bytes"]
    offsets: Int64[Tensor, " bounds"]
    labels: Int64[Tensor, " N"]
    classes: tuple[str, ...]
    sensor: tuple[int, int]
    names_: UInt8[Tensor, " characters"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one frame: 2 polarities, height, width."""
        return (2, *self.sensor)

    @cached_property
    def names(self) -> list[str]:
        """Name of every recording, such as `5/00001.bin`."""
        return os.fsdecode(self.names_.numpy().tobytes()).split("\0") if len(self) else []

    def events(self, index: int) -> np.ndarray:
        """The events of one recording, `[n]` of `stbp.data.events.formats.record.EVENT`."""
        begin, end = self.offsets[index : index + 2].tolist()
        found = empty(end - begin)
        for name, values in (("t", self.t), ("x", self.x), ("y", self.y)):
            found[name] = values[begin:end].numpy()
        at = np.arange(begin, end)
        found["p"] = self.p.numpy()[at // 8] >> (at % 8).astype(np.uint8) & 1
        return found

    def frames(
        self,
        ids: Int64[Tensor, " B"],
        T: int,
        options: FrameOptions | None = None,
        augmentation: Augmentation | None = None,
        *,
        seed: int = 0,
        epoch: int = 0,
    ) -> Spikes | Float[Tensor, "T B 2 H W"]:
        """Frames `[T, B, 2, H, W]` of the recordings with these ids; see `stbp.data.events.frames.op.frames`."""
        arrays = self.t, self.x, self.y, self.p, self.offsets
        return frames(*arrays, ids, T, self.sensor, options, augmentation, seed=seed, epoch=epoch)

    def rate(self, T: int, options: FrameOptions | None = None) -> float:
        """The mean value of the frames of up to 1,000 recordings spread evenly over the set; 0 for an empty one."""
        return mean_input(len(self), lambda ids: self.frames(ids, T, options))


def load_events(
    name: str | Path = NAME, data: str | Path | None = None, cache: str | Path | None = None
) -> tuple[EventSet, EventSet]:
    """Opens an event data set, building its store in the first run: training recordings, test recordings.

    How many there are is counted and logged.

    Args:
        name: `n-mnist`, or a folder that holds `Train.zip` and `Test.zip`, or the unpacked `Train` and `Test`.
        data: the folder that holds the data sets (`n-mnist*/`), or this one's files themselves; only with a name.
            Without it the environment variable STBP_DATA names the folder; without that too, the user's cache folder
            is searched.
        cache: the folder for stores; by default `events` in the user's cache folder.

    Raises:
        DataError: the set is not there, a file is damaged (archive, member and byte are named), or the store cannot be
            written.
    """
    paths, stores = _find(name, data), stores_folder(cache)
    splits = [store.load(store.built(store.n_mnist(path, SENSOR), stores, torch.get_num_threads())) for path in paths]
    classes = source.classes_of(label for split in splits for label in split.classes)
    train, test = (event_set(split, classes, SENSOR) for split in splits)
    _log.info("%s: %d training and %d test recordings", paths[0].parent, len(train), len(test))
    return train, test


def verify_events(
    name: str | Path = NAME, data: str | Path | None = None, cache: str | Path | None = None
) -> dict[Path, Path]:
    """Compare the stores of a set with the digests that they were built with, and with what the set's files hold now.

    A store is found by the names, sizes and times of the files; this decodes all of their content again. A store that
    is not there yet is built.

    Args:
        name, data, cache: as for `load_events`.

    Returns:
        The store of each split, by the archive or folder of the split.

    Raises:
        DataError: as `load_events`; a store is not what was built, or the files have changed since.
    """
    found, workers = {}, torch.get_num_threads()
    for path in _find(name, data):
        kept = store.built(store.n_mnist(path, SENSOR), stores_folder(cache), workers)
        store.verify(kept)
        with TemporaryDirectory(dir=kept.parent) as folder:
            again = store.built(store.n_mnist(path, SENSOR), Path(folder), workers)
            if store.digests(again) != store.digests(kept):
                raise DataError(
                    f"{path}: not the content that {kept} was built from; delete the latter if that is right"
                )
        found[path] = kept
    return found


def joined(*sets: EventSet) -> EventSet:
    """One set of all recordings, in order, copied into memory: for cross-validation over a small set.

    Raises:
        DataError: no set, or sets of different classes or sensors.
    """
    if len({(one.classes, one.sensor) for one in sets}) != 1:
        raise DataError("sets to join must be at least one, all of the same classes and sensor")
    first = sets[0]
    counts = torch.cat([one.offsets.diff() for one in sets])
    bits = np.concatenate([np.unpackbits(one.p.numpy(), count=len(one.t), bitorder="little") for one in sets])
    return EventSet(
        t=torch.from_numpy(np.concatenate([one.t.numpy() for one in sets])),
        x=torch.cat([one.x for one in sets]),
        y=torch.cat([one.y for one in sets]),
        p=torch.from_numpy(np.packbits(bits, bitorder="little")),
        offsets=torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        labels=torch.cat([one.labels for one in sets]),
        classes=first.classes,
        sensor=first.sensor,
        names_=torch.from_numpy(
            np.frombuffer(os.fsencode("\0".join(n for one in sets for n in one.names)), "u1").copy()
        ),
    )


def _find(name: str | Path, data: str | Path | None) -> tuple[Path, Path]:
    """Training and test split, as archives or folders."""
    folder = _folder(name, data, cache_folder())
    paths = source.find(folder)
    if paths is None:
        raise DataError(
            f"{folder}: no {NAME} in it nor in its {NAME}*/, looked for Train.zip and Test.zip, or Train/<label>/*.bin"
            " and Test/<label>/*.bin; get them from https://www.garrickorchard.com/datasets/n-mnist"
        )
    return paths


def stores_folder(cache: str | Path | None = None) -> Path:
    """Where stores are kept: `cache`, or `events` in the user's cache folder."""
    return cache_folder() / "events" if cache is None else Path(cache)


def _folder(name: str | Path, data: str | Path | None, own: Path) -> Path:
    """The folder to search."""
    if str(name) != NAME:
        if data is not None:
            raise DataError(f"{name} is a folder of its own; omit --data, got {str(data)!r}")
        given, origin = Path(name), "event data set"
    elif data is not None:
        given, origin = Path(data), "--data"
    elif os.environ.get("STBP_DATA"):
        given, origin = Path(os.environ["STBP_DATA"]), "STBP_DATA"
    else:
        return own
    with suppress(RuntimeError):  # ~name where nobody has that name: there is no such folder
        given = given.expanduser()
    if not given.is_dir():
        raise DataError(f"{origin} {given}: no such folder; name the one that holds {NAME}*/ or Train.zip and Test.zip")
    return given


def event_set(stored: store.Stored, classes: tuple[str, ...], sensor: tuple[int, int]) -> EventSet:
    """The recordings of a store of a split, whose classes may be some of `classes`; `sensor` is height and width."""
    arrays = dict(stored.arrays)
    place = torch.tensor([classes.index(label) for label in stored.classes])
    return EventSet(
        **{name: arrays[name] for name in ("t", "x", "y", "p", "offsets")},
        labels=place[arrays["labels"]],
        classes=classes,
        sensor=sensor,
        names_=arrays["names"],
    )
