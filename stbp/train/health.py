"""Health of a spiking network: silent failures, found in one batch and said in words, with what to change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from stbp.nn.record import Trace, describe, record
from stbp.ops.spikes import Spikes
from stbp.ops.surrogate.curves import TABLE

# Shares from which a layer is reported.
DEAD, SILENT, ALWAYS, OUT_OF_REACH, VANISHING = 0.5, 0.9, 0.5, 0.99, 1e-4


@dataclass(frozen=True)
class Finding:
    """One ailment of one layer."""

    kind: Literal["dead", "silent", "always", "reach", "gradient"]
    layer: str
    problem: str
    advice: str
    # No neuron of the output fired or is within reach, so no gradient enters the network: it cannot learn.
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.layer}: {self.problem}; {self.advice}"


def examine(
    net: torch.nn.Module,
    traces: Sequence[Trace],
    gradients: Sequence[tuple[str, float | None]] = (),
    early: bool = False,
) -> list[Finding]:
    """Look for layers that never fire, always fire or lie out of the surrogate's reach, and for vanishing gradients.

    Args:
        traces: what `stbp.nn.record` returned for one batch.
        gradients: names of parameters and the norms of their gradients, None without one; input side first.
        early: in the first steps outputs may be silent, as long as the surrogate reaches them.
    """
    findings = [finding for trace in traces for finding in _examine_layer(net, trace, early)]
    if gradients:
        findings += _examine_gradients(net, gradients)
    return findings


class Watch:
    """The health of a network in training: looked at after a backward pass, each finding said once."""

    def __init__(self, net: torch.nn.Module, say: Callable[[str], None]):
        self.net, self.say = net, say
        self.known: set[tuple[str, str]] = set()

    def look(self, x: Tensor | Spikes) -> None:
        """Examine the network, whose parameters hold the gradients of the batch x."""
        gradients = [
            (name, None if p.grad is None else p.grad.norm().item())
            for name, p in self.net.named_parameters()
            if p.requires_grad and (p.dim() > 1 or p.grad is None)
        ]
        for finding in examine(self.net, record(self.net, x), gradients, early=True):
            if (finding.layer, finding.kind) not in self.known:
                self.known.add((finding.layer, finding.kind))
                self.say(f"health: {finding}")


def firing_rates(traces: Sequence[Trace]) -> list[float]:
    """Spikes per neuron and step of every neuron layer."""
    return [trace.o.mean().item() for trace in traces]


def _examine_layer(net: torch.nn.Module, trace: Trace, early: bool) -> list[Finding]:
    module: Any = trace.neurons
    if trace.u is None or not hasattr(module, "surrogate"):
        return []
    name, is_output = describe(net, trace.layer), list(net.modules())[-1] is module
    u, o = (part.flatten(2) for part in (trace.u, trace.o))
    steps, samples, neurons = o.shape
    largest = u.max().item()
    seen = f"in {samples} samples of {steps} steps (threshold {module.threshold:g}, largest potential {largest:.3g})"
    reach = TABLE[module.surrogate].reach * module.width
    curve = f"the surrogate's reach ({module.surrogate}, {reach:.3g} to either side of the threshold)"
    reached = (u - module.threshold).abs() < reach
    silent, always = ~o.any(1).any(0), o.all(1).all(0)
    dead = silent & ~reached.any(1).any(0)
    outside = 1 - reached.float().mean().item()

    findings = []
    if dead.sum() >= DEAD * neurons or (is_output and dead.any()):
        problem = f"{_many(dead)} never fired and never came within {curve} {seen}: no gradient can wake them"
        findings.append(
            Finding("dead", name, problem, f"widen the surrogate, {_lower(largest)}", is_output and bool(dead.all()))
        )
    elif (silent.any() and not early) if is_output else silent.sum() >= SILENT * neurons:
        problem = f"{_many(silent)} never fired {seen}"
        findings.append(Finding("silent", name, problem, _lower(largest)))
    if always.sum() >= ALWAYS * neurons:
        advice = "raise the threshold, lower the learning rate, or use init balanced"
        findings.append(Finding("always", name, f"{_many(always)} fired in every step {seen}", advice))
    if outside >= OUT_OF_REACH and not dead.all():
        problem = f"{100 * outside:.3g} % of the potentials are out of {curve}, where no gradient passes"
        findings.append(Finding("reach", name, problem, f"widen the surrogate, {_lower(largest)}"))
    return findings


def _lower(largest: float) -> str:
    return (
        f"lower the threshold (to {largest / 2:.2g}, say) or use init balanced" if largest > 0 else "use init balanced"
    )


def _many(neurons: torch.Tensor) -> str:
    part, whole = int(neurons.sum()), len(neurons)
    return f"all {whole} neurons" if part == whole else f"{part} of {whole} neurons"


def _examine_gradients(net: torch.nn.Module, gradients: Sequence[tuple[str, float | None]]) -> list[Finding]:
    largest = max((norm for _, norm in gradients if norm is not None), default=0.0)
    findings = []
    for name, norm in gradients:
        layer = owner(net, name)
        if not norm:
            problem = (
                f"no gradient reaches its {name.rpartition('.')[2]}, so it does not learn: look at what is behind it"
            )
            advice = "see above for silent layers and the surrogate's reach"
            if norm is None:
                advice = "is it part of the output, and nothing detached on the way?"
            findings.append(Finding("gradient", layer, problem, advice))
        elif norm < VANISHING * largest:
            problem = f"its gradient ({norm:.1e}) is {largest / norm:.0e} times smaller than the largest layer's"
            findings.append(
                Finding("gradient", layer, problem, "widen the surrogate, use init balanced or fewer layers")
            )
    return findings


def owner(net: torch.nn.Module, parameter: str) -> str:
    """The layer that holds a parameter, in words."""
    layer = parameter.rpartition(".")[0]
    return describe(net, layer) if layer else type(net).__name__
