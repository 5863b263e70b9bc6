import pytest
import torch

from stbp import loss


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


@pytest.mark.parametrize("name", ["rate_mse", "cross_entropy"])
@pytest.mark.parametrize(
    ("o", "y", "message"),
    [
        (torch.zeros(2, 8, 3), torch.zeros(1, dtype=torch.int64), r"y must be int64 \[8\]"),
        (torch.zeros(2, 3, 3), torch.eye(3, dtype=torch.int64), r"y must be int64 \[3\]"),
        (torch.zeros(2, 3, 3), torch.zeros(3), "got torch.float32"),
        (torch.zeros(2, 3, 3), torch.tensor([0, 1, 3]), r"class indices in \[0, 3\); got 0 to 3"),
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
