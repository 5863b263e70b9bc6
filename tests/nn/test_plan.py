"""Which layers run as one operator: with whatever weights stand in them at the moment."""

import pytest
import torch

from stbp import nn
from stbp.nn import plan
from stbp.ops import dispatch
from stbp.ops.spikes import Spikes
from tests.ops.against import dyadic, spikes


class Twice(torch.nn.Module):
    def forward(self, weight):
        return 2 * weight


def parametrized(layer: nn.Linear) -> None:
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", Twice())


def parametrized_before(layer: nn.Linear) -> None:  # its bias is registered before its weight from then on
    parametrized(layer)
    torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")


def plain_weight(layer: nn.Linear) -> None:
    weight = layer.weight.detach()
    del layer.weight
    layer.weight = 2 * weight


def plain_bias(layer: nn.Linear) -> None:
    del layer.bias
    layer.bias = torch.ones(layer.out_features)  # pyright: ignore[reportAttributeAccessIssue]


def cut(layer: nn.Linear) -> None:  # the numbers that it was made with do not say so
    layer.weight = torch.nn.Parameter(layer.weight[:, :10])


@pytest.mark.parametrize("change", [parametrized, parametrized_before, plain_weight, plain_bias, cut])
def test_a_layer_whose_weight_or_bias_was_replaced_computes_with_what_is_there_now(change):
    net = nn.build("20-30-4", bias=0.5)
    dyadic(net)
    change(net[0])
    x = spikes(5, 2, 10 if change is cut else 20)
    with dispatch.reference_only():
        expected = net(x)
    assert expected.any()
    assert torch.equal(net(x), expected)


def test_a_bias_of_another_length_than_the_weight_never_reaches_a_kernel():
    net = nn.build("20-30-4")
    x = Spikes.pack(spikes(5, 2, 20))
    assert plan.plan(list(net), x).length == 4
    net[0].bias = torch.nn.Parameter(torch.ones(1))
    assert plan.plan(list(net), x).length == 0
