"""The camera that took real recordings of known images: how the preset `n-mnist` was made.

    .venv/bin/python research/fit_camera.py REAL IMAGES --out FILE [--recordings 200] [--rounds 4]

REAL is a folder of Train.zip and Test.zip as N-MNIST has them, IMAGES the folder of MNIST's files, which they show.

Three kinds of parameters are found in three ways, in turns. The path: by tracking the images (`track_image.py`). What
no light caused: from the pixels that the image never reaches. All others: the statistics of recordings simulated with
them are made equal to those of the real ones by Levenberg and Marquardt's method, with derivatives by differences of
simulations that share their random numbers.
"""

import argparse
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fidelity
import numpy as np
import track_image as track

from stbp import __version__
from stbp.camera.camera import Camera, presets
from stbp.camera.dataset import read_source
from stbp.camera.mnist_simulated import number
from stbp.camera.model import simulate
from stbp.data.error import DataError
from stbp.data.events.sets import load_events
from stbp.files import write_json

FREE: dict[str, float] = {
    "threshold_on": 0.04,
    "threshold_off": 0.04,
    "floor": 0.1,
    "blur_px": 0.06,
    "scale_x": 0.01,
    "scale_y": 0.01,
    "tau_ms": 0.15,
    "noise": 0.15,
    "dead_on_ms": 0.15,
    "dead_off_ms": 0.15,
}
"""What is fitted by statistics, and the relative changes whose effect is measured."""
TOLERANCE = 0.05
"""A parameter is told to be free within what makes the misfit so much worse, all others fitted anew."""
_BOUNDS = {"noise": (0.002, 0.08), "tau_ms": (0.05, 20.0), "dead_on_ms": (0.05, 20.0), "dead_off_ms": (0.05, 20.0)}
_FAR = 0.02  # of the logarithm of the light: pixels that change by less see no image
_HOT_HZ = 1.0  # pixels with clearly more events are hot
_INTERVALS = np.geomspace(300, 100_000, 27)  # microseconds
_MOST = 9  # events of a pixel in a saccade that are told apart


class Fit(NamedTuple):
    """A fitted camera and how well it is determined."""

    camera: Camera
    # The misfit (a sum of squares) before and after.
    before: float
    after: float
    # By parameter: the change in per cent that makes the misfit TOLERANCE worse.
    freedom: dict[str, float]


def fit(
    events: dict[str, np.ndarray],
    images: np.ndarray,
    start: Camera,
    rounds: int = 3,
    say: Callable[[str], None] = lambda text: None,
) -> Fit:
    """Fits a camera to recordings.

    Args:
        events: of N recordings of a sensor of 34 x 34 pixels, as `nmnist.decode_all` gives them.
        images: uint8 `[N, h, w]`, what they show.
        start: where to begin; its fields that are not fitted stay.
        say: is told of every round.

    Raises:
        DataError: numbers of recordings and images differ, or there are fewer than 10.
    """
    if len(events["length"]) != len(images) or len(images) < 10:
        raise DataError(
            f"a fit needs 10 recordings or more and their images; got {len(events['length'])}, {len(images)}"
        )
    want = fidelity.statistics(events)
    camera = dataclasses.replace(start, jitter_px=0.0, jitter_ms=0.0)
    before = float((misfit(want, camera, images) ** 2).sum())
    slopes, after = np.empty(0), before
    for turn in range(rounds):
        camera = track.tracked(events, images, camera)
        camera = dataclasses.replace(camera, **background(events, images, camera))
        camera, slopes = _minimise(want, camera, images)
        after = float((misfit(want, camera, images) ** 2).sum())
        say(f"round {turn + 1} of {rounds}: misfit {after:.4f}")
    camera = track.tracked(events, images, camera)  # the path belongs to the parameters: rates over time tell
    after = float((misfit(want, camera, images) ** 2).sum())
    inverse = np.linalg.pinv(slopes)  # the diagonal of (J^T J)^-1 are its rows' squares, which rounding leaves positive
    freedom = {
        n: 100 * math.sqrt(TOLERANCE * after) * float(np.linalg.norm(r)) for n, r in zip(FREE, inverse, strict=True)
    }
    return Fit(dataclasses.replace(camera, **jitter(events, images, camera)), before, after, freedom)


