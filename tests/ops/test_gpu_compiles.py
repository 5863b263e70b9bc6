"""The Triton kernels are compiled for a Hopper GPU, in a process of its own: no GPU is needed for that."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: pip install stbp[gpu]")

from tests.ops.compile_gpu import PRODUCTS, SHAPES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What `compile_gpu.py` prints."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.compile_gpu"],
        cwd=Path(__file__).parents[2],
        # compiled anew, whatever was compiled before
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_the_compiler_takes_every_kernel(compiled):
    kernels = dict(line.split(": ")[:2] for line in compiled[: compiled.index("odd shapes")] if ": " in line)
    assert kernels == {
        "stbp.ops.neuron.gpu._forward": "no tensor cores",
        "stbp.ops.neuron.gpu._backward": "no tensor cores",
        "stbp.ops.encode.gpu._bernoulli": "no tensor cores",
        "stbp.ops.synapse.gpu._count": "no tensor cores",
        **{
            f"stbp.ops.synapse.gpu.{name}, {how}": "no tensor cores" if how == "float32" else "tensor cores"
            for name in ("_forward", "_weight_gradient")
            for how in PRODUCTS
        },
    }


def test_neurons_are_not_compiled_anew_for_each_shape(compiled):
    """Only whether neurons and strides are whole vectors is compiled in; `lif` takes all samples for one row."""
    names = list(SHAPES)
    at = [*map(compiled.index, names), len(compiled)]
    for name, first, end in zip(names, at[:-1], at[1:], strict=True):
        for kernel in ("_forward", "_backward"):
            found = [line.rpartition(": ")[2] for line in compiled[first + 1 : end] if f"{kernel}: " in line]
            assert len(found) == len(SHAPES[name])
            assert len(set(found)) == 1, (name, kernel)
