"""`build`: a network from the paper's notation."""

import math
import re

import torch

from stbp.names import GateName, Init, Surrogate
from stbp.nn.init import initialise
from stbp.nn.layers import LIF, AvgPool2d, Conv2d, Flatten, Linear
from stbp.nn.network import Network
from stbp.ops.neuron.op import check_neuron
from stbp.ops.neuron.reference import Gate


def build(
    notation: str,
    decay: float = 0.2,
    threshold: float = 0.5,
    surrogate: Surrogate = "rectangle",
    width: float = 1.0,
    gate: GateName | Gate = "linear",
    init: Init = "balanced",
    input_rate: float = 0.1,
    seed: int = 0,
    bias: float = 0.0,
) -> Network:
    """A network from the paper's notation, such as `784-800-10`, `28x28-15C5-P2-40C5-P2-300-10`, `34x34x2-800-10`.

    `28x28`, `34x34x2`: input, height x width x channels; `nCk`: n maps, k x k kernel, stride 1, no padding, then LIF;
    `Pk`: k x k average, stride k, without neurons; a number: Linear, then LIF, the last one too.

    Args:
        decay, threshold, surrogate, width, gate: the neurons, as `stbp.ops.lif`.
        init, input_rate, seed, bias: as `initialise`. Weights depend on `seed` alone,
            `torch.manual_seed` has no effect.

    Raises:
        ValueError: the message names the part of the notation, or the argument, and what is allowed.
    """
    check_neuron(decay, threshold, surrogate, width, gate)
    size, parts = parse(notation)
    if isinstance(parts[0], int):
        size = (math.prod(size),)
    modules: list[torch.nn.Module] = []
    for position, part in enumerate(parts, start=2):
        if isinstance(part, int):
            if len(size) > 1:
                modules.append(Flatten())
            modules.append(torch.nn.utils.skip_init(Linear, math.prod(size), part))
            size = (part,)
        else:
            size = _append_maps(modules, part, size, f"part {position} of network {notation!r} is {part[0]!r}")
        if not isinstance(modules[-1], AvgPool2d):
            modules.append(LIF(decay, threshold, surrogate, width, gate))
    net = Network(*modules)
    initialise(net, init, input_rate, seed, bias)
    return net


def _append_maps(
    modules: list[torch.nn.Module], part: tuple[str, int, int], size: tuple[int, ...], where: str
) -> tuple[int, ...]:
    """Append one `nCk` (maps, k) or `Pk` (0, k) to the modules; return the size `(C, H, W)` behind it."""
    _, maps, k = part
    if len(size) != 3:
        raise ValueError(
            f"{where}: it needs maps, but what comes before it is {size[0]} numbers without height and width"
        )
    c, h, w = size
    if k > min(h, w):
        raise ValueError(f"{where}: it is {k} pixels wide, but what comes before it is {h}x{w}")
    if maps:
        modules.append(torch.nn.utils.skip_init(Conv2d, c, maps, k))
        return maps, h - k + 1, w - k + 1
    modules.append(AvgPool2d(k))
    return c, h // k, w // k


def parse(notation: str) -> tuple[tuple[int, ...], list[int | tuple[str, int, int]]]:
    """Size of the input, `(N,)` or `(C, H, W)`, and the parts: a number, or `(text, maps, k)` with 0 maps for `Pk`."""
    first, *rest = notation.split("-")
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*)(?:x([1-9]\d*))?)?", first)
    if match is None:
        raise ValueError(f"part 1 of network {notation!r} is {first!r}: the input must be like 784, 28x28 or 34x34x2")
    height, width, channels = (int(group) if group else None for group in match.groups())
    assert height is not None
    size = (height,) if width is None else (channels or 1, height, width)
    parts: list[int | tuple[str, int, int]] = []
    for position, text in enumerate(rest, start=2):
        match = re.fullmatch(r"(?:(?P<maps>[1-9]\d*)C|(?P<pool>P))?(?P<n>[1-9]\d*)", text)
        if match is None:
            raise ValueError(
                f"part {position} of network {notation!r} is {text!r}: it must be like 15C5 (maps), P2 (pooling) or 300"
            )
        n = int(match["n"])
        parts.append((text, int(match["maps"] or 0), n) if match["maps"] or match["pool"] else n)
    if not parts or not isinstance(parts[-1], int):
        raise ValueError(f"network {notation!r} must end in the number of its outputs, as 10 in 784-800-10")
    return size, parts
