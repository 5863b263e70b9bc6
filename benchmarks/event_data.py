"""From N-MNIST's archives to frames of 10 ms, T = 30: stbp, tonic and SpikingJelly, each by its own public functions.

    pip install --no-deps -r benchmarks/requirements-events.txt
    python benchmarks/event_data.py --data DIR [--rounds 5] [--out results/bench/events.json]

DIR holds `n-mnist*/Train.zip` and `Test.zip`. All recordings of both are decoded and binned, all in one process, the
libraries in turn, round after round. The peers read unpacked files: the time to unpack them is measured by itself.

    stbp                 archives -> all frames, without a store (the functions that build it)
    stbp, first start    archives -> store on disk -> all frames
    stbp, second start   store -> all frames
    tonic                files -> read_mnist_file and ToFrame(time_window=10000), what its data set does for a sample
    spikingjelly         files -> load_ATIS_bin and integrate_events_by_fixed_frames_number
    spikingjelly, files  files -> events as npz -> frames as npz -> all frames: its data set's first start

Nothing is timed before the frames are compared: stbp's counts equal tonic's, frame by frame, and per pixel those of
SpikingJelly, which divides the time of each recording in its own way.
"""

import argparse
import importlib.metadata
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

import stbp
from stbp.bench.run import processor
from stbp.data.events import source, store
from stbp.data.events.frames.op import frames
from stbp.data.events.frames.options import FrameOptions
from stbp.data.events.sets import SENSOR, joined, load_events
from stbp.files import write_json
from stbp.ops.spikes import Spikes
from stbp.train import runs

T, STEP_US, BATCH = 30, 10_000, 100
BAR = 10
"""How many times as long as stbp a peer must take."""


class Bench:
    """The recordings, as archives and unpacked."""

    def __init__(self, archives: tuple[Path, Path], work: Path):
        self.archives, self.work, self.count = archives, work, 0
        self.files = self.unpack()

    def fresh(self) -> Path:
        """A folder that does not exist yet."""
        self.count += 1
        return self.work / str(self.count)

    def unpack(self) -> list[Path]:
        folder = self.fresh()
        for archive in self.archives:
            with zipfile.ZipFile(archive) as file:
                file.extractall(folder)
        self.tree = folder
        splits = (sorted(folder.glob(f"{split}/*/*.bin"), key=lambda path: path.name) for split in ("Train", "Test"))
        return [path for split in splits for path in split]

    def first_start(self) -> None:
        self.stores = self.fresh()
        self.second_start()

    def second_start(self) -> None:
        for events in load_events(self.archives[0].parent, cache=self.stores):
            for ids in torch.arange(len(events)).split(BATCH):
                events.frames(ids, T)

    def in_memory(self) -> list[Spikes]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # each thread that decodes bins what it has decoded
        with ExitStack() as files:
            few_first = reversed(self.archives)  # they are decoded while the many are being listed
            splits = (files.enter_context(store.n_mnist(path, SENSOR).opened()) for path in few_first)
            found = list(store.decoded(splits, threads, binned))
        torch.set_num_threads(threads)
        return found

    def tonic(self) -> list[np.ndarray]:
        from tonic.datasets import NMNIST
        from tonic.io import read_mnist_file
        from tonic.transforms import ToFrame

        to_frame = ToFrame(NMNIST.sensor_size, time_window=STEP_US, start_time=0, end_time=T * STEP_US)
        return [to_frame(read_mnist_file(str(path), dtype=NMNIST.dtype)) for path in self.files]

    def jelly(self) -> list[np.ndarray]:
        from spikingjelly.datasets import utils

        return [
            utils.integrate_events_by_fixed_frames_number(utils.load_ATIS_bin(path), "time", T, *SENSOR)
            for path in self.files
        ]

    def jelly_files(self) -> None:
        from spikingjelly.datasets import NMNIST

        root = self.fresh()
        raw = root / "events_np"
        raw.mkdir(parents=True)
        NMNIST.create_raw_from_extracted(self.tree, raw)
        for train in (True, False):
            frames = NMNIST(str(root), train, "frame", frames_number=T, split_by="time")
            for index in range(len(frames)):
                frames[index]


