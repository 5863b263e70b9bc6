"""Kernels against the reference: what the tests of the CPU's and of the GPU's kernels share."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from stbp import nn, ops
from stbp.names import Surrogate
from stbp.ops import State, dispatch
from stbp.ops.neuron.reference import GateName


def random(*shape: int, seed: int = 0, device: torch.device | str = "cpu") -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def spikes(*shape: int, density: float = 0.3, seed: int = 0, device: torch.device | str = "cpu") -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density).float().to(device)


def passes(seen: Sequence[dispatch.Path]) -> list[dispatch.Path]:
    """Records of what computed; those of which layers ran as one, and why not, are left out."""
    return [path for path in seen if path.operator not in ("run", "chain")]


def kernels(seen: Sequence[dispatch.Path]) -> list[str]:
    """What computed, pass by pass."""
    return [path.kernel for path in passes(seen)]


def dyadic(net: nn.Network, seed: int = 0) -> nn.Network:
    """Weights and biases on multiples of 2^-8: every float32 sum is exact in any order."""
    for index, parameter in enumerate(net.parameters()):
        fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 64
        draw = random(*parameter.shape, seed=seed + index) / math.sqrt(fan_in * 0.3)
        parameter.data.copy_((draw * 256).round() / 256)
    return net


def difference(got: Tensor, want: Tensor) -> float:
    """Norm of the difference, as a share of what is wanted."""
    return float((got - want).norm() / want.norm().clamp(min=1e-20))


def lif_equals_the_reference(
    shape: tuple[int, ...], curve: Surrogate, gate: GateName, kernel: str, device: torch.device | str = "cpu"
) -> None:
    """Forward and backward, from a state and to one; both passes are to be `kernel`. The reference is the CPU's."""

    def run(device: torch.device | str) -> list[Tensor]:
        x = (random(*shape) * 0.7).to(device).requires_grad_()
        u, o = random(*shape[1:], seed=1).to(device).requires_grad_(), spikes(*shape[1:], seed=2).to(device)
        weights = [random(*shape, seed=3, device=device), random(*shape[1:], seed=4, device=device)]
        out, state = ops.lif(x, 0.3, 0.5, curve, 1.2, gate, state=State(u, o.requires_grad_()))
        loss = (out * weights[0]).sum() + (state.u * weights[1]).sum()
        return [tensor.cpu() for tensor in (out, state.u, *torch.autograd.grad(loss, (x, u, o)))]

    with dispatch.watch() as seen:
        got = run(device)
    with dispatch.reference_only():
        want = run("cpu")
    assert [path.kernel for path in seen] == [kernel, kernel]
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])
    for a, b in zip(got[2:], want[2:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def lif_equals_the_reference_in_memory_order(x: Tensor) -> None:
    """For currents `[T, B, N]` that may be any view, and a gradient whose strides are all zero."""
    x = x.detach().requires_grad_()
    weight = random(1, 1, 1, device=x.device).expand(x.shape)
    o = ops.lif(x)
    o.backward(weight)
    with dispatch.reference_only():
        copy = x.detach().contiguous().requires_grad_()
        expected = ops.lif(copy)
        expected.backward(weight.contiguous())
    assert torch.equal(o, expected)
    torch.testing.assert_close(x.grad, copy.grad, rtol=1e-5, atol=1e-6)


def lif_fires_exactly_at_the_threshold(device: torch.device | str = "cpu") -> None:
    x = torch.tensor([0.5, math.nextafter(0.5, 0) - 2**-25, 0.5 + 2**-24], device=device).view(1, 1, 3)
    assert ops.lif(x, threshold=0.5).flatten().tolist() == [1, 0, 1]
