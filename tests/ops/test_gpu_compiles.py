"""The Triton kernels are compiled for a Hopper GPU, in a process of its own: no GPU is needed for that."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: pip install stbp[gpu]")


def test_the_compiler_takes_every_kernel(tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.compile_gpu"],
        cwd=Path(__file__).parents[2],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},  # compiled anew, whatever was compiled before
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = dict(line.split(": ") for line in done.stdout.splitlines())
    assert kernels == {
        "stbp.ops.lif.gpu._forward": "no tensor cores",
        "stbp.ops.lif.gpu._backward": "no tensor cores",
        "stbp.ops.encode.gpu._bernoulli": "no tensor cores",
        "stbp.ops.pool.gpu._count": "no tensor cores",
        "stbp.ops.conv2d.gpu._forward": "tensor cores",
        "stbp.ops.conv2d.gpu._weight_gradient": "tensor cores",
    }
