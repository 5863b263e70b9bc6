"""`stbp data simulate`: from images to recordings of an event camera."""

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.markup import escape
from tyro.conf import FlagConversionOff, OmitArgPrefixes, Positional

from stbp.camera.camera import Camera, presets
from stbp.cli.terminal import Threads, say, set_threads

PRESET = presets()["n-mnist"]
Range = tuple[int, int]


def simulate(
    source: Annotated[
        Positional[Path],
        tyro.conf.arg(
            metavar="SOURCE", help="Folder of MNIST's or Fashion-MNIST's four files, or a tree of image files."
        ),
    ],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT", help="Folder for Train.zip and Test.zip.")],
    preset: Annotated[
        Literal["n-mnist", "generic"], tyro.conf.arg(help="The fitted path, or one of three straight saccades.")
    ] = "n-mnist",
    camera: OmitArgPrefixes[FlagConversionOff[Camera]] = PRESET,
    train: Annotated[
        Range | None, tyro.conf.arg(help="Training images from FIRST up to END, which is left out.")
    ] = None,
    test: Annotated[Range | None, tyro.conf.arg(help="Test images, the same.")] = None,
    offset: Annotated[tuple[float, float] | None, tyro.conf.arg(help="Move the whole path by X and Y pixels.")] = None,
    size: Annotated[int | None, tyro.conf.arg(help="Height and width to scale image files to.")] = None,
    seed: int = 0,
    threads: Threads = None,
) -> None:
    """Simulate recordings of an event camera that is moved before images, in N-MNIST's layout and format.

    A simulation that was stopped goes on where it was; the same command, given to several processes, is shared by them.
    """
    from stbp.camera import dataset

    set_threads(threads)
    if preset != "n-mnist":
        if camera.path != PRESET.path:
            raise ValueError(f"--preset {preset} is a path, so it has no effect with --path; omit one of them")
        camera = dataclasses.replace(camera, path=presets()[preset].path)
    if offset is not None:
        moved = tuple((t, round(x + offset[0], 6), round(y + offset[1], 6)) for t, x, y in camera.path)
        camera = dataclasses.replace(camera, path=moved)
    splits = dataset.splits_of(dataset.read_source(source, size), train, test)
    begun = time.perf_counter()
    found = dataset.simulate_set(splits, out, camera, seed)
    counts = "; ".join(
        f"{name}.zip: {c['recordings']:,} recordings, {c['events']:,} events" for name, c in found["counts"].items()
    )
    say(f"{counts}; in {time.perf_counter() - begun:.0f} s; the set is in {escape(str(out))}")
