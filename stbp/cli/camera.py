"""`stbp data simulate`, `fit` and `compare`: from images to recordings of an event camera, and back."""

import dataclasses
import json as json_format
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from tyro.conf import OmitArgPrefixes, Positional

Range = tuple[int, int]
Offset = tuple[float, float]
KINDS = ("real", "simulated")


@dataclasses.dataclass(frozen=True)
class Changes:
    """Parameters of the camera to change; `stbp/camera/model.py` says what each is."""

    # Sensor pixels that an image pixel covers.
    scale_x: float | None = None
    scale_y: float | None = None
    # Standard deviation of the blur, in sensor pixels.
    blur_px: float | None = None
    # Image values are ink on a bright screen (--ink True), or light on a dark one.
    ink: bool | None = None
    # Light of the darkest place, as a share of the difference between bright and dark.
    floor: float | None = None
    # Time constant of a pixel's low-pass, in milliseconds.
    tau_ms: float | None = None
    # Changes of the natural logarithm of the light that make an event.
    threshold_on: float | None = None
    threshold_off: float | None = None
    # Relative spread of the thresholds over the sensor.
    mismatch: float | None = None
    # Noise of the signal in every step, as the logarithm of the light.
    noise: float | None = None
    # Milliseconds after an event in which a pixel sees nothing.
    dead_on_ms: float | None = None
    dead_off_ms: float | None = None
    # Events without a cause, in Hz for each pixel.
    background_on_hz: float | None = None
    background_off_hz: float | None = None
    # Standard deviations of position (pixels, along x and y) and time (milliseconds) of whole recordings.
    jitter_px: float | None = None
    jitter_ms: float | None = None
    # Milliseconds of a step, and of a recording.
    step_ms: float | None = None
    duration_ms: float | None = None
    # Rows and columns of the sensor.
    height: int | None = None
    width: int | None = None


_Source = Annotated[
    Positional[Path],
    tyro.conf.arg(metavar="SOURCE", help="Folder of MNIST's or Fashion-MNIST's four files, or a tree of image files."),
]
_Threads = Annotated[int | None, tyro.conf.arg(help="Threads of the processor; all of its cores by default.")]


def simulate(
    source: _Source,
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT", help="Folder for Train.zip and Test.zip.")],
    preset: Literal["n-mnist", "generic"] = "n-mnist",
    camera: OmitArgPrefixes[Changes] = Changes(),
    train: Annotated[
        Range | None, tyro.conf.arg(help="Training images from FIRST up to END, which is left out.")
    ] = None,
    test: Annotated[Range | None, tyro.conf.arg(help="Test images, the same.")] = None,
    offset: Annotated[Offset | None, tyro.conf.arg(help="Move the whole path by X and Y pixels.")] = None,
    size: Annotated[int | None, tyro.conf.arg(help="Height and width to scale image files to.")] = None,
    seed: int = 0,
    threads: _Threads = None,
) -> None:
    """Simulate recordings of an event camera that is moved before images, in N-MNIST's layout and format.

    A simulation that was stopped goes on where it was; the same command, given to several processes, is shared by them.
    """
    from stbp.camera import dataset
    from stbp.camera.model import presets
    from stbp.cli.train import set_threads

    set_threads(threads)
    changes = {name: value for name, value in dataclasses.asdict(camera).items() if value is not None}
    chosen = dataclasses.replace(presets()[preset], **changes)
    if offset is not None:
        moved = tuple((t, round(x + offset[0], 6), round(y + offset[1], 6)) for t, x, y in chosen.path)
        chosen = dataclasses.replace(chosen, path=moved)
    splits = dataset.splits_of(dataset.read_source(source, size), train, test)
    begun = time.perf_counter()
    found = dataset.simulate_set(splits, out, chosen, seed)
    counts = "; ".join(
        f"{name}.zip: {c['recordings']:,} recordings, {c['events']:,} events" for name, c in found["counts"].items()
    )
    _say(f"{counts}; in {time.perf_counter() - begun:.0f} s; the set is in {escape(str(out))}")


_Real = Annotated[
    Positional[Path], tyro.conf.arg(metavar="REAL", help="Folder of Train.zip and Test.zip, as N-MNIST has them.")
]


def fit(
    real: _Real,
    images: Annotated[Positional[Path], tyro.conf.arg(metavar="IMAGES", help="Folder of the images that it shows.")],
    out: Annotated[Path, tyro.conf.arg(metavar="FILE", help="File for the fitted camera and what is known of it.")],
    recordings: Annotated[int, tyro.conf.arg(help="Use the first so many training recordings.")] = 200,
    preset: Annotated[Literal["n-mnist", "generic"], tyro.conf.arg(help="Where to begin.")] = "n-mnist",
    rounds: Annotated[int, tyro.conf.arg(help="Turns between the path and all else.")] = 4,
    threads: _Threads = None,
) -> None:
    """Fit a camera to real recordings of known images, and say how well each parameter is determined.

    Each half of the recordings is fitted on its own too; how far they agree is the plainest measure of that.
    """
    import numpy as np

    from stbp import __version__
    from stbp.camera import dataset, fidelity
    from stbp.camera import fit as fitting
    from stbp.camera.model import presets
    from stbp.cli.train import set_threads
    from stbp.data.error import DataError
    from stbp.data.events.sets import load_events
    from stbp.files import write_json

    set_threads(threads)
    train, _ = load_events(real)
    shown = dataset.read_source(images)[0].images[:, 0].numpy()
    numbers = np.array([fidelity.number(name) for name in train.names])
    ids = np.flatnonzero((numbers >= 1) & (numbers <= min(recordings, len(shown))))
    if len(ids) < 20:
        raise DataError(f"{real}: a fit needs 20 training recordings or more among the first; got {len(ids)}")
    _say(f"{len(ids)} recordings in {rounds} rounds, then each half of them: a minute or more a round")
    found, *halves = (
        fitting.fit(
            fidelity.columns(train, part),
            shown[numbers[part] - 1],
            presets()[preset],
            rounds,
            lambda text, of=name: _say(f"{of}: {text}"),
        )
        for name, part in (("all", ids), ("odd half", ids[::2]), ("even half", ids[1::2]))
    )
    report = fitting.report(found, (halves[0], halves[1]))
    camera = dataclasses.asdict(found.camera)
    write_json(
        out,
        {
            "camera": camera,
            "fit": {"recordings": len(ids), "rounds": rounds, "preset": preset, **report},
            "versions": {"stbp": __version__, "numpy": np.__version__},
        },
    )
    _say(_parameters(report["parameters"]))
    _say(
        f"free within: makes the misfit {100 * fitting.TOLERANCE:.0f} % worse, all others fitted anew; misfit "
        f"{found.before:.3f} before, {found.after:.3f} after; paths of the halves differ by "
        f"{report['path_halves_rms_px']:.3f} pixels; all of it is in {escape(str(out))}"
    )


