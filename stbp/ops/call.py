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
from stbp.ops.stage import Neuron, Stage

_CURRENT, _LINEAR, _CONV, _LOOKUP = range(4)  # `Kind` in stage.h
PARTS = 8  # as in window.h
# What the numbers mean that the kernels report, forward, weight and input.
PATHS = ("", "events", "dense", "events by sample", "events by input", "lookup", "events by step")
_OPERATORS = {"current": "lif", "linear": "linear", "conv2d": "conv2d"}
_LOOKUP_ROWS = 16
_LOOKUP_BYTES = 48 << 10  # of tables: what stays in the first cache beside the rows of the input
_LOOKUP_WIDTH = 56  # pixels of a row that fit into one word, padding included

_NO_NEURON = Neuron(0, 0, 0, 0, 0, 0, 1, 1, "rectangle")  # of a stage that has none


class _Stage(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_int32)
            for name in ("kind", "C", "H", "W", "pool", "M", "k", "pad", "OH", "OW", "fires", "complement")
        ),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "grad_weight", "grad_bias", "bits", "u", "inside")),
        ("neuron", NeuronStruct),
    )

    @classmethod
    def of(cls, stage: Stage, first: bool) -> "_Stage":
        """Return the stage in C's layout, without addresses; `first` reads the bits that the call is given."""
        height, width = stage.side
        fires = stage.neuron is not None
        row = cls(
            kind=_kind(stage, first and fires), C=stage.C, H=stage.H, W=stage.W, pool=stage.pool,
            M=stage.M, k=stage.k, pad=stage.pad, OH=height, OW=width,
            fires=fires, complement=fires and stage.kind != "current",
        )  # fmt: skip
        row.neuron = NeuronStruct.of(stage.neuron or _NO_NEURON)
        return row


def _kind(stage: Stage, of_bits: bool) -> int:
    """Return the kernel of a stage; a lookup of whole rows of pixels will do for few maps behind the call's bits."""
    if stage.kind != "conv2d":
        return _CURRENT if stage.kind == "current" else _LINEAR
    rows = stage.C * stage.k
    tables = rows * 2**stage.k * -(-stage.M // 16) * 64
    fits = rows <= _LOOKUP_ROWS and tables <= _LOOKUP_BYTES and stage.W + 2 * stage.pad <= _LOOKUP_WIDTH
    return _LOOKUP if of_bits and stage.pool == 1 and stage.M <= 16 and fits else _CONV


class _Window(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("T", "B", "threads", "skip")),
        *((name, ctypes.c_void_p) for name in ("bits", "current", "out", "grad", "grad_current", "density", "path")),
    )


def _word(structure: type[ctypes.Structure], name: str, before: int = 0) -> int:
    """Number of the 64-bit word that holds an address, `before` bytes into the call."""
    return (before + getattr(structure, name).offset) // 8


_OUT, _GRAD, _DENSITY, _PATH = (_word(_Window, name) for name in ("out", "grad", "density", "path"))


