import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbp.experiments.stats import Estimate, estimate, last_epochs, paired, t_quantile


@pytest.mark.parametrize(
    ("level", "freedom", "t"),  # from the tables of any textbook
    [(0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 4, 2.776), (0.95, 7, 2.365), (0.99, 9, 3.250), (0.95, 120, 1.980)],
)
def test_quantiles_of_students_distribution(level, freedom, t):
    assert t_quantile(level, freedom) == pytest.approx(t, abs=6e-4)


@given(st.integers(1, 40), st.floats(0.05, 0.99))
def test_a_quantile_holds_the_share_that_the_density_says(freedom, level):
    t = t_quantile(level, freedom)
    x = np.linspace(-t, t, 20_001)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    assert np.trapezoid(scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2), x) == pytest.approx(level, abs=1e-4)


def test_an_estimate_is_what_a_textbook_says():
    mean, sd, low, high, n = estimate([0.98, 0.99, 1.0])
    assert (mean, sd, n) == (pytest.approx(0.99), pytest.approx(0.01), 3)
    assert low is not None
    assert high is not None
    assert (low, high) == (pytest.approx(0.99 - 4.303 * 0.01 / 3**0.5, abs=1e-5), pytest.approx(2 * 0.99 - low))


def test_one_run_has_no_interval_and_none_no_mean():
    assert estimate([0.5]) == Estimate(0.5, None, None, None, 1)
    with pytest.raises(ValueError, match="at least one"):
        estimate([])


def test_an_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for values in random.normal(3, 2, (2000, 5)):
        found = estimate(values.tolist())
        assert found.low is not None
        assert found.high is not None
        covered += found.low < 3 < found.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_a_pair_is_of_the_same_seed():
    a, b = {0: 0.9, 1: 0.5, 2: 0.7}, {1: 0.4, 0: 0.8, 3: 0.0}
    found = paired(a, b)
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(0.1), 2)
    assert found.sd == pytest.approx(0, abs=1e-12)  # of the differences: the seeds themselves differ by 0.4
    assert paired(a, {7: 0.1}) is None


def test_the_papers_statistic_is_over_the_last_ten_epochs():
    metrics = [{"test_accuracy": epoch / 100} for epoch in range(1, 31)]
    assert last_epochs(metrics) == pytest.approx((0.255, 0.21, 0.30, 10))
    assert last_epochs(metrics[:2]) == pytest.approx((0.015, 0.01, 0.02, 2))
