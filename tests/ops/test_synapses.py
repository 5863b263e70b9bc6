"""linear, conv2d and avg_pool2d: against torch on every frame, for dense input and for packed spikes."""

import pytest
import torch

from stbp import Spikes, ops
from stbp.ops.synapse import op


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spikes(*shape: int, seed: int = 0) -> torch.Tensor:
    return (random(*shape, seed=seed) > 0.8).double()


def grads(y: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad((y * random(*y.shape, seed=9)).sum(), inputs)


@pytest.mark.parametrize("T", [1, 5])
@pytest.mark.parametrize("B", [0, 1, 3])
@pytest.mark.parametrize("N", [1, 63, 129])
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear_equals_torch_frame_by_frame(T, B, N, has_bias):
    x, weight = spikes(T, B, N).requires_grad_(), random(4, N, seed=1).requires_grad_()
    parameters = [weight, random(4, seed=2).requires_grad_()] if has_bias else [weight]
    y = ops.linear(x, *parameters)
    expected = torch.stack([torch.nn.functional.linear(frame, *parameters) for frame in x])
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for got, want in zip(grads(y, [x, *parameters]), grads(expected, [x, *parameters]), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1)])
@pytest.mark.parametrize("B", [0, 2])
@pytest.mark.parametrize("has_bias", [True, False])
def test_conv2d_equals_torch_frame_by_frame(stride, padding, B, has_bias):
    x, weight = spikes(3, B, 2, 7, 9).requires_grad_(), random(4, 2, 3, 3, seed=1).requires_grad_()
    parameters = [weight, random(4, seed=2).requires_grad_()] if has_bias else [weight]
    y = ops.conv2d(x, weight, parameters[1] if has_bias else None, stride, padding)
    bias = parameters[1] if has_bias else None
    expected = torch.stack([torch.nn.functional.conv2d(frame, weight, bias, stride, padding) for frame in x])
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for got, want in zip(grads(y, [x, *parameters]), grads(expected, [x, *parameters]), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("height", "width", "k"), [(4, 6, 2), (7, 5, 2), (3, 3, 3), (5, 5, 1)])
def test_avg_pool2d_equals_torch_frame_by_frame(height, width, k, nan_filled_memory):
    x = random(3, 2, 4, height, width).requires_grad_()
    y = ops.avg_pool2d(x, k)
    expected = torch.stack([torch.nn.functional.avg_pool2d(frame, k) for frame in x])
    assert torch.equal(y, expected)
    torch.testing.assert_close(grads(y, [x])[0], grads(expected, [x])[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("has_bias", [True, False])
def test_packed_spikes_equal_dense_ones(has_bias):
    flat, maps = spikes(3, 2, 50), spikes(3, 2, 2, 6, 7)
    bias = random(4, seed=2).requires_grad_() if has_bias else None
    for operator, x, weight in (
        (ops.linear, flat, random(4, 50, seed=1).requires_grad_()),
        (ops.conv2d, maps, random(4, 2, 3, 3, seed=1).requires_grad_()),
    ):
        parameters = [weight] if bias is None else [weight, bias]
        packed, dense = operator(Spikes.pack(x), weight, bias), operator(x, weight, bias)
        assert torch.equal(packed, dense)
        for got, want in zip(grads(packed, parameters), grads(dense, parameters), strict=True):
            assert torch.equal(got, want)
    assert torch.equal(ops.avg_pool2d(Spikes.pack(maps.float()), 2), ops.avg_pool2d(maps.float(), 2))


def test_a_repeated_frame_gives_what_its_copies_give():
    for operator, frame, weight in (
        (ops.linear, random(2, 50), random(4, 50, seed=1)),
        (ops.conv2d, random(2, 2, 6, 7), random(4, 2, 3, 3, seed=1)),
    ):
        results = []
        for copies in (False, True):
            w = weight.clone().requires_grad_()
            x = frame.expand(5, *frame.shape)
            y = operator(x.contiguous() if copies else x, w)
            results.append((y, *grads(y, [w])))
        for got, want in zip(*results, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_operators_pass_torchs_own_checks():
    x, w, b = spikes(3, 2, 5).requires_grad_(), random(4, 5).requires_grad_(), random(4).requires_grad_()
    torch.library.opcheck(op._synapse, (x, [], w, b, 1, 0))
    torch.library.opcheck(op._synapse, (Spikes.pack(x.detach()).bits, [5], w, None, 1, 0))
    x, w = spikes(3, 2, 2, 5, 5).requires_grad_(), random(4, 2, 3, 3).requires_grad_()
    torch.library.opcheck(op._synapse, (x, [], w, b, 1, 0))
    torch.library.opcheck(op._synapse, (Spikes.pack(x.detach()).bits, [2, 5, 5], w, None, 1, 0))


def test_the_operators_pass_torchs_checks_on_input_in_another_memory_order():
    x = spikes(3, 2, 6, 6, 4).permute(0, 1, 4, 2, 3).requires_grad_()
    w = random(5, 4, 3, 3).requires_grad_()
    torch.library.opcheck(op._synapse, (x, [], w, None, 1, 0))
    torch.library.opcheck(op._synapse, (spikes(5, 2, 3).permute(2, 1, 0), [], random(4, 5), None, 1, 0))
    backward = (random(3, 2, 4, 4, 5).permute(0, 1, 4, 2, 3), x.detach(), [], w.detach(), 1, 0, [True] * 3)
    torch.library.opcheck(op._synapse_backward, backward, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.linear(torch.zeros(2, 3, 5), torch.zeros(4, 6)), r"\[T, B, 6\].* got \[2, 3, 5\]"),
        (lambda: ops.conv2d(torch.zeros(2, 3, 1, 5, 5), torch.zeros(4, 2, 3, 3)), r"\[T, B, 2, H, W\]"),
        (lambda: ops.conv2d(torch.zeros(2, 3, 2, 5, 2), torch.zeros(4, 2, 3, 3)), "smaller than the 3x3 kernel"),
        (lambda: ops.avg_pool2d(torch.zeros(2, 3, 2, 5, 5), 6), "at least k = 6"),
    ],
)
def test_shapes_that_do_not_fit_are_named(call, message, unchecked_shapes):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [(20, 5), (784, 80), (63, 129), (784, 1), (1000, 1), (1, 63)])
def test_what_linear_makes_of_a_frame_does_not_depend_on_the_others(threads, size):
    torch.set_num_threads(threads)
    N, M = size
    x, weight, bias = random(300, 1, N).float(), random(M, N, seed=1).float(), random(M, seed=2).float()
    whole = ops.linear(x, weight, bias)
    for start, end in ((0, 1), (5, 12), (119, 121), (100, 300)):
        assert torch.equal(ops.linear(x[start:end], weight, bias), whole[start:end])


@pytest.mark.parametrize("shape", [(1, 28, 15, 5), (8, 8, 3, 3), (3, 7, 5, 3)])
def test_what_conv2d_makes_of_a_frame_does_not_depend_on_the_others(shape):
    C, H, M, k = shape
    x, weight = random(100, 1, C, H, H).float(), random(M, C, k, k, seed=1).float()
    whole = ops.conv2d(x, weight)
    for start, end in ((0, 1), (5, 12), (30, 95)):
        assert torch.equal(ops.conv2d(x[start:end], weight), whole[start:end])
