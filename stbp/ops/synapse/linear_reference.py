"""The fully connected synapse over a window: no memory along T, so all T*B frames are one (batched) matrix product."""

import torch
from torch import Tensor

# BLAS rounds a product differently with the number of its rows, and products in a batch with how many they are. Frames
# go through it in blocks of this height, one after the other, so that each one's sum does not depend on how many there
# are: two windows in a row equal one long window, bit for bit.
ROWS = 128


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x^t = W o^t + b for every step (eq. 3 and the bias of eq. 4); `[T, B, N]` to `[T, B, M]`, weight `[M, N]`."""
    if len(weight) == 1:  # a product with one column takes another path: give it a second one
        padded = linear(x, torch.cat([weight, weight]), None if bias is None else torch.cat([bias, bias]))
        return padded[..., :1].contiguous()
    frames = x.flatten(0, 1)
    missing = -len(frames) % ROWS if len(frames) else ROWS
    blocks = torch.nn.functional.pad(frames, (0, 0, 0, missing)) if missing else frames
    rows = [block @ weight.T if bias is None else torch.addmm(bias, block, weight.T) for block in blocks.split(ROWS)]
    return torch.cat(rows)[: len(frames)].unflatten(0, x.shape[:2])


def linear_backward(grad: Tensor, x: Tensor, weight: Tensor, needs: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias, each an empty tensor where `needs` says that it is not asked for.

    dL/dW = sum over t and b of eps^t (o^t)^T; dL/db = sum of eps^t.
    """
    eps, o = grad.flatten(0, 1), x.flatten(0, 1)
    return (
        (eps @ weight).unflatten(0, x.shape[:2]) if needs[0] else grad.new_empty(0),
        eps.T @ o if needs[1] else grad.new_empty(0),
        eps.sum(0) if needs[2] else grad.new_empty(0),
    )