def _parameters(found: dict[str, Any]) -> Table:
    """What was fitted, how freely, and what each half of the recordings gave."""
    table = Table("parameter", "value", "free within", "odd half", "even half", box=None, padding=(0, 2, 0, 0))
    for name, row in found.items():
        free = "" if row["freedom_percent"] is None else f"± {row['freedom_percent']:.0f} %"
        table.add_row(name, f"{row['value']:.4g}", free, *(f"{value:.4g}" for value in row["halves"]))
    return table


def compare(
    real: _Real,
    simulated: Annotated[Positional[Path], tyro.conf.arg(metavar="SIMULATED", help="The same of simulated ones.")],
    second: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help="The same images simulated with another --seed: the ceiling.")
    ] = None,
    after: Annotated[int, tyro.conf.arg(help="Leave out the first so many: the preset was fitted to them.")] = 200,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help="Draw real beside simulated into FILE.")] = None,
    json: Annotated[bool, tyro.conf.arg(help="Print JSON.")] = False,
) -> None:
    """Compare simulated recordings with real ones of the same images: counts, rates, images of events, intervals."""
    from stbp.camera import fidelity
    from stbp.data.error import DataError
    from stbp.data.events.sets import load_events

    sets = [load_events(folder) for folder in (real, simulated, *([] if second is None else [second]))]
    found: dict[str, dict[str, Any]] = {}
    missing: list[DataError] = []
    for index, split in enumerate(("training", "test")):
        one, other, *third = (pair[index] for pair in sets)
        left_out = after if split == "training" else 0
        try:
            a, b = fidelity.pairs(one, other, left_out)
        except DataError as error:
            missing.append(error)
            continue
        rest = None
        if third:
            rest = fidelity.statistics(fidelity.columns(third[0], fidelity.pairs(one, third[0], left_out)[1]))
        first, other = (fidelity.statistics(fidelity.columns(events, ids)) for events, ids in ((one, a), (other, b)))
        found[split] = fidelity.compare(first, other, one.labels[a].numpy(), rest)
    if not found:
        raise missing[0]
    if out is not None:
        from stbp.camera import figure
        from stbp.plot import runs

        runs.save(figure.comparison(sets[0], sets[1], found, after), out)
    if json:
        print(json_format.dumps(found, indent=2))
    else:
        _say(_table(found))


def _table(found: dict[str, dict[str, Any]]) -> Table:
    """A row a figure, and for each split a column of the real recordings and one of the simulated."""
    from stbp.camera.fidelity import QUANTILES

    columns = [Column(text, no_wrap=True, justify="right") for split in found for text in (split, "")]
    table = Table(Column("", no_wrap=True), *columns, box=None, padding=(0, 2, 0, 0))

    def row(name: str, *values: Callable[[dict[str, Any]], str]) -> None:
        real, simulated = values if len(values) == 2 else (lambda _: "", values[0])
        table.add_row(name, *(value(part) for part in found.values() for value in (real, simulated)))

    row("", *(lambda _, kind=kind: kind for kind in KINDS))
    row("recordings", lambda f: f"{f['recordings']:,}")
    row("events of a recording", *(lambda f, kind=kind: f"{f['events'][kind]:,.0f}" for kind in KINDS))
    row("simulated/real, pooled", lambda f: f"{f['ratio_pooled']:.3f}")
    row("    mean", lambda f: f"{f['ratio_mean']:.3f}")
    row("    sd", lambda f: "" if f["ratio_sd"] is None else f"{f['ratio_sd']:.3f}")
    row("ON share", *(lambda f, kind=kind: f"{f['on_share'][kind]:.4f}" for kind in KINDS))
    row("rate, RMSE over mean", lambda f: f"{100 * f['rate_rmse']:.1f} %")
    names = {
        "same_image": "correlation, same image",
        "same_image_5_percent": "    5 % are below",
        "second_simulation": "    of two simulations",
        "same_class": "    real, same class",
        "other_class": "    real, other class",
    }
    for key, name in names.items():
        row(name, lambda f, key=key: "" if f["correlation"][key] is None else f"{f['correlation'][key]:.3f}")
    for p in ("ON", "OFF"):
        for n, share in enumerate(QUANTILES):
            row(
                f"{p} to {p}, ms, {100 * share:.0f} %",
                *(
                    lambda f, p=p, n=n, kind=kind: f"{(f['intervals_us'][p][kind] or [math.nan] * 5)[n] / 1000:.1f}"
                    for kind in KINDS
                ),
            )
    return table


def _say(*parts: Any) -> None:
    Console(highlight=False, soft_wrap=True).print(*parts)
