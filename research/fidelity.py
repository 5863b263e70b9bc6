"""How like simulated recordings are to real ones of the same images: counts, rates, images of events, intervals.

    .venv/bin/python research/fidelity.py REAL SIMULATED [--second DIR] [--after 200] [--out PICTURE.png]

REAL and SIMULATED are folders of Train.zip and Test.zip as N-MNIST has them. The numbers behind
results/simulation/fidelity.json, printed as JSON, and docs/simulation.png.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stbp.camera.mnist_simulated import FITTED, number
from stbp.data.error import DataError
from stbp.data.events.frames.options import SACCADE_US
from stbp.data.events.sets import SENSOR, EventSet, load_events

BIN_US = 10_000
BINS = 32
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PIXELS = SENSOR[0] * SENSOR[1]


class Statistics(NamedTuple):
    """What is compared of N recordings."""

    # Events: [N].
    counts: np.ndarray
    # ON events: [N].
    on: np.ndarray
    # Events in bins of BIN_US by polarity: [BINS, 2].
    rate: np.ndarray
    # Events by recording, saccade, polarity and pixel: [N, 3, 2, H * W].
    images: np.ndarray
    # Microseconds between events of a pixel: ON to ON and OFF to OFF without another in between.
    intervals: dict[str, np.ndarray]


def columns(recordings: EventSet, ids: np.ndarray) -> dict[str, np.ndarray]:
    """The events of some recordings one behind the other, as `nmnist.decode_all` gives them."""
    found = [recordings.events(index) for index in ids.tolist()]
    events = np.concatenate(found)
    rest = {name: events[name].astype(np.uint8) for name in "xyp"}
    return {"t": events["t"].astype(np.uint32), **rest, "length": np.array([len(one) for one in found], np.int64)}


def statistics(events: dict[str, np.ndarray]) -> Statistics:
    """The statistics of recordings of a sensor of 34 x 34 pixels, given as columns."""
    t, x, y, p = (events[name].astype(np.int64) for name in "txyp")
    N = len(events["length"])
    recording = np.repeat(np.arange(N), events["length"])
    pixel = y * SENSOR[1] + x
    saccade = np.minimum(t // SACCADE_US, 2)
    images = np.bincount(((recording * 3 + saccade) * 2 + p) * PIXELS + pixel, minlength=N * 6 * PIXELS)
    rate = np.bincount(np.minimum(t // BIN_US, BINS - 1) * 2 + p, minlength=2 * BINS)
    order = np.argsort((recording * PIXELS + pixel) << 24 | t, kind="stable")
    place, time, polarity = (recording * PIXELS + pixel)[order], t[order], p[order]
    same = (place[1:] == place[:-1]) & (polarity[1:] == polarity[:-1])
    steps = time[1:] - time[:-1]
    intervals = {name: steps[same & (polarity[1:] == q)] for q, name in ((1, "ON"), (0, "OFF"))}
    return Statistics(
        counts=np.bincount(recording, minlength=N),
        on=np.bincount(recording, weights=p, minlength=N),
        rate=rate.reshape(BINS, 2) / N,
        images=images.reshape(N, 3, 2, PIXELS),
        intervals=intervals,
    )


def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's r over pixels of images `[..., pixels]`; 0 where one is constant."""
    a, b = (images - images.mean(-1, keepdims=True) for images in (one.astype(np.float32), other.astype(np.float32)))
    norm = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return (a * b).sum(-1) / np.where(norm > 0, norm, np.inf)


