import math
import subprocess
import sys
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stbp import ops
from stbp.ops import Gate, State
from stbp.ops.neuron import op
from stbp.ops.neuron.reference import GateName, gates
from stbp.ops.stage import Neuron
from stbp.ops.surrogate.curves import slope
from tests.ops import plain

CURVES, GATES = plain.PAPERS, get_args(GateName)


def window(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 0.7


def test_three_steps_worked_by_hand():
    """decay 1/2, threshold 1/2, rectangle of width 1, linear gate, L = 1 o1 + 2 o2 + 3 o3.

    u1 = 0.6 fires; u2 = 0.3 (reset); u3 = 0.3/2 + 0.3 = 0.45; all within (0, 1), so h = 1.
    eps3 = delta3 = 3
    delta2 = 2 + eps3 u2 f'(0) = 2 - 3 * 0.3 / 2 = 1.55;  eps2 = 1.55 + eps3 f(0) = 1.55 + 3/2 = 3.05
    delta1 = 1 + eps2 u1 f'(1) = 1 - 3.05 * 0.6 / 2 = 0.085;  eps1 = 0.085 + eps2 f(1) = 0.085
    """
    x = torch.tensor([0.6, 0.3, 0.3], dtype=torch.float64).view(3, 1, 1).requires_grad_()
    o = ops.lif(x, decay=0.5, threshold=0.5, surrogate="rectangle", width=1.0, gate="linear")
    assert o.flatten().tolist() == [1, 0, 0]
    (o.flatten() * torch.tensor([1, 2, 3])).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([0.085, 3.05, 3], abs=1e-12)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("curve", CURVES)
def test_spikes_and_gradients_equal_autograd_of_the_plain_loop(gate, curve):
    x = window(9, 3, 50).requires_grad_()
    weight = window(9, 3, 50, seed=1)
    o = ops.lif(x, 0.3, 0.5, curve, 1.3, gate)
    expected, _, _ = plain.lif(x, 0.3, 0.5, curve, 1.3, gate)
    assert torch.equal(o, expected)
    assert 0.05 < o.mean() < 0.5
    (dx,) = torch.autograd.grad((o * weight).sum(), x)
    (dx_expected,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(dx, dx_expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gate", GATES)
def test_gradients_of_a_given_and_of_the_returned_state_equal_autograd(gate):
    x, u = window(5, 2, 40).requires_grad_(), window(2, 40, seed=1).requires_grad_()
    before = (window(2, 40, seed=2) > 0).double().requires_grad_()
    weights = [window(5, 2, 40, seed=3), window(2, 40, seed=4), window(2, 40, seed=5)]
    o, state = ops.lif(x, 0.3, 0.5, "sigmoid", 1.0, gate, state=State(u, before))
    os, us, last = plain.lif(x, 0.3, 0.5, "sigmoid", 1.0, gate, (u, before))
    assert torch.equal(o, os)
    torch.testing.assert_close(state.u, us[-1], rtol=1e-15, atol=1e-15)  # exp of two libraries, for gate paper
    assert torch.equal(state.o, last)
    inputs = (x, u) if gate in ("detached", "spatial") else (x, u, before)
    loss = sum((a * w).sum() for a, w in zip((o, *state), weights, strict=True))
    loss_expected = sum((a * w).sum() for a, w in zip((os, us[-1], last), weights, strict=True))
    assert isinstance(loss, torch.Tensor)
    assert isinstance(loss_expected, torch.Tensor)
    grads = torch.autograd.grad(loss, inputs)
    expected = torch.autograd.grad(loss_expected, inputs, allow_unused=True)
    for got, want in zip(grads, expected, strict=True):
        torch.testing.assert_close(got, torch.zeros_like(got) if want is None else want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gate", ["linear", "paper"])
@pytest.mark.parametrize("curve", CURVES)
def test_the_oracle_with_a_smooth_step_passes_finite_differences(gate, curve):
    """With the curve's own integral in place of the step, the curve is the true derivative."""
    x = (window(4, 2, 3, seed=7) * 0.5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: plain.lif(x, 0.4, 0.5, curve, 1.1, gate, smooth=True)[0], (x,), eps=1e-7, atol=1e-5
    )


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 3, 63), (5, 1, 129), (3, 2, 1000), (4, 0, 7), (2, 3, 4, 5, 6), (2, 3)]
)
@pytest.mark.parametrize("curve", CURVES)
def test_odd_shapes_in_float32_with_nan_filled_memory(shape, curve, nan_filled_memory):
    x = window(*shape, dtype=torch.float32).requires_grad_()
    o = ops.lif(x, surrogate=curve)
    expected, _, _ = plain.lif(x, 0.2, 0.5, curve, 1.0, "linear")
    assert torch.equal(o, expected)
    weight = window(*shape, seed=1, dtype=torch.float32)
    (dx,) = torch.autograd.grad((o * weight).sum(), x)
    (dx_expected,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(dx, dx_expected, rtol=1e-5, atol=1e-6)


def test_a_potential_exactly_at_the_threshold_fires():
    x = torch.tensor([0.5, math.nextafter(0.5, 0)], dtype=torch.float64).view(1, 1, 2)
    assert ops.lif(x, threshold=0.5).flatten().tolist() == [1, 0]


def test_non_contiguous_input_and_gradient():
    base = window(40, 3, 6)
    x = base.permute(2, 1, 0)[:, :, ::2].detach().requires_grad_()
    weight = window(1, 1, 1).expand(6, 3, 20)
    results = []
    for form in (x, x.detach().contiguous().requires_grad_()):
        o = ops.lif(form)
        o.backward(weight if form is x else weight.contiguous())
        results.append((o, form.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@given(cut=st.integers(1, 7), gate=st.sampled_from(GATES), curve=st.sampled_from(CURVES), seed=st.integers(0, 99))
def test_a_window_cut_in_two_equals_the_whole(cut, gate, curve, seed):
    x, weight = window(8, 2, 30, seed=seed), window(8, 2, 30, seed=seed + 1)
    whole = x.clone().requires_grad_()
    o = ops.lif(whole, 0.3, 0.5, curve, 1.2, gate)
    (o * weight).sum().backward()
    parts = x.clone().requires_grad_()
    first, state = ops.lif(parts[:cut], 0.3, 0.5, curve, 1.2, gate, state=ops.zero_state(x))
    second, _ = ops.lif(parts[cut:], 0.3, 0.5, curve, 1.2, gate, state=state)
    joined = torch.cat([first, second])
    assert torch.equal(joined, o)
    (joined * weight).sum().backward()
    assert whole.grad is not None
    assert parts.grad is not None
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-13, atol=1e-13)


def test_the_spatial_gate_sends_nothing_back_in_time():
    """SDBP: the gradient of step t is the loss's at t times the surrogate at t, and nothing else."""
    x = window(6, 2, 30).requires_grad_()
    weight = window(6, 2, 30, seed=1)
    (dx,) = torch.autograd.grad((ops.lif(x, gate="spatial") * weight).sum(), x)
    _, us, _ = plain.lif(x, 0.2, 0.5, "rectangle", 1.0, "linear")
    assert torch.equal(dx, weight * slope(us.detach(), 0.5, "rectangle", 1.0))


def test_gates_hold_the_papers_function_and_its_slope():
    tau = 0.2
    o = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    f = tau * torch.exp(-o / tau)  # eq. 6
    (df,) = torch.autograd.grad(f.sum(), o)
    assert [*f.tolist(), *df.tolist()] == pytest.approx(list(gates("paper", tau)[0]), rel=1e-12)
    assert gates("paper", 0.0)[0] == Gate(0, 0, 0, 0)
    assert gates("linear", tau)[0] == Gate(tau, 0, -tau, -tau)


def test_an_unknown_gate_is_named_in_the_reference_too(unchecked_shapes):
    with pytest.raises(ValueError, match="gate must be one of linear, paper, detached, spatial; got 'soft'"):
        gates("soft", 0.2)  # pyright: ignore[reportArgumentType]


def test_a_gate_of_four_numbers_replaces_the_named_ones():
    x = window(5, 2, 20).requires_grad_()
    outcomes = []
    for gate in ("paper", gates("paper", 0.3)[0]):
        o = ops.lif(x, decay=0.3, gate=gate)
        outcomes.append((o, *torch.autograd.grad(o.sum(), x)))
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    assert torch.equal(outcomes[0][1], outcomes[1][1])


def constants(gate: GateName) -> tuple[list[float], str]:
    """As the registered operators take them."""
    *numbers, curve = Neuron.of(0.3, 0.5, "sigmoid", 1.0, gate)
    return numbers, curve


def test_without_gradients_nothing_is_kept_for_the_backward_pass():
    x = window(5, 2, 20)
    kept = op._lif(x, *ops.zero_state(x), *constants("linear"), False)[2]
    assert kept.numel() == 0


@pytest.mark.parametrize("gate", GATES)
def test_the_operator_passes_torchs_own_checks(gate):
    x = window(4, 2, 5, dtype=torch.float32).requires_grad_()
    u, o = (part.requires_grad_() for part in ops.zero_state(x.detach()))
    torch.library.opcheck(op._lif, (x, u, o, *constants(gate), True))


def test_the_operator_passes_them_on_input_in_another_memory_order():
    x = window(5, 2, 4).permute(2, 1, 0).requires_grad_()
    u = window(5, 2).T.requires_grad_()
    torch.library.opcheck(op._lif, (x, u, u.detach() * 0, *constants("linear"), True))
    x, u = x.detach(), u.detach()
    arguments = (x, u, window(4, 2, 5), u, u * 0, *constants("linear"))
    torch.library.opcheck(op._lif_backward, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.slow
def test_torch_compile_takes_the_operator_without_a_graph_break():
    """In a process of its own: in this one the tests' checks of shapes wrap every function."""
    code = """
import torch
from stbp import ops

step = torch.compile(lambda x: ops.lif(x * 2).sum(0), fullgraph=True, backend="aot_eager")
x = torch.randn(4, 2, 5, requires_grad=True)
assert torch.equal(step(x), ops.lif(x * 2).sum(0))
(compiled,), (eager,) = (torch.autograd.grad(f(x).sum(), x) for f in (step, lambda x: ops.lif(x * 2).sum(0)))
assert torch.equal(compiled, eager)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decay": 1.0}, "decay must lie in"),
        ({"threshold": 0.0}, "threshold must be positive"),
        ({"width": -1.0}, "width must be a positive"),
        ({"x": torch.zeros(0, 1, 1)}, "T >= 1"),
        ({"x": torch.zeros(3)}, r"\[T, B, ...\]"),
        ({"state": State(torch.zeros(1), torch.zeros(1))}, "state.u must be"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message, unchecked_shapes):
    with pytest.raises(ValueError, match=message):
        ops.lif(**{"x": torch.zeros(2, 1, 3), **arguments})


@pytest.mark.parametrize("name", ["decay", "threshold", "width"])
@pytest.mark.parametrize("value", [torch.tensor(0.5), torch.tensor([0.5]), torch.nn.Parameter(torch.full((3,), 0.5))])
def test_a_constant_that_is_a_tensor_is_refused_by_name(name, value, unchecked_shapes):
    with pytest.raises(ValueError, match=f"^{name} must be a number: .* not built yet"):
        ops.lif(torch.zeros(2, 1, 3), **{name: value})
