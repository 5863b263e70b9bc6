from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stbp.experiments.registry import width_from_paper
from stbp.names import Surrogate
from stbp.ops.surrogate.curves import TABLE, check, slope
from tests.ops import plain

NAMES = get_args(Surrogate)
widths = st.floats(0.05, 20)


def test_every_name_has_its_row():
    assert tuple(TABLE) == NAMES


@pytest.mark.parametrize("name", NAMES)
@given(width=widths)
def test_each_curve_has_area_1_and_peak_1_over_width(name, width):
    u = torch.linspace(-8, 8, 200_001, dtype=torch.float64) * width + 0.3
    h = slope(u, 0.3, name, width)
    assert torch.trapezoid(h, u).item() == pytest.approx(1, abs=1e-4)
    assert h.max().item() == pytest.approx(1 / width)
    assert u[h.argmax()].item() == pytest.approx(0.3, abs=0.51 * width if name == "rectangle" else 1e-9 * width)


@pytest.mark.parametrize("name", plain.PAPERS)
@given(width=widths)
def test_curves_equal_the_papers_formulas(name, width):
    v = torch.linspace(-3, 3, 1000, dtype=torch.float64) * width
    torch.testing.assert_close(slope(v + 1, 1.0, name, width), plain.curve(v, name, width), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", plain.PAPERS)
def test_curves_are_the_derivatives_of_their_integrals(name):
    v = torch.linspace(-1.9, 1.93, 301, dtype=torch.float64)  # misses the kinks
    step = 1e-6
    numeric = (plain.integral(v + step, name, 0.8) - plain.integral(v - step, name, 0.8)) / (2 * step)
    torch.testing.assert_close(slope(v, 0.0, name, 0.8), numeric, rtol=1e-6, atol=1e-6)


def test_the_rectangle_is_open_at_its_edges():
    u = torch.tensor([0.0, 1e-6, 0.5, 1 - 1e-6, 1.0])
    assert slope(u, 0.5, "rectangle", 1.0).tolist() == [0, 1, 1, 1, 0]


def test_the_papers_a_of_1_is_width_1_2_4_and_2_507():
    widths_of_1 = [width_from_paper(name, 1.0) for name in plain.PAPERS]
    assert widths_of_1 == pytest.approx([1, 2, 4, 2.507], abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_beyond_its_reach_a_curve_is_under_one_per_cent_of_its_peak(name):
    inside, outside = (torch.tensor([TABLE[name].reach * 2.0 * factor]) for factor in (0.99, 1.01))
    peak = 1 / 2.0
    assert slope(outside, 0.0, name, 2.0).item() < 0.01 * peak
    assert slope(inside, 0.0, name, 2.0).item() > 0.0099 * peak


def test_the_sigmoid_does_not_overflow():
    assert slope(torch.tensor([-1e30, 1e30]), 0.5, "sigmoid", 0.01).tolist() == [0, 0]


@pytest.mark.parametrize(("name", "width", "message"), [("step", 1.0, "rectangle"), ("sigmoid", 0.0, "width")])
def test_a_wrong_name_or_width_is_named(name, width, message):
    with pytest.raises(ValueError, match=message):
        check(name, width)
