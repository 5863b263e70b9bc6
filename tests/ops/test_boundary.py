"""What Python and the compiled kernels must agree on."""

import ctypes
import faulthandler
import os
import signal
from pathlib import Path
from typing import get_args

import pytest
import sympy
import torch

from stbp import ops
from stbp.names import Surrogate
from stbp.ops import call, native
from stbp.ops.neuron.op import NeuronStruct
from stbp.ops.spikes import pack_bits
from stbp.ops.stage import Neuron, Stage, conv_stage, current_stage, linear_stage
from tests.ops.against import random, spikes

if native.kernels() is None:
    pytest.skip(f"no kernels to test: {native.why_not()}", allow_module_level=True)


@pytest.fixture(autouse=True, params=native.supported())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Every test runs on every instruction set."""
    monkeypatch.setenv("STBP_KERNELS", request.param)
    native._load.cache_clear()
    yield request.param
    native._load.cache_clear()


def test_the_kernels_know_the_surrogates_by_their_numbers():
    assert set(native.curves()) <= set(get_args(Surrogate))


def test_the_structures_have_the_size_that_the_kernels_expect():
    assert native.call("stbp_size_of_stage") == ctypes.sizeof(call._Stage)
    assert native.call("stbp_size_of_window") == ctypes.sizeof(call._Window)
    assert native.call("stbp_size_of_report") == ctypes.sizeof(call._Report)


def test_the_readme_explains_what_the_kernels_report():
    readme = (Path(ops.__file__).parent / "README.md").read_text()
    assert all(f"`{name}`" in readme for name in native.names("stbp_paths") if name)


NEURON = Neuron.of(0.3, 0.5, "rectangle", 1.0)
RUNS = {
    "linear": [linear_stage((40,), 63, True), linear_stage((63,), 10, False), linear_stage((10,), 4, True)],
    "lookup": [conv_stage((1, 12, 12), (15, 1, 5, 5), True), linear_stage((15, 8, 8), 5, True, pool=2)],
    "maps": [
        conv_stage((3, 9, 9), (20, 3, 3, 3), True, stride=2, padding=1),
        conv_stage((20, 5, 5), (33, 20, 2, 2), False, pool=2),
        linear_stage((33, 1, 1), 17, True),
        linear_stage((17,), 3, True),
    ],
    "current": [
        current_stage((3, 8, 8), None),
        conv_stage((3, 8, 8), (20, 3, 3, 3), True),
        linear_stage((20, 6, 6), 4, True),
    ],
}
BEHIND = 4096  # bytes, in which a kernel that writes too far would be seen


def left_behind(stages: list[Stage], T: int, B: int, fill: int) -> list[torch.Tensor]:
    """Return what a run saves in memory that was filled with a byte before; none behind it may have changed."""
    current = stages[0].kind == "current"
    first = stages[0].C * stages[0].H * stages[0].W
    x = random(T, B, first) if current else pack_bits(spikes(T, B, first) != 0)
    parameters = []
    for i, stage in enumerate(stages):
        if stage.kind != "current":
            pixels = stage.k**2 if stage.kind == "conv2d" else (stage.H // stage.pool) * (stage.W // stage.pool)
            parameters += [random(stage.M, stage.C * pixels, seed=i)] + [random(stage.M, seed=i)] * stage.bias
    made = call.Call(x, stages, parameters, True)
    whole = [torch.full((size + BEHIND,), fill, dtype=torch.uint8) for size in made.form.saved]
    made.keep(*whole)
    out = torch.empty(T, B, *stages[-1].outputs)
    made.forward(out)
    gradients = [torch.empty_like(tensor) for tensor in (x, *parameters)]
    made.backward(random(*out.shape), gradients, [current, *[True] * len(parameters)])
    for tensor, size in zip(whole, made.form.saved, strict=True):
        assert (tensor[size:] == fill).all()
    return [tensor[:size] for tensor, size in zip(whole, made.form.saved, strict=True)]


@pytest.mark.parametrize(("T", "B"), [(1, 1), (7, 5), (33, 9)])
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("curve", "width"), [("rectangle", 1.0), ("rectangle", 1e6), ("polynomial", 1.0)])
def test_kernels_write_what_they_ask_for_and_no_byte_more(run, T, B, curve, width):
    neuron = NEURON._replace(surrogate=curve, width=width)  # with a width of 1e6 every potential is kept
    stages = [stage._replace(neuron=neuron) for stage in RUNS[run] if isinstance(stage, Stage)]
    some, others = (left_behind(stages, T, B, fill) for fill in (0x00, 0xFF))
    if curve != "rectangle":  # nothing is left out: every byte, the last one too, is written
        assert all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_the_bytes_asked_for_are_the_same_where_the_window_is_a_symbol():
    stages = [stage._replace(neuron=NEURON) for stage in RUNS["maps"] if isinstance(stage, Stage)]
    T, B = sympy.symbols("T B")
    for total, number in zip(call.saved_bytes(stages, T, B, True), call.saved_bytes(stages, 7, 5, True), strict=True):
        assert total.subs({T: 7, B: 5}) == number > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that may end")
@pytest.mark.parametrize("number", [-1, len(native.curves())])
def test_an_unknown_surrogate_is_no_other_curves_gradient(number):
    neuron = NeuronStruct(surrogate=number)
    out, into = os.pipe()
    child = os.fork()
    if not child:
        faulthandler.disable()
        os.dup2(into, 2)
        native.call("stbp_lif_backward", *[None] * 5, ctypes.byref(neuron), 0, ctypes.c_int64(0), *[None] * 3, 1)
        os._exit(0)
    os.close(into)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(out) as said:
        assert f"surrogate number {number}, which it does not know" in said.read()
    assert os.WTERMSIG(status) == signal.SIGABRT
