"""The recursion as printed in the paper against the exact gradient (README.md in stbp/ops, "As printed")."""

import re
from pathlib import Path

import pytest
import torch

import stbp.ops
from stbp import ops
from stbp.ops.neuron.reference import GateName, gates
from stbp.ops.neuron.reference import lif as lif_reference
from stbp.paper.printed import lif_backward_printed

SIZES, T, CURVE, WIDTH, THRESHOLD = (7, 5, 4), 6, "sigmoid", 4.0, 0.5


def relative_errors(decay: float, seed: int, steps: int = T, gate: GateName = "paper") -> list[float]:
    """|printed - exact| / |exact| of the hidden and the output layer's weight gradient of a 7-5-4 network."""
    random = torch.Generator().manual_seed(seed)
    w1, w2 = (torch.randn(m, n, generator=random, dtype=torch.float64).requires_grad_() for n, m in ((7, 5), (5, 4)))
    x = (torch.rand(steps, 1, SIZES[0], generator=random) < 0.5).double()
    target = torch.eye(4, dtype=torch.float64)[:1]
    x1 = ops.linear(x, w1)
    o1 = ops.lif(x1, decay, THRESHOLD, CURVE, WIDTH, gate)
    x2 = ops.linear(o1, w2)
    o2 = ops.lif(x2, decay, THRESHOLD, CURVE, WIDTH, gate)
    exact = torch.autograd.grad((o2.mean(0) - target).square().sum() / 2, (w1, w2))

    with torch.no_grad():
        forget = gates(gate, decay)[1]
        us = [_potentials(x, decay, gate) for x in (x1, x2)]
        grad_o2 = ((o2.mean(0) - target) / steps).expand_as(o2)
        eps2, crossing2 = lif_backward_printed(grad_o2, us[1], forget, THRESHOLD, CURVE, WIDTH)
        eps1, _ = lif_backward_printed(crossing2 @ w2, us[0], forget, THRESHOLD, CURVE, WIDTH)
        printed = [torch.einsum("tbm,tbn->mn", eps1, x), torch.einsum("tbm,tbn->mn", eps2, o1)]
    return [((p - e).norm() / e.norm()).item() for p, e in zip(printed, exact, strict=True)]


def _potentials(x: torch.Tensor, decay: float, gate: GateName) -> torch.Tensor:
    return lif_reference(x, *ops.zero_state(x), gates(gate, decay)[0], THRESHOLD)[0]


def measured(decay: float) -> list[float]:
    """Mean over 20 random networks, in per cent."""
    errors = torch.tensor([relative_errors(decay, seed) for seed in range(20)])
    return (100 * errors.mean(0)).tolist()


def test_in_one_step_the_printed_recursion_is_exact():
    assert relative_errors(0.5, seed=0, steps=1) == pytest.approx([0, 0], abs=1e-12)


def test_in_two_steps_it_is_exact_for_the_last_layer_only():
    hidden, output = relative_errors(0.5, seed=1, steps=2)
    assert output == pytest.approx(0, abs=1e-12)
    assert hidden > 1e-3


def test_the_difference_grows_with_tau_and_equals_the_readmes_table():
    text = (Path(stbp.ops.__file__).parent / "README.md").read_text(encoding="utf-8")
    rows = {
        float(tau): (float(a), float(b)) for tau, a, b in re.findall(r"\| (0\.\d) \| ([\d.]+) % \| ([\d.]+) % \|", text)
    }
    assert sorted(rows) == [0.1, 0.2, 0.5]
    for tau, stated in rows.items():
        assert measured(tau) == pytest.approx(stated, rel=0.02)
    assert rows[0.1][0] < rows[0.2][0] < rows[0.5][0]