def _sizes(stages: Sequence[Stage], T: Any, B: Any, save: bool) -> list[tuple[Any, ...]]:
    """Bytes that each stage leaves behind: potentials of maps inside a window, others, which are inside, spikes.

    T and B are numbers, symbolic ones under torch.compile.
    With the rectangle only the potentials inside its window are written, except of the last stage (window.h): what the
    others would have taken is asked for, but never touched.
    """
    sizes = []
    for i, stage in enumerate(stages):
        frames, last, linear = T * B, i == len(stages) - 1, stage.kind == "linear"
        kind, positions = _kind(stage, i == 0 and stage.neuron is not None), math.prod(stage.side)
        row = positions * -(-stage.M // 16) * 16  # potentials of a step of a sample: maps in whole units of 16
        kept = save and stage.neuron is not None and kind != _LOOKUP
        rectangle = stage.neuron is not None and stage.neuron.surrogate == "rectangle"
        window = kept and kind != _CURRENT and rectangle and not last
        units = row // 16
        # a vector more for each stretch: its last one is written whole
        maps = B * (4 * T * positions * stage.M + 64) if window and not linear else 0
        others = 4 * frames * row + (64 * PARTS * units if window else 0) if kept and not maps else 0
        spikes = frames * row // 8
        inside = units * B * (4 * T + 8) if linear else -(-spikes // 4) * 4  # marks and places, or bits; aligned
        sizes.append((maps, others, inside if window else 0, 0 if last else spikes))
    return sizes


def saved_bytes(stages: Sequence[Stage], T: Any, B: Any, save: bool) -> tuple[Any, Any]:
    """Bytes of the two tensors that are saved; what is large is one of them, which the allocator keeps more easily."""
    sizes = _sizes(stages, T, B, save)
    return sum(size[0] for size in sizes), sum(sum(size[1:]) for size in sizes)


class _Form(NamedTuple):
    """A call without its addresses; places of addresses are numbers of 64-bit words."""

    template: bytes  # a window, its stages, then what the kernels report: density and path, three of each for a stage
    words: type[ctypes.Array[ctypes.c_uint64]]
    inputs: tuple[int, ...]  # of x and the parameters
    gradients: tuple[int, ...]
    kept: tuple[tuple[int, int, int], ...]  # a place, which of the two saved tensors, how many bytes into it
    saved: tuple[int, int]  # bytes of these
    density: int  # bytes from the start
    path: int


def _places(stages: Sequence[Stage], names: tuple[str, str, str]) -> tuple[int, ...]:
    """Where the addresses of x and the parameters, or of their gradients, go."""
    first, weight, bias = names
    places = [_word(_Window, first)]
    for i, stage in enumerate(stages):
        before = ctypes.sizeof(_Window) + i * ctypes.sizeof(_Stage)
        places += [_word(_Stage, weight, before)] * (stage.kind != "current")
        places += [_word(_Stage, bias, before)] * stage.bias
    return tuple(places)


def _kept(stages: Sequence[Stage], sizes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, int, int], ...]:
    """Every stage's parts of what is saved: potentials first, they are aligned."""
    kept, at = [], [0, 0]
    for part, name in enumerate(("u", "u", "inside", "bits")):
        tensor = min(part, 1)
        for i, size in enumerate(sizes):
            if size[part]:
                before = ctypes.sizeof(_Window) + i * ctypes.sizeof(_Stage)
                kept.append((_word(_Stage, name, before), tensor, at[tensor]))
                at[tensor] += size[part]
    return tuple(kept)


# The arguments are hashed for every call: a microsecond, a tenth of what making the form takes.
@functools.lru_cache(maxsize=256)
def _form(stages: tuple[Stage, ...], T: int, B: int, save: bool, threads: int, skip: bool) -> _Form:
    rows = (_Stage * len(stages))(*(_Stage.of(stage, i == 0) for i, stage in enumerate(stages)))
    template = bytes(_Window(T=T, B=B, threads=threads, skip=skip)) + bytes(rows)
    density = len(template)
    path = density + 3 * len(stages) * ctypes.sizeof(ctypes.c_double)
    template = template.ljust(path + -(-3 * len(stages) // 2) * 8, b"\0")
    sizes = _sizes(stages, T, B, save)
    return _Form(
        template,
        ctypes.c_uint64 * (len(template) // 8),
        _places(stages, ("current" if stages[0].kind == "current" else "bits", "weight", "bias")),
        _places(stages, ("grad_current", "grad_weight", "grad_bias")),
        _kept(stages, sizes),
        saved_bytes(stages, T, B, save),
        density,
        path,
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
        start = ctypes.addressof(self.words)
        self.words[_DENSITY], self.words[_PATH] = start + self.form.density, start + self.form.path

    def keep(self, window: Tensor, rest: Tensor) -> None:
        """Point every stage at its parts of what is saved."""
        starts = window.data_ptr(), rest.data_ptr()
        for place, tensor, offset in self.form.kept:
            self.words[place] = starts[tensor] + offset

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

    def note(self, steps: dict[int, str], layer: str | None = None) -> None:
        """Tell the watcher, if there is one, what was taken, and by which layers: `layer`, or the stages' own."""
        if not dispatch.watched():
            return
        n = 3 * len(self.stages)
        densities = (ctypes.c_double * n).from_buffer(self.words, self.form.density)
        taken = (ctypes.c_int32 * n).from_buffer(self.words, self.form.path)
        for i, stage in enumerate(self.stages):
            for column, step in steps.items():
                kernel = PATHS[taken[3 * i + column]]
                if kernel:
                    density = math.nan if column == 1 else densities[3 * i + min(column, 1)]
                    name = stage.layer if layer is None else layer
                    dispatch.note(_OPERATORS[stage.kind], step, kernel, density, name)
