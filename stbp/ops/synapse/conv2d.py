"""`conv2d`: the convolutional synapse over a window."""

from jaxtyping import Float
from torch import Tensor

from stbp.ops.spikes import Spikes
from stbp.ops.synapse.op import synapse


def conv2d(
    x: Float[Tensor, "T B C H W"] | Spikes,
    weight: Float[Tensor, "M C k k2"],
    bias: Float[Tensor, " M"] | None = None,
    stride: int = 1,
    padding: int = 0,
) -> Float[Tensor, "T B M H2 W2"]:
    """Return the current of the convolutional synapse, run once for all T*B frames.

    Args:
        x: spikes or currents, `[T, B, C, H, W]`, as a tensor or packed.
        weight, bias: `[M, C, k, k]` and `[M]`, the layout of `torch.nn.Conv2d`.
        stride, padding: in pixels, the same in both directions.

    Returns:
        input current of the next layer, `[T, B, M, H', W']`.

    Raises:
        ValueError: x is not `[T, B, C, H, W]` with the C of the weight, or a frame is smaller than the kernel.
        NotImplementedError: `torch.func` transforms, forward-mode derivatives, a second derivative.
    """
    if len(x.shape) != 5 or x.shape[2] != weight.shape[1]:
        raise ValueError(f"x must be [T, B, {weight.shape[1]}, H, W] to go with the weight; got {list(x.shape)}")
    if any(side + 2 * padding < k for side, k in zip(x.shape[3:], weight.shape[2:], strict=True)):
        raise ValueError(
            f"x has frames of {x.shape[3]}x{x.shape[4]}, with a padding of {padding} smaller than the "
            f"{weight.shape[2]}x{weight.shape[3]} kernel"
        )
    return synapse(x, weight, bias, stride, padding)