def compare(
    real: Statistics, simulated: Statistics, labels: np.ndarray, second: Statistics | None = None
) -> dict[str, Any]:
    """The figures of recordings of the same images, pair by pair.

    Args:
        labels: `[N]`, the class of each pair.
        second: the same images simulated with another seed: its correlation with the first is the most that could be
            reached.

    Returns:
        Fractions, and `intervals_us` at the quantiles `QUANTILES`. Correlations of one real image with another are None
        where there is no pair of such classes.
    """
    same = correlation(real.images, simulated.images)
    ratio = simulated.counts / np.maximum(real.counts, 1)
    N, distance = len(labels), np.arange(1, len(labels))
    first, other = np.repeat(np.arange(N - 1), distance[::-1]), np.concatenate([distance[n:] for n in range(N - 1)])
    chosen = np.random.default_rng(0).permutation(len(first))[:20_000]
    first, other = first[chosen], other[chosen]
    alike = labels[first] == labels[other]
    among = {
        name: _mean(correlation(real.images[first[of][:2000]], real.images[other[of][:2000]]))
        for name, of in (("same_class", alike), ("other_class", ~alike))
    }
    return {
        "recordings": N,
        "events": {"real": float(real.counts.mean()), "simulated": float(simulated.counts.mean())},
        "ratio_pooled": float(simulated.counts.sum() / real.counts.sum()),
        "ratio_mean": float(ratio.mean()),
        "ratio_sd": float(ratio.std(ddof=1)) if N > 1 else None,
        "on_share": {
            "real": float(real.on.sum() / real.counts.sum()),
            "simulated": float(simulated.on.sum() / simulated.counts.sum()),
        },
        "rate_rmse": float(np.sqrt(((simulated.rate - real.rate) ** 2).mean()) / real.rate.mean()),
        "rate": {"real": real.rate.tolist(), "simulated": simulated.rate.tolist()},
        "correlation": {
            "same_image": _mean(same),
            "same_image_5_percent": float(np.quantile(same.mean((1, 2)), 0.05)),
            "by_saccade_off_on": same.mean(0).tolist(),
            **among,
            "second_simulation": None if second is None else _mean(correlation(simulated.images, second.images)),
        },
        "intervals_us": {
            name: {
                kind: np.quantile(one.intervals[name], QUANTILES).tolist() if len(one.intervals[name]) else None
                for kind, one in (("real", real), ("simulated", simulated))
            }
            for name in ("ON", "OFF")
        },
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


def pairs(real: EventSet, simulated: EventSet, after: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ids of recordings of the same images, by their names, those of the first `after` images left out.

    Raises:
        DataError: there is none.
    """
    place = {name: index for index, name in enumerate(simulated.names)}
    found = [(index, place[name]) for index, name in enumerate(real.names) if name in place and number(name) > after]
    if not found:
        raise DataError(
            f"no recording behind the first {after} is in both sets; simulate the images of the real ones with"
            " stbp data simulate --train FIRST END --test FIRST END"
        )
    one, other = np.array(found).T
    return one, other


def main() -> None:
    """Print the comparison of two folders, and draw it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("real", type=Path, metavar="REAL")
    parser.add_argument("simulated", type=Path, metavar="SIMULATED")
    parser.add_argument("--second", type=Path, metavar="DIR", help="the same images simulated with another seed")
    parser.add_argument("--after", type=int, default=FITTED, help="leave out the first so many training recordings")
    parser.add_argument("--out", type=Path, metavar="FILE", help="picture of real beside simulated recordings")
    args = parser.parse_args()
    sets = [load_events(folder) for folder in (args.real, args.simulated, args.second) if folder is not None]
    found: dict[str, dict[str, Any]] = {}
    missing: list[DataError] = []
    for index, split in enumerate(("training", "test")):
        one, other, *third = (pair[index] for pair in sets)
        left_out = args.after if split == "training" else 0
        try:
            a, b = pairs(one, other, left_out)
        except DataError as error:
            missing.append(error)
            continue
        rest = statistics(columns(third[0], pairs(one, third[0], left_out)[1])) if third else None
        first, second = (statistics(columns(events, ids)) for events, ids in ((one, a), (other, b)))
        found[split] = compare(first, second, one.labels[a].numpy(), rest)
    if not found:
        raise missing[0]
    if args.out is not None:
        from fidelity_figure import comparison

        from stbp.plot.style import save

        save(comparison(sets[0], sets[1], found, args.after), args.out)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