def misfit(want: fidelity.Statistics, camera: Camera, images: np.ndarray) -> np.ndarray:
    """How recordings simulated by a camera differ from real ones of the same images; each part adds up to about its
    relative squared error: rates, numbers of events of a pixel in a saccade, intervals, events of each recording, share
    of ON, and images of events."""
    have = fidelity.statistics(simulate(images, camera))
    parts = [
        (have.rate - want.rate) / want.rate.mean() / math.sqrt(want.rate.size),
        *(2 * (a - b) for a, b in zip(_numbers(have), _numbers(want), strict=True)),
        *(_shares(have.intervals[p], _INTERVALS) - _shares(want.intervals[p], _INTERVALS) for p in ("ON", "OFF")),
        np.log(np.maximum(have.counts, 1) / np.maximum(want.counts, 1)) / math.sqrt(len(images)),
        np.array([5 * (have.on.sum() / have.counts.sum() - want.on.sum() / want.counts.sum())]),
        np.sqrt(2 * (1 - fidelity.correlation(have.images, want.images).mean(0)) / 6),
    ]
    return np.concatenate([part.ravel() for part in parts])


def _numbers(found: fidelity.Statistics) -> list[np.ndarray]:
    """Roots of the shares of pixels that had 1, 2, ... events in a saccade, by polarity."""
    edges = np.append(np.arange(1, _MOST + 1), np.inf)
    return [_shares(found.images[:, :, p].ravel(), edges) for p in (0, 1)]


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts = np.histogram(values, edges)[0]
    return np.sqrt(counts / max(1, counts.sum()))


def _minimise(
    want: fidelity.Statistics, camera: Camera, images: np.ndarray, steps: int = 6
) -> tuple[Camera, np.ndarray]:
    """Levenberg and Marquardt's method over the logarithms of `FREE`; the camera, and the derivatives at the end."""
    names, widths = list(FREE), np.array(list(FREE.values()))

    def moved(by: np.ndarray) -> Camera:
        fields = {}
        for name, change in zip(names, by, strict=True):
            low, high = _BOUNDS.get(name, (0.01, 10.0))
            fields[name] = float(np.clip(getattr(camera, name) * math.exp(change), low, high))
        return dataclasses.replace(camera, **fields)

    def slopes_of() -> np.ndarray:
        columns = []
        for n, width in enumerate(widths):
            by = np.zeros(len(names))
            by[n] = width
            columns.append((misfit(want, moved(by), images) - misfit(want, moved(-by), images)) / (2 * width))
        return np.stack(columns, 1)

    damping, wrong = 0.03, misfit(want, camera, images)
    slopes = slopes_of()
    for step in range(steps):
        gram = slopes.T @ slopes
        for _ in range(3):
            by = -np.linalg.solve(gram + damping * np.diag(np.diag(gram) + 1e-6), slopes.T @ wrong)
            trial = moved(np.clip(by, -0.5, 0.5))
            now = misfit(want, trial, images)
            if (now**2).sum() < (wrong**2).sum():
                break
            damping *= 5
        else:
            return camera, slopes
        better = 1 - (now**2).sum() / (wrong**2).sum()
        camera, wrong, damping = trial, now, damping / 3
        if better < 1e-3 and step:
            break
        slopes = slopes_of()
    return camera, slopes


def background(events: dict[str, np.ndarray], images: np.ndarray, camera: Camera) -> dict[str, float]:
    """Rates of ON and OFF events where no image comes by, in Hz for each pixel; hot pixels do not count."""
    path = np.array(camera.path)[:, 1:]
    seen = np.stack([track.brightness(camera, images, x, y) for x, y in path[::2]])
    quiet = np.ptp(seen, axis=0) < _FAR  # [N, W, H]
    seconds = quiet.sum(0) * camera.duration_ms / 1000
    recording = np.repeat(np.arange(len(images)), events["length"])
    x, y, p = events["x"], events["y"], events["p"]
    found = quiet[recording, x, y]
    counts = np.zeros((2, *seconds.shape))
    np.add.at(counts, (p[found], x[found], y[found]), 1)
    most = _HOT_HZ * seconds
    usual = (seconds > 0) & (counts <= most + 4 * np.sqrt(most) + 2).all(0)
    return {
        f"background_{name}_hz": float(counts[p][usual].sum() / seconds[usual].sum())
        for p, name in ((1, "on"), (0, "off"))
    }


