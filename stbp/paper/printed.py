"""The backward recursion as the paper prints it, kept for the record: it is not quite the gradient of the loss.

Where an error crosses from one node to another, to the layer below or to the spike one step earlier, the printed
cases 1 to 4 carry delta * g' on, the part of eps = dL/du that came through the neuron's own spike, and leave out the
part that reached u through the potential of the next step. `stbp/ops/README.md` measures the difference.
"""

import torch
from torch import Tensor

from stbp.ops.neuron.reference import Gate
from stbp.ops.surrogate.curves import slope


def lif_backward_printed(
    grad_o: Tensor, us: Tensor, gate: Gate, threshold: float, surrogate: str, width: float
) -> tuple[Tensor, Tensor]:
    """Cases 1 to 4 of the paper for one layer and one window that starts at rest.

    Args:
        grad_o: what the layer above or the loss sends to the spikes, `[T, B, ...]`.
        us: the layer's potentials, `[T, B, ...]`.

    Returns:
        eps, of which the paper makes the layer's own weight and bias gradients, and delta * g', which it sends to the
        layer below; `[T, B, ...]` each. In the exact recursion both are eps.
    """
    eps, crossing = torch.empty_like(us), torch.empty_like(us)
    later_eps = later_crossing = torch.zeros_like(us[0])
    for t in reversed(range(len(us))):
        o = (us[t] >= threshold).to(us.dtype)
        delta = grad_o[t] + later_crossing * us[t] * gate.slope(o)
        crossing[t] = later_crossing = delta * slope(us[t], threshold, surrogate, width)
        eps[t] = later_eps = later_crossing + later_eps * gate.keep(o)
    return eps, crossing
