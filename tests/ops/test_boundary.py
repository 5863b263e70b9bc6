"""What Python and the compiled kernels must agree on."""

import ctypes
import faulthandler
import os
import signal
from typing import get_args

import pytest

from stbp.names import Surrogate
from stbp.ops import call, native
from stbp.ops.neuron.op import NeuronStruct

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
    library = native.kernels()
    assert library is not None
    names = ctypes.CFUNCTYPE(ctypes.c_char_p)(("stbp_curves", library))
    assert tuple(names().decode().split(",")) == get_args(Surrogate)


def test_the_structures_have_the_size_that_the_kernels_expect():
    assert native.call("stbp_size_of_stage") == ctypes.sizeof(call._Stage)
    assert native.call("stbp_size_of_window") == ctypes.sizeof(call._Window)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that may end")
@pytest.mark.parametrize("number", [-1, len(get_args(Surrogate))])
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