def jitter(events: dict[str, np.ndarray], images: np.ndarray, camera: Camera) -> dict[str, float]:
    """How much recordings differ in position and time: the spread of the displacement that fits each best, less the
    spread of those of simulated ones that do not differ."""
    own = _displacements(simulate(images, camera), images, camera)
    spread = _displacements(events, images, camera).var(0) - own.var(0)
    x, y, t = np.sqrt(np.maximum(spread, 0))
    return {"jitter_px": float(math.sqrt((x * x + y * y) / 2)), "jitter_ms": float(t)}


def _displacements(events: dict[str, np.ndarray], images: np.ndarray, camera: Camera) -> np.ndarray:
    """Of every recording: pixels along x and y, milliseconds, `[N, 3]`; least squares over all times."""
    times, *path = np.array(camera.path).T
    change, N = track.changes(events, camera, times), len(images)
    velocity = [np.gradient(axis, times) for axis in path]
    rest, own = track.gradient(camera, images, path[0][0], path[1][0])
    grams, pulls = np.zeros((N, 3, 3)), np.zeros((N, 3))
    for k in range(1, len(times)):
        light, slope = track.gradient(camera, images, path[0][k], path[1][k])
        wrong = (change[k] - (light - rest)).reshape(N, -1)
        x, y = (slope - own).reshape(2, N, -1)
        u, v = slope.reshape(2, N, -1)
        basis = np.stack([x, y, -(velocity[0][k] * u + velocity[1][k] * v)], 1)
        grams += basis @ basis.swapaxes(1, 2)
        pulls += np.einsum("nap,np->na", basis, wrong)
    return np.linalg.solve(grams, pulls[..., None])[..., 0]


def report(found: Fit, halves: tuple[Fit, Fit]) -> dict[str, Any]:
    """The fitted numbers, with their freedom and what the halves of the recordings say on their own."""
    names = [*FREE, "background_on_hz", "background_off_hz", "jitter_px", "jitter_ms"]
    path = np.array([half.camera.path for half in halves])[:, :, 1:]
    return {
        "misfit": {"before": found.before, "after": found.after},
        "parameters": {
            name: {
                "value": getattr(found.camera, name),
                "freedom_percent": found.freedom.get(name),
                "halves": [getattr(half.camera, name) for half in halves],
            }
            for name in names
        },
        "path_halves_rms_px": float(np.sqrt(((path[0] - path[1]) ** 2).mean())),
    }


def main() -> None:
    """Fit a camera to all recordings and to each half of them, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("real", type=Path, metavar="REAL")
    parser.add_argument("images", type=Path, metavar="IMAGES")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--recordings", type=int, default=200, help="use the first so many training recordings")
    parser.add_argument("--preset", choices=tuple(presets()), default="n-mnist", help="where to begin")
    parser.add_argument("--rounds", type=int, default=4, help="turns between the path and all else")
    args = parser.parse_args()
    train, _ = load_events(args.real)
    shown = read_source(args.images)[0].images[:, 0].numpy()
    numbers = np.array([number(name) for name in train.names])
    ids = np.flatnonzero((numbers >= 1) & (numbers <= min(args.recordings, len(shown))))
    if len(ids) < 20:
        raise DataError(f"{args.real}: a fit needs 20 training recordings or more among the first; got {len(ids)}")
    found, *halves = (
        fit(
            fidelity.columns(train, part),
            shown[numbers[part] - 1],
            presets()[args.preset],
            args.rounds,
            lambda text, of=name: print(f"{of}: {text}", flush=True),
        )
        for name, part in (("all", ids), ("odd half", ids[::2]), ("even half", ids[1::2]))
    )
    about = {"recordings": len(ids), "rounds": args.rounds, "preset": args.preset}
    known = report(found, (halves[0], halves[1]))
    versions = {"stbp": __version__, "numpy": np.__version__}
    write_json(args.out, {"camera": dataclasses.asdict(found.camera), "fit": about | known, "versions": versions})
    for name, row in known["parameters"].items():
        free = "" if row["freedom_percent"] is None else f"within {row['freedom_percent']:.0f} %"
        print(f"{name:18} {row['value']:9.4g}  {free:14} halves {row['halves'][0]:.4g} {row['halves'][1]:.4g}")


if __name__ == "__main__":
    main()
