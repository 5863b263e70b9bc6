"""`Stage` and `Neuron`: a synapse with its pooling and its neurons, the unit that a run of layers is made of.

A stage is the same object from a module down to `ops/call.py`, which lays it out for C++.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from stbp.names import GateName, Surrogate
from stbp.ops.neuron.reference import Gate, gates

Kind = Literal["current", "linear", "conv2d"]

KINDS: tuple[Kind, ...] = get_args(Kind)
CURVES: tuple[Surrogate, ...] = get_args(Surrogate)
# Pixels, the largest side of a pooled area: the kernels count the spikes of one in 7 bits.
MAX_POOL = 11


class Neuron(NamedTuple):
    """Constants of a layer of LIF neurons: both gates, threshold and surrogate."""

    # f(o) of the forward pass at o = 0 and at o = 1.
    keep0: float
    keep1: float
    # f and f' of the backward pass.
    back0: float
    back1: float
    slope0: float
    slope1: float
    # In units of u.
    threshold: float
    width: float
    surrogate: str

    @classmethod
    def of(
        cls, decay: float, threshold: float, surrogate: str, width: float, gate: GateName | Gate = "linear"
    ) -> "Neuron":
        """Return the constants that the arguments of `stbp.ops.lif` stand for; a `Gate` replaces `decay`."""
        forward, backward = (gate, gate) if isinstance(gate, Gate) else gates(gate, decay)
        return cls(*forward[:2], *backward, float(threshold), float(width), surrogate)

    @property
    def forward_gate(self) -> Gate:
        """f of the forward pass; its slopes are not read."""
        return Gate(self.keep0, self.keep1, 0.0, 0.0)

    @property
    def backward_gate(self) -> Gate:
        """f and f' of the backward pass."""
        return Gate(self.back0, self.back1, self.slope0, self.slope1)


class Stage(NamedTuple):
    """One step of a run of layers: [average pooling] + synapse + [neurons], or neurons behind a current."""

    kind: Kind
    # Maps of the input, before the pooling; N, 1, 1 without maps.
    C: int
    H: int
    W: int
    # Side of the pooled areas, 1 without pooling.
    pool: int
    # Neurons or maps of the output.
    M: int
    # Side of a convolution's kernel, its stride and its padding; 1, 1, 0 for the other kinds.
    k: int
    stride: int
    pad: int
    # True if the synapse adds a bias.
    bias: bool
    # None: the output is the current itself.
    neuron: Neuron | None = None
    # Name of the synapse in its network (of the neurons, behind a current).
    layer: str = ""

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of the output maps; 1, 1 without maps."""
        if self.kind == "current":
            return self.H, self.W
        if self.kind == "linear":
            return 1, 1
        height, width = ((side // self.pool + 2 * self.pad - self.k) // self.stride + 1 for side in (self.H, self.W))
        return height, width

    @property
    def outputs(self) -> tuple[int, ...]:
        """Shape of the output without T and B: `(M,)` or `(M, height, width)`."""
        without_maps = self.kind == "linear" or (self.kind == "current" and self.H * self.W == 1)
        return (self.M,) if without_maps else (self.M, *self.side)


class Refused(NamedTuple):
    """Reason why something cannot be a stage."""

    reason: str


def current_stage(size: Sequence[int], neuron: Neuron | None) -> Stage | Refused:
    """Return the stage of neurons behind a current of `size`, `(N,)` or `(C, H, W)`; with no neuron yet, None."""
    if len(size) not in (1, 3):
        return Refused(f"a current of {len(size)} axes behind [T, B]: the kernels take [T, B, N] or [T, B, C, H, W]")
    maps, height, width = (*size, 1, 1)[:3]
    if len(size) == 3 and height * width == 1:
        return Refused("a current of maps of one pixel: the kernels take it flattened, [T, B, N]")
    return Stage("current", maps, height, width, 1, maps, 1, 1, 0, False, neuron)


def linear_stage(
    size: Sequence[int], outputs: int, bias: bool, pool: int = 1, neuron: Neuron | None = None
) -> Stage | Refused:
    """Return the stage of a linear synapse behind maps `(C, H, W)`, average pooling in front, or behind `(N,)`."""
    refused = _wrong_pooling(size, pool)
    if refused:
        return refused
    maps, height, width = (*size, 1, 1)[:3]
    return Stage("linear", maps, height, width, pool, outputs, 1, 1, 0, bias, neuron)


def conv_stage(
    size: Sequence[int],
    weight: Sequence[int],
    bias: bool,
    stride: int = 1,
    padding: int = 0,
    pool: int = 1,
    neuron: Neuron | None = None,
) -> Stage | Refused:
    """Return the stage of a convolution of maps `(C, H, W)`, average pooling in front, with a weight `[M, C, k, k]`."""
    M, C, k, other = weight
    if len(size) != 3 or size[0] != C:
        return Refused(f"an input of {'x'.join(map(str, size))} does not go with a weight for {C} maps")
    refused = _wrong_pooling(size, pool)
    if refused:
        return refused
    if k != other:
        return Refused(f"kernel {k}x{other}: the CPU kernels take square ones")
    if min(size[1:]) // pool + 2 * padding < k:
        return Refused(f"kernel {k}x{k}: larger than its input of {size[1] // pool}x{size[2] // pool}")
    return Stage("conv2d", C, size[1], size[2], pool, M, k, stride, padding, bias, neuron)


def _wrong_pooling(size: Sequence[int], pool: int) -> Refused | None:
    if len(size) not in (1, 3):
        return Refused(f"an input of {len(size)} axes behind [T, B]: the kernels take [T, B, N] or [T, B, C, H, W]")
    if pool == 1:
        return None
    if len(size) != 3 or min(size[1:]) < pool:
        return Refused(f"pooling {pool}x{pool}: its input, {'x'.join(map(str, size))}, has no such areas")
    if pool > MAX_POOL:
        return Refused(f"pooling {pool}x{pool}: the CPU kernels take at most {MAX_POOL}x{MAX_POOL}")
    return None


Numbers = tuple[list[int], list[float]]


def encode(stages: Sequence[Stage]) -> Numbers:
    """Return stages as whole numbers and floats, all that torch's dispatcher takes; names of layers are left out."""
    whole, floats = [], []
    for stage in stages:
        neuron = stage.neuron
        curve = -1 if neuron is None else CURVES.index(neuron.surrogate)
        whole += [KINDS.index(stage.kind), *map(int, stage[1:10]), curve]
        floats += [] if neuron is None else neuron[:-1]
    return whole, floats


def decode(whole: Sequence[int], floats: Sequence[float]) -> list[Stage]:
    """Return the stages that `encode` was given."""
    stages, rest = [], iter(floats)
    for i in range(0, len(whole), 11):
        kind, *numbers, bias, curve = whole[i : i + 11]
        neuron = None if curve < 0 else Neuron._make((*(next(rest) for _ in range(8)), CURVES[curve]))
        stages.append(Stage._make((KINDS[kind], *numbers, bool(bias), neuron, "")))
    return stages
