import pytest
import torch

from stbp import loss
from stbp.ops import dispatch, native
from stbp.ops.loss import reference
from tests.isas import isa as isa
from tests.ops.against import difference, random


def test_rate_mse_is_half_the_squared_distance_averaged_over_samples():
    """T = 2, B = 2, K = 2, by hand: rates (1, 1/2) and (0, 1/2), labels 0 and 1.

    (0^2 + (1/2)^2)/2 = 1/8 and (0^2 + (1/2)^2)/2 = 1/8; mean 1/8.
    """
    o = torch.tensor([[[1.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]])
    assert loss.rate_mse(o, torch.tensor([0, 1])).item() == 1 / 8
    assert loss.rate_mse(o, torch.tensor([1, 1])).item() == pytest.approx((1 + 1 / 4) / 4 + (1 / 4) / 4)


def test_its_gradient_is_the_papers():
    """dL/do = -(1/(T S)) (y - rate), the same in every step."""
    random = torch.Generator().manual_seed(0)
    o = (torch.rand(5, 3, 4, generator=random) < 0.5).double().requires_grad_()
    y = torch.tensor([0, 3, 2])
    (grad,) = torch.autograd.grad(loss.rate_mse(o, y), o)
    expected = -(torch.eye(4)[y] - o.mean(0)) / (5 * 3)
    torch.testing.assert_close(grad, expected.expand_as(o).detach(), rtol=1e-12, atol=1e-12)


# More than one part of 4,096 numbers of a step in the last; a gradient of the loss that is not one.
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 63), (30, 100, 10), (3, 129, 40)])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernel_is_the_reference(shape, threads, isa, nan_filled_memory):
    torch.set_num_threads(threads)
    y = torch.arange(shape[1]) % shape[2]
    for x in (random(*shape), (random(*shape) > 0).float(), random(*shape[1:], shape[0]).permute(2, 0, 1)):
        o, twin = x.clone().requires_grad_(), x.double().requires_grad_()
        got, want = loss.rate_mse(o, y), reference.rate_mse(twin, y)
        assert ("_Direct" in type(got.grad_fn).__name__) == (native.kernels() is not None)
        assert got.item() == pytest.approx(want.item(), rel=1e-6)
        (grad,) = torch.autograd.grad(3 * got, o)
        assert difference(grad, torch.autograd.grad(3 * want, twin)[0]) < 1e-6


def test_right_rates_have_no_gradient_at_all():
    """Whatever T: a sample without a gradient is left out of the backward pass."""
    for T in range(1, 80):
        o = torch.eye(10).expand(T, 10, 10).clone().requires_grad_()
        (grad,) = torch.autograd.grad(loss.rate_mse(o, torch.arange(10)), o)
        assert not grad.any()


def test_what_the_kernel_does_not_take_is_the_references(unchecked_shapes):
    o, y = random(3, 2, 4).requires_grad_(), torch.tensor([1, 3])
    with dispatch.reference_only():
        want = loss.rate_mse(o, y)
    assert "_Direct" not in type(want.grad_fn).__name__
    assert torch.func.grad(lambda o: loss.rate_mse(o, y))(o).shape == o.shape
    assert torch.compile(loss.rate_mse, fullgraph=True, backend="eager")(o, y).item() == pytest.approx(want.item())
    assert loss.rate_mse(o.double(), y).dtype == torch.float64


@pytest.mark.parametrize("name", ["rate_mse", "cross_entropy"])
@pytest.mark.parametrize(
    ("o", "y", "message"),
    [
        (torch.zeros(2, 8, 3), torch.zeros(1, dtype=torch.int64), r"y must be int64 \[8\]"),
        (torch.zeros(2, 3, 3), torch.eye(3, dtype=torch.int64), r"y must be int64 \[3\]"),
        (torch.zeros(2, 3, 3), torch.zeros(3), "got torch.float32"),
        (torch.zeros(2, 3, 3), torch.tensor([0, 1, 3]), r"class indices in \[0, 3\); got 0 to 3"),
        (torch.zeros(2, 3, 3), torch.tensor([0, -1, 2]), r"class indices in \[0, 3\); got -1 to 2"),
        (torch.zeros(2, 0, 3), torch.zeros(0, dtype=torch.int64), "at least one step, sample and class"),
    ],
)
def test_labels_that_do_not_fit_are_named(name, o, y, message, unchecked_shapes):
    with pytest.raises(ValueError, match=message):
        getattr(loss, name)(o, y)


def test_cross_entropy_takes_spike_counts_as_logits():
    o = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    assert loss.cross_entropy(o, torch.tensor([0])).item() == pytest.approx(
        torch.log(1 + torch.exp(torch.tensor(-1.0)))
    )
