"""Statistics of repeated runs: means with the uncertainty that a few seeds leave."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Estimate(NamedTuple):
    """A mean over n runs, their standard deviation, and the mean's interval; None where one run tells nothing."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    n: int


class Spread(NamedTuple):
    """Mean, least and greatest of the last n epochs of one run: the paper's own statistic."""

    mean: float
    low: float
    high: float
    n: int


def estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean, standard deviation (n - 1) and Student's interval of the mean, for values that are normally distributed.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("an estimate needs at least one value")
    mean, n = statistics.mean(values), len(values)
    if n == 1:
        return Estimate(mean, None, None, None, 1)
    sd = statistics.stdev(values)
    half = t_quantile(level, n - 1) * sd / math.sqrt(n)
    return Estimate(mean, sd, mean - half, mean + half, n)


def paired(a: Mapping[int, float], b: Mapping[int, float], level: float = 0.95) -> Estimate | None:
    """The mean of a - b over the seeds that both have, with Student's interval of the differences; None without any."""
    differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    return estimate(differences, level) if differences else None


def last_epochs(metrics: Sequence[Mapping[str, Any]], epochs: int = 10) -> Spread:
    """Mean and range of test accuracies in the last epochs of a run's metrics, as many as there are up to `epochs`."""
    values = [row["test_accuracy"] for row in metrics[-epochs:]]
    return Spread(statistics.mean(values), min(values), max(values), len(values))


def t_quantile(level: float, freedom: int) -> float:
    """The t that |T| stays under with probability `level` in (0, 1), T having Student's distribution.

    Found by halving the interval of the angle atan(t / sqrt(freedom)), in which the distribution is a finite sum.
    """
    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) tan(angle)): Abramowitz, Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    sin, cos = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cos if odd else 1.0), 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cos * cos * (k - 1) / k
    return 2 / math.pi * (angle + sin * total) if odd else sin * total
