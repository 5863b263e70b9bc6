"""`rate_mse`: the compiled kernel beside the reference, and its gradient."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from stbp.ops import dispatch, native
from stbp.ops.autograd import carries_tangent, is_transformed
from stbp.ops.loss import reference


class _Direct(torch.autograd.Function):
    """The compiled kernel, past the dispatcher: torch's many small calls take longer than the kernel computes."""

    @staticmethod
    def forward(ctx, o, y):
        dense, labels = o.contiguous(), y.contiguous()
        distance, loss = o.new_empty(o.shape[1:]), o.new_empty(())
        places = *_places(dense, labels), *_size(o), *_places(distance, loss)
        if not native.call("stbp_rate_mse", *places, torch.get_num_threads()):
            check_labels(y, o.shape[2])
        ctx.save_for_backward(o, y, distance)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        o, y, distance = ctx.saved_tensors
        if torch.is_grad_enabled() or is_transformed(grads[0]):
            with torch.enable_grad():
                loss = reference.rate_mse(o, y)
            return torch.autograd.grad(loss, o, grads[0], create_graph=torch.is_grad_enabled())[0], None
        grad = distance.new_empty(o.shape)
        places = *_places(distance, grads[0]), *_size(o), *_places(grad)
        native.call("stbp_rate_mse_backward", *places, torch.get_num_threads())
        return grad, None


def _places(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


def _size(o: Tensor) -> list[ctypes.c_int64]:
    return [ctypes.c_int64(n) for n in o.shape]


def rate_mse(o: Tensor, y: Tensor) -> Tensor:
    """Return what `loss.rate_mse` returns, which checks the shapes.

    Every derivative of it is right: where the kernel has none, the reference is differentiated.

    Raises:
        ValueError: a label that is no class.
    """
    plain = type(o) is type(y) is Tensor and not dispatch.traced() and not carries_tangent(o)
    if plain and y.device.type == "cpu" and dispatch.compiled(o):
        loss = _Direct.apply(o, y)
        assert isinstance(loss, Tensor)
        return loss
    check_labels(y, o.shape[2])
    return reference.rate_mse(o, y)


def check_labels(y: Tensor, classes: int) -> None:
    """Raise ValueError unless all labels are classes.

    Labels are not looked at on a GPU, which would have to be waited for, nor under torch.compile or `torch.func`, where
    they have no values.
    """
    if y.device.type == "cpu" and not dispatch.traced():
        least, most = (int(bound) for bound in y.aminmax())
        if not 0 <= least <= most < classes:
            raise ValueError(f"y must hold class indices in [0, {classes}); got {least} to {most}")
