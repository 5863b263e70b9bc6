import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings

# no deadline: how long an example takes says more about the machine than about the code
settings.register_profile("stbp", deadline=None, max_examples=30)
settings.load_profile("stbp")


def _import_gpu_kernels() -> None:
    """Import the Triton kernels, where Triton is, before anything else imports Triton: without a GPU for its
    interpreter, and without the hook that checks shapes, for Triton reads its kernels' source."""
    if importlib.util.find_spec("triton") is None:
        return
    importlib.import_module("stbp.ops")
    hook = next(finder for finder in sys.meta_path if type(finder).__name__ == "_JaxtypingFinder")
    sys.meta_path.remove(hook)
    before = os.environ.get("TRITON_INTERPRET")
    try:
        if not torch.cuda.is_available():
            os.environ["TRITON_INTERPRET"] = "1"
        for kernels in sorted((Path(__file__).parents[1] / "stbp" / "ops").glob("*/gpu.py")):
            importlib.import_module(f"stbp.ops.{kernels.parent.name}.gpu")
    finally:
        sys.meta_path.insert(0, hook)
        os.environ.pop("TRITON_INTERPRET", None) if before is None else os.environ.update(TRITON_INTERPRET=before)


_import_gpu_kernels()


@pytest.fixture(autouse=True)
def _one_thread():
    """Every test computes with one thread, whatever the one before it did: the tensors are small."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_seed():
    """Weights that a test does not name are the same in every run: a potential at an edge is found once or never."""
    torch.manual_seed(0)


@pytest.fixture
def triton_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, the Triton kernels are taken: on a GPU where there is one, else on the CPU by Triton's interpreter."""
    pytest.importorskip("triton", reason="Triton is not installed: pip install stbp[gpu]")
    if torch.cuda.is_available():
        yield
        return
    from stbp.ops import dispatch

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with dispatch.interpreted():
        yield


@pytest.fixture
def run_stbp(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command line in this process: exit code, and what it and its processes wrote to stdout and stderr."""
    from stbp.cli import main  # not above: shapes are checked in what is imported after this file

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stbp", *map(str, args)])
        try:
            code = main.main()
        except SystemExit as leaving:
            code = leaving.code
        out, err = capfd.readouterr()
        assert isinstance(code, int)
        return code, out, err

    return run


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Shapes in annotations are checked in the tests alone; here the user's errors are wanted instead."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def nan_filled_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory holds NaN, so that an output nobody wrote cannot pass for zero."""

    def filled(make):
        def made(*args, **kwargs):
            tensor = make(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor.fill_(113)

        return made

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, filled(getattr(torch, name)))
    monkeypatch.setattr(torch.Tensor, "new_empty", filled(torch.Tensor.new_empty))
