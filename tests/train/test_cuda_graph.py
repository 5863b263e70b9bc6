"""The recorded step: on a GPU replayed, else called, with the kernels run by Triton's interpreter."""

import os
import signal

import pytest
import torch

import stbp
from stbp.data.dataset import Windows
from stbp.data.images import ImageSet
from stbp.experiments.datasets import Ready
from stbp.ops import dispatch
from stbp.train import fit
from stbp.train.cuda_graph import StepGraph
from stbp.train.progress import Silent

pytestmark = pytest.mark.slow

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TINY = {"network": "16-12-3", "T": 2, "epochs": 1, "batch_size": 4, "average": 0.9, "schedule": "cosine"}


def images(n: int, seed: int) -> ImageSet:
    numbers = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 4, 4), generator=numbers, dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(n) % 3, ("a", "b", "c"))


def bound(e: stbp.Experiment, folder: object) -> Ready:
    return Ready(e, *(Windows(images(n, seed), e.window, e.seed) for n, seed in ((14, 0), (2, 1))))


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes minutes for hundreds: three full batches and one of two samples."""
    monkeypatch.setattr("stbp.experiments.run.ready", bound)


def test_a_recorded_training_is_the_training(triton_kernels, tmp_path):
    plain, recorded = (
        stbp.fit("digits-mlp", out=tmp_path / str(graph), device=DEVICE, graph=graph, report=Silent(), **TINY)
        for graph in (False, True)
    )
    for a, b in zip(plain.history, recorded.history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-5)
        assert a["train_accuracy"] == pytest.approx(b["train_accuracy"], abs=2e-3)
    for a, b in zip(plain.network.parameters(), recorded.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_recorded_training_goes_on_where_it_was_stopped(triton_kernels, tmp_path, monkeypatch):
    whole = stbp.fit("digits-mlp", device=DEVICE, graph=True, report=Silent(), **TINY)
    step, begun = StepGraph.step, []

    def interrupted(graph: StepGraph, number: int) -> torch.Tensor:
        begun.append(number)
        os.kill(os.getpid(), signal.SIGINT)
        return step(graph, number)

    with monkeypatch.context() as stopping:
        stopping.setattr(StepGraph, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stbp.fit("digits-mlp", out=tmp_path, device=DEVICE, graph=True, report=Silent(), **TINY)
    assert begun == [1]
    part = stbp.fit("digits-mlp", out=tmp_path, device=DEVICE, graph=True, resume=True, report=Silent(), **TINY)
    for a, b in zip(whole.network.parameters(), part.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_within_an_epoch_the_device_is_asked_nothing(triton_kernels, monkeypatch):
    class Told(Silent):
        def advance(self, done: int, loss: float, accuracy: float) -> None:
            told.append(done)

    told: list[int] = []
    monkeypatch.setattr(fit, "REPORT_SECONDS", 0)
    stbp.fit("digits-mlp", device=DEVICE, graph=True, report=Told(), **TINY)
    assert told == [14]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"encoding": "static"}, "encoding bernoulli"),
        ({"shift": 1}, "no augmentation"),
        ({"rate_penalty": 0.1}, "no rate_penalty"),
        ({"optimizer": "sgd"}, "optimizer adam"),
    ],
)
def test_what_cannot_be_recorded_is_said(triton_kernels, fields, what):
    with pytest.raises(ValueError, match=f"graph needs {what}"):
        stbp.fit("digits-mlp", device=DEVICE, graph=True, report=Silent(), **TINY, **fields)


def test_a_graph_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(dispatch, "triton", lambda *tensors: False)
    with pytest.raises(ValueError, match="graph needs a CUDA device, and Triton"):
        stbp.fit("digits-mlp", device="cpu", graph=True, report=Silent(), **TINY)
