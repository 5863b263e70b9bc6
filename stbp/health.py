"""What makes spiking networks fail silently, found in one batch and said in words, with what to change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from stbp.nn import LIF, Network, Trace
from stbp.ops.surrogate import REACH

# Shares from which a layer is reported.
SILENT, ALWAYS, OUT_OF_REACH, VANISHING = 0.9, 0.5, 0.99, 1e-4


@dataclass(frozen=True)
class Finding:
    """One ailment of one layer."""

    kind: Literal["silent", "always", "reach", "gradient"]
    layer: str
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.problem}; {self.advice}"


def examine(net: Network, traces: Sequence[Trace], gradients: Sequence[tuple[int, float]] = ()) -> list[Finding]:
    """Look for layers that never fire, always fire or lie out of the surrogate's reach, and for vanishing gradients.

    Args:
        traces: what `net.record` returned for one batch.
        gradients: for each synapse its index in the network and the norm of its weight's gradient, input side first.
    """
    findings = [finding for trace in traces for finding in _examine_layer(net, trace)]
    if gradients:
        findings += _examine_gradients(net, gradients)
    return findings


def firing_rates(traces: Sequence[Trace]) -> list[float]:
    """Spikes per neuron and step of every neuron layer."""
    return [trace.o.mean().item() for trace in traces]


def _examine_layer(net: Network, trace: Trace) -> list[Finding]:
    module = net[trace.index]
    assert isinstance(module, LIF)
    name = net.name(trace.index)
    steps, samples = trace.o.shape[:2]
    counts = trace.o.sum(0, dtype=torch.int64).flatten(1)  # [B, N]
    neurons = counts.shape[1]
    seen = f"in {samples} samples of {steps} steps"
    findings = []
    silent = int((counts.sum(0) == 0).sum())
    if silent >= SILENT * neurons:
        largest = trace.u.max().item()
        problem = (
            f"{_many(silent, neurons)} never fired {seen}: the largest potential was {largest:.3g}, "
            f"the threshold is {module.threshold:g}"
        )
        advice = (
            f"lower the threshold (to {max(largest, 0.05) / 2:.2g}, say) or use init balanced, which accounts for it"
        )
        findings.append(Finding("silent", name, problem, advice))
    always = int((counts == steps).all(0).sum())
    if always >= ALWAYS * neurons:
        problem = f"{_many(always, neurons)} fired in every step {seen}"
        findings.append(
            Finding("always", name, problem, "raise the threshold, lower the learning rate, or use init balanced")
        )
    reach = REACH[module.surrogate] * module.width
    distance = (trace.u - module.threshold).abs()
    outside = (distance >= reach).float().mean().item()
    if outside >= OUT_OF_REACH:
        typical = distance.median().item()
        problem = (
            f"{100 * outside:.3g} % of the potentials are out of reach of the surrogate ({module.surrogate}, "
            f"{reach:.3g} to either side of the threshold {module.threshold:g}), so no gradient passes there"
        )
        wider = 1.5 * typical / REACH[module.surrogate]
        advice = (
            f"widen the surrogate (width {wider:.2g} reaches half of them), lower the threshold, or use init balanced"
        )
        findings.append(Finding("reach", name, problem, advice))
    return findings


def _examine_gradients(net: Network, gradients: Sequence[tuple[int, float]]) -> list[Finding]:
    largest = max(norm for _, norm in gradients)
    findings = []
    for index, norm in gradients:
        if norm == 0:
            behind = next((i for i in range(index + 1, len(net)) if isinstance(net[i], LIF)), index)
            problem = (
                f"no gradient reaches its weights, so it does not learn: look at the neurons from layer {behind} on"
            )
            findings.append(
                Finding("gradient", net.name(index), problem, "see above for silent layers and the surrogate's reach")
            )
        elif norm < VANISHING * largest:
            problem = f"its gradient ({norm:.1e}) is {largest / norm:.0e} times smaller than the largest layer's"
            findings.append(
                Finding("gradient", net.name(index), problem, "widen the surrogate, use init balanced or fewer layers")
            )
    return findings


def _many(part: int, whole: int) -> str:
    return f"all {whole} neurons" if part == whole else f"{part} of {whole} neurons"
