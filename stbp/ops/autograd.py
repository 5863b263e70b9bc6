"""Checks that refuse, by name, derivatives that the operators do not have: they have first ones, backward."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def check_plain(operator: str, *tensors: Tensor | None) -> None:
    """Raise NotImplementedError where a tensor belongs to `torch.func` or carries a forward-mode derivative."""
    if torch.compiler.is_compiling():
        return
    if is_transformed(*tensors):
        raise NotImplementedError(
            f"{operator} cannot be transformed by torch.func (vmap, grad, jvp, ...) nor take batched gradients: put "
            "samples into the axis B, and take backward() or torch.autograd.grad, one gradient at a time"
        )
    if carries_tangent(*tensors):
        raise NotImplementedError(
            f"{operator} has no forward-mode derivative: take backward() or torch.autograd.grad in place of "
            "torch.autograd.forward_ad"
        )


def is_transformed(*tensors: Tensor | None) -> bool:
    """True if a tensor stands for several, or for one that a transform of `torch.func` follows."""
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    return any(
        functorch.is_functorch_wrapped_tensor(tensor) or functorch.is_legacy_batchedtensor(tensor)
        for tensor in tensors
        if tensor is not None
    )


def carries_tangent(*tensors: Tensor | None) -> bool:
    """True if a tensor carries a forward-mode derivative."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors if tensor is not None)


def check_once(operator: str) -> None:
    """Raise NotImplementedError in a backward pass that is to be differentiated itself."""
    if torch.is_grad_enabled():
        raise NotImplementedError(
            f"{operator} can be differentiated once: call backward() or torch.autograd.grad without create_graph=True. "
            "A gradient of its gradient, as a gradient penalty asks for, is not built"
        )