def binned(decoded: store.Piece) -> Spikes:
    """The frames of some recordings that `store.decoded` gave."""
    part = decoded.columns
    bits, offsets = np.packbits(part["p"], bitorder="little"), np.cumsum([0, *part["length"]])
    t, x, y, p, bounds = map(torch.from_numpy, (part["t"], part["x"], part["y"], bits, offsets))
    return frames(t, x, y, p, bounds, torch.arange(len(part["length"])), T, SENSOR)


def check(bench: Bench) -> None:
    """Raises unless the libraries agree."""
    both = joined(*load_events(bench.archives[0].parent, cache=bench.fresh()))
    tonic, jelly = bench.tonic(), bench.jelly()
    assert len(both) == len(tonic) == len(jelly)
    for index, (theirs, others) in enumerate(zip(tonic, jelly, strict=True)):
        ids = torch.tensor([index])
        counts = both.frames(ids, T, FrameOptions(counts=True))
        assert torch.equal(counts[:, 0], torch.from_numpy(theirs.astype(np.float32))), f"tonic, {both.names[index]}"
        parts = both.frames(ids, T, FrameOptions("time", counts=True))
        assert np.array_equal(parts[:, 0].sum(0).numpy(), others.sum(0)), f"SpikingJelly, {both.names[index]}"


def let_spikingjelly_load() -> None:
    """SpikingJelly's data sets need torchvision's folders of files. Of torchvision and torchaudio, the wheels from PyPI
    cannot load their compiled operators beside a torch without CUDA: of the first two are declared, and the second,
    which only spoken commands need, is left out."""
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in ("torchaudio", "torchaudio.transforms"):
        sys.modules[name] = MagicMock()


def clock(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of all processors together; what was written before is on the disk first."""
    os.sync()
    begun = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds n-mnist*/")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results/bench/events.json"))
    given = parser.parse_args()
    archives = source.find(given.data)
    if archives is None or not archives[0].is_file():
        parser.error(f"{given.data}: no n-mnist*/ with Train.zip and Test.zip")
    let_spikingjelly_load()
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(archives, Path(work))
        logging.disable(logging.INFO)  # SpikingJelly tells of every file
        from loguru import logger

        logger.remove()
        check(bench)
        subjects = {
            "stbp": bench.in_memory,
            "stbp, first start": bench.first_start,
            "stbp, second start": bench.second_start,
            "unpacking": bench.unpack,
            "tonic": bench.tonic,
            "spikingjelly": bench.jelly,
            "spikingjelly, files": bench.jelly_files,
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in subjects}
        for _ in range(given.rounds):
            for name, action in subjects.items():
                seconds[name].append(clock(action))
        result = summary(bench, seconds)
    print(json.dumps(result, indent=2))
    write_json(given.out, result)


def summary(bench: Bench, seconds: dict[str, list[tuple[float, float]]]) -> dict[str, object]:
    wall, processors = (
        {name: statistics.median(row[column] for row in rows) for name, rows in seconds.items()} for column in (0, 1)
    )
    fastest = {name: min(row[0] for row in rows) for name, rows in seconds.items()}

    def ratios(medians: dict[str, float]) -> dict[str, dict[str, float]]:
        """Of the peers to stbp, which unpacks: without their unpacking and with it."""
        return {
            peer: {
                "without unpacking": round(medians[peer] / medians["stbp"], 1),
                "with unpacking": round((medians[peer] + medians["unpacking"]) / medians["stbp"], 1),
            }
            for peer in ("tonic", "spikingjelly", "spikingjelly, files")
        }

    return {
        "recordings": len(bench.files),
        "T": T,
        "step_us": STEP_US,
        "seconds": {name: round(value, 4) for name, value in wall.items()},
        "processor_seconds": {name: round(value, 4) for name, value in processors.items()},
        "fastest_seconds": {name: round(value, 4) for name, value in fastest.items()},
        "times_as_long_as_stbp": {
            "seconds": ratios(wall),
            "processor_seconds": ratios(processors),
            "fastest_seconds": ratios(fastest),
        },
        "bar": BAR,
        "rounds": len(seconds["stbp"]),
        "threads": torch.get_num_threads(),
        "processor": processor(),
        "versions": {
            "stbp": stbp.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            **{name: importlib.metadata.version(name) for name in ("tonic", "spikingjelly")},
        },
        "commit": runs.commit(),
    }


if __name__ == "__main__":
    main()
