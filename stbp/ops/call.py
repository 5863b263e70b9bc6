"""A call of the compiled kernels: stages and window in C's layout, and where in them the addresses go."""

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stbp.ops import dispatch, native
from stbp.ops.neuron.op import NeuronStruct
from stbp.ops.stage import KINDS, Neuron, Stage

_OPERATORS = {"current": "lif", "linear": "linear", "conv2d": "conv2d"}
FLOAT: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults are
_NO_NEURON = Neuron(0, 0, 0, 0, 0, 0, 1, 1, "rectangle")  # of a stage that has none


class _Stage(ctypes.Structure):
    """`StageOrder` in stage.h."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("kind", "C", "H", "W", "pool", "M", "k", "stride", "pad", "fires")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "grad_weight", "grad_bias")),
        ("neuron", NeuronStruct),
    )

    @classmethod
    def of(cls, stage: Stage) -> "_Stage":
        """Return the stage in C's layout, without addresses."""
        row = cls(KINDS.index(stage.kind), *stage[1:9], stage.neuron is not None)
        row.neuron = NeuronStruct.of(stage.neuron or _NO_NEURON)
        return row


class _Window(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("T", "B", "threads", "skip", "save")),
        *((name, ctypes.c_void_p) for name in ("bits", "current", "out", "grad", "grad_current")),
        *((name, ctypes.c_void_p) for name in ("window", "rest", "report")),
    )


class _Report(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_double) for name in ("events", "gradient")),
        *((name, ctypes.c_int32) for name in ("forward", "weight", "input")),
    )


def _word(structure: type[ctypes.Structure], name: str, before: int = 0) -> int:
    """Number of the 64-bit word that holds an address, `before` bytes into the call."""
    return (before + getattr(structure, name).offset) // 8


_OUT, _GRAD, _KEPT, _REST, _REPORT = (_word(_Window, name) for name in ("out", "grad", "window", "rest", "report"))


def _rows(stages: Sequence[Stage]) -> ctypes.Array[_Stage]:
    return (_Stage * len(stages))(*map(_Stage.of, stages))


def saved_bytes(stages: Sequence[Stage], T: Any, B: Any, save: bool) -> tuple[Any, Any]:
    """Return the bytes of the two tensors that are saved; T and B are numbers, symbolic ones under torch.compile."""
    sizes = (ctypes.c_int64 * 3 * 2)()
    native.call("stbp_chain_kept", _rows(stages), len(stages), save, sizes)
    window, rest = (fixed + sample * B + step * T * B for fixed, sample, step in sizes)
    return window, rest


class _Form(NamedTuple):
    """A call without its addresses; places of addresses are numbers of 64-bit words."""

    template: bytes  # a window, its stages, then their reports
    words: type[ctypes.Array[ctypes.c_uint64]]
    inputs: tuple[int, ...]  # of x and the parameters
    gradients: tuple[int, ...]
    saved: tuple[int, int]  # bytes of the two saved tensors
    reports: int  # bytes from the start


def _places(stages: Sequence[Stage], names: tuple[str, str, str]) -> tuple[int, ...]:
    """Where the addresses of x and the parameters, or of their gradients, go."""
    first, weight, bias = names
    places = [_word(_Window, first)]
    for i, stage in enumerate(stages):
        before = ctypes.sizeof(_Window) + i * ctypes.sizeof(_Stage)
        places += [_word(_Stage, weight, before)] * (stage.kind != "current")
        places += [_word(_Stage, bias, before)] * stage.bias
    return tuple(places)


# The arguments are hashed for every call: a small part of what making the form takes.
@functools.lru_cache(maxsize=256)
def _form(stages: tuple[Stage, ...], T: int, B: int, save: bool, threads: int, skip: bool) -> _Form:
    template = bytes(_Window(T, B, threads, skip, save)) + bytes(_rows(stages))
    reports = len(template)
    template += bytes(len(stages) * ctypes.sizeof(_Report))
    return _Form(
        template,
        ctypes.c_uint64 * (len(template) // 8),
        _places(stages, ("current" if stages[0].kind == "current" else "bits", "weight", "bias")),
        _places(stages, ("grad_current", "grad_weight", "grad_bias")),
        saved_bytes(stages, T, B, save),
        reports,
    )


class Call:
    """The arguments of a kernel; it keeps the tensors alive whose addresses they hold."""

    def __init__(self, x: Tensor, stages: Sequence[Stage], parameters: Sequence[Tensor], save: bool):
        self.stages = stages
        self.form = _form(tuple(stages), x.shape[0], x.shape[1], save, torch.get_num_threads(), dispatch.skip())
        self.words = self.form.words.from_buffer_copy(self.form.template)
        self.tensors = [tensor.contiguous() for tensor in (x, *parameters)]
        for place, tensor in zip(self.form.inputs, self.tensors, strict=True):
            self.words[place] = tensor.data_ptr()
        self.words[_REPORT] = ctypes.addressof(self.words) + self.form.reports

    def keep(self, window: Tensor, rest: Tensor) -> None:
        """Set the tensors that take what the stages leave behind."""
        self.words[_KEPT], self.words[_REST] = window.data_ptr(), rest.data_ptr()

    def forward(self, out: Tensor) -> None:
        """Run it; `out` takes the last stage's spikes or currents."""
        self.words[_OUT] = out.data_ptr()
        self._run("stbp_chain_forward")

    def backward(self, grad: Tensor, gradients: Sequence[Tensor], needs: Sequence[bool]) -> None:
        """Run it; `gradients` take those of x and the parameters, where they are needed."""
        self.words[_GRAD] = grad.data_ptr()
        for place, tensor, need in zip(self.form.gradients, gradients, needs, strict=True):
            if need:
                self.words[place] = tensor.data_ptr()
        self._run("stbp_chain_backward")

    def _run(self, name: str) -> None:
        stages = ctypes.byref(self.words, ctypes.sizeof(_Window))
        native.call(name, self.words, stages, len(self.stages))

    def note(self, steps: Sequence[str], layer: str | None = None) -> None:
        """Tell the watcher, if there is one, what was taken, and by which layers: `layer`, or the stages' own."""
        if not dispatch.watched():
            return
        names = native.names("stbp_paths")
        reports = (_Report * len(self.stages)).from_buffer(self.words, self.form.reports)
        for stage, report in zip(self.stages, reports, strict=True):
            shares = {"forward": report.events, "weight": math.nan, "input": report.gradient}
            name = stage.layer if layer is None else layer
            for step in steps:
                kernel = names[getattr(report, step)]
                if stage.kind == "current" and step != "weight":
                    kernel = "window"
                if kernel:
                    dispatch.note(_OPERATORS[stage.kind], step, kernel, shares[step], name)
