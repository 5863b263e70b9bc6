"""Compile the Triton kernels for a GPU that need not be there, with the arguments of real calls.

The interpreter takes programs that the compiler refuses. Nothing is launched; prints for each call the kernel, whether
its machine code uses the tensor cores, and which compilation it is; at the end those of the neurons for several shapes.
"""

from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

# Steps, samples, neurons; of one kind where it is the same that neurons and their strides come in multiples of 16.
SHAPES = {
    "odd shapes": ((1, 1, 7), (3, 2, 33), (50, 4, 129), (128, 1, 1001)),
    "odd rows in whole steps": ((3, 16, 33), (50, 32, 129)),
    "whole vectors": ((1, 1, 16), (3, 2, 32), (50, 40, 128)),
}
PRODUCTS = ("split", "float32", "tf32")
HOPPER = GPUTarget("cuda", 90, 32)


class _Absent:
    """As much of a driver as the compiler asks for."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return HOPPER

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def _only_compile() -> None:
    run = JITFunction.run

    def compiled(self: JITFunction, *args: Any, grid: Any, warmup: bool = False, **options: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        tensor_cores = "tensor cores" if "wgmma" in kernel.asm["ptx"] else "no tensor cores"
        how = f", {PRODUCTS[options['HOW']]}" if "HOW" in options else ""
        print(f"{self.fn.__module__}.{self.fn.__name__}{how}: {tensor_cores}: {kernel.hash}")
        return kernel

    JITFunction.run = compiled


def main() -> None:
    driver.set_active(_Absent())
    _only_compile()
    from stbp import Spikes, nn, ops
    from stbp.ops import State, dispatch
    from stbp.ops.surrogate.gpu import CURVES

    dispatch._interpreted.set(True)  # tensors on the CPU stand for those of a GPU
    for dtype, curve, gate in (
        *((torch.float32, curve, "linear") for curve in CURVES),
        (torch.float32, "rectangle", "detached"),
        (torch.bfloat16, "gaussian", "paper"),
    ):
        x = torch.zeros(40, 2, 33, dtype=dtype, requires_grad=True)
        start = torch.zeros(2, 33, dtype=dtype)
        o, state = ops.lif(x, gate=gate, surrogate=curve, state=State(start, start))
        (o.sum() + state.u.sum()).backward()
    for image in (torch.zeros(3, 784, dtype=torch.uint8), torch.zeros(3, 784)):
        ops.bernoulli(image, 30)
    for text, shape, gate in (
        ("784-800-10", (30, 4, 784), "linear"),
        ("784-800-10", (30, 4, 784), "detached"),
        ("784-1", (30, 4, 784), "linear"),
        ("28x28-15C5-P2-300-10", (30, 2, 1, 28, 28), "linear"),
    ):
        x = Spikes(torch.zeros((*shape[:2], 98), dtype=torch.uint8), shape)
        net = nn.build(text, gate=gate)
        for how in PRODUCTS:
            with dispatch.products(how):
                net(x).sum().backward()
        with torch.no_grad():
            net(x)
    for name, shapes in SHAPES.items():
        print(name)
        for T, B, N in shapes:
            ops.lif(torch.zeros(T, B, N, requires_grad=True)).sum().backward()


if __name__ == "__main__":
    assert not triton.knobs.runtime.interpret
    main()
