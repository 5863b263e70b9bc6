"""`linear`: the fully connected synapse over a window."""

from jaxtyping import Float
from torch import Tensor

from stbp.ops.spikes import Spikes
from stbp.ops.synapse.op import synapse


def linear(
    x: Float[Tensor, "T B N"] | Spikes, weight: Float[Tensor, "M N"], bias: Float[Tensor, " M"] | None = None
) -> Float[Tensor, "T B M"]:
    """Return the current of the fully connected synapse, run once for all T*B frames (paper, eq. 3).

    Args:
        x: spikes or currents, `[T, B, N]`, as a tensor or packed.
        weight, bias: `[M, N]` and `[M]`, the layout of `torch.nn.Linear`.

    Returns:
        input current of the next layer, `[T, B, M]`.

    Raises:
        ValueError: x is not `[T, B, N]` with the N of the weight.
        NotImplementedError: `torch.func` transforms, forward-mode derivatives, a second derivative.
    """
    if len(x.shape) != 3 or x.shape[2] != weight.shape[1]:
        raise ValueError(f"x must be [T, B, {weight.shape[1]}] to go with the weight; got {list(x.shape)}")
    return synapse(x, weight, bias)
