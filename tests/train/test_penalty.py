import pytest
import torch

from stbp import nn
from stbp.ops.spikes import Spikes
from stbp.train.penalty import output_and_hidden_rate


@pytest.mark.parametrize("network", ["12-9-7-3", "6x6-4C3-P2-5-3"])
@pytest.mark.parametrize("packed", [True, False])
def test_output_and_rate_are_those_of_the_network(network, packed):
    net = nn.build(network, threshold=0.5, init="balanced", seed=1)
    shape = (12,) if network[2] == "-" else (1, 6, 6)
    x = (torch.rand(7, 5, *shape, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    o, rate = output_and_hidden_rate(net, Spikes.pack(x) if packed else x)
    assert torch.equal(o, net(x))
    *hidden, _ = net.record(x)
    spikes = sum(trace.o.sum().item() for trace in hidden)
    assert rate.item() == pytest.approx(spikes / sum(trace.o.numel() for trace in hidden), rel=1e-6)
    assert spikes > 0
    rate.backward()
    first = net.get_parameter("0.weight").grad
    assert first is not None
    assert first.abs().sum() > 0
