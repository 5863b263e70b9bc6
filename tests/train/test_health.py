import pytest
import torch

from stbp import loss, nn
from stbp.nn.record import Trace, record
from stbp.train import health


def batch(n: int = 50, rate: float = 0.13) -> torch.Tensor:
    return (torch.rand(20, n, 784, generator=torch.Generator().manual_seed(0)) < rate).float()


def kinds(findings: list[health.Finding]) -> set[tuple[str, str]]:
    return {(finding.kind, finding.layer.split(" (")[0]) for finding in findings}


def test_a_balanced_network_has_no_finding():
    net = nn.build("784-200-10", threshold=0.3, input_rate=0.13)
    assert health.examine(net, record(net, batch()), early=True) == []


def test_the_papers_silent_setting_is_explained():
    """Table 1 on MNIST: threshold 1.5, tau 0.1, a1 = 1, unit rows (LOG.md)."""
    net = nn.build("784-400-10", decay=0.1, threshold=1.5, init="paper")
    loss.rate_mse(net(batch()), torch.zeros(50, dtype=torch.int64)).backward()
    gradients = [(f"{i}.weight", net.get_parameter(f"{i}.weight").grad.norm().item()) for i in (0, 2)]  # pyright: ignore
    findings = health.examine(net, record(net, batch()), gradients, early=True)
    assert {("dead", "layer 3"), ("gradient", "layer 0"), ("gradient", "layer 2")} <= kinds(findings)
    assert {kind for kind, layer in kinds(findings) if layer == "layer 1"} & {"dead", "silent", "reach"}
    text = next(str(finding) for finding in findings if finding.kind == "dead" and "layer 3" in finding.layer)
    assert "all 10 neurons never fired" in text
    assert "threshold 1.5" in text
    assert "lower the threshold" in text


def one_layer(u: float, early: bool = False, surrogate: str = "rectangle") -> set[tuple[str, str]]:
    """Findings for a layer of ten neurons that all get the current u in every step, without memory."""
    net = nn.Network(nn.LIF(decay=0.0, threshold=0.5, surrogate=surrogate), nn.Linear(10, 2), nn.LIF())  # pyright: ignore
    trace = Trace("0", net[0], torch.full((5, 4, 10), u), (torch.full((5, 4, 10), u) >= 0.5).float())
    return kinds(health.examine(net, [trace], early=early))


def test_each_ailment_has_its_name():
    assert one_layer(-0.1) == {("dead", "layer 0")}
    assert one_layer(0.2) == {("silent", "layer 0")}
    assert one_layer(0.7) == {("always", "layer 0")}
    assert one_layer(1.7) == {("always", "layer 0"), ("reach", "layer 0")}
    assert one_layer(1.2, surrogate="sigmoid") == {("always", "layer 0")}


def test_a_silent_output_is_reported_late_but_not_early():
    net = nn.build("784-10")
    u = torch.full((5, 4, 10), 0.9)
    u[..., 3] = 0.1
    trace = Trace("1", net[1], u, (u >= 0.5).float())
    assert kinds(health.examine(net, [trace], early=True)) == {("always", "layer 1")}
    assert kinds(health.examine(net, [trace])) == {("always", "layer 1"), ("silent", "layer 1")}


@pytest.mark.parametrize(
    ("norms", "found"), [([1e-6, 1.0], {"layer 0"}), ([0.0, 1.0], {"layer 0"}), ([0.1, 1.0], set())]
)
def test_a_vanishing_gradient_is_reported(norms, found):
    net = nn.build("784-20-10")
    findings = health.examine(net, [], list(zip(("0.weight", "2.weight"), norms, strict=True)))
    assert {layer for _, layer in kinds(findings)} == found


def test_firing_rates_are_spikes_per_neuron_and_step():
    o = torch.zeros(4, 2, 5)
    o[0] = 1
    assert health.firing_rates([Trace("0", nn.LIF(), o, o)]) == [0.25]


@pytest.mark.parametrize(("width", "bias", "fatal"), [(1.0, 0.0, True), (3.5, 0.0, False), (1.0, 1.2, False)])
def test_only_an_output_wholly_out_of_reach_is_fatal(width, bias, fatal):
    net = nn.build("8-6-3", threshold=1.5, width=width)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.get_parameter("2.bias")[0] = bias
    found = health.examine(net, record(net, torch.ones(4, 2, 8)))
    assert any(finding.fatal for finding in found) == fatal
