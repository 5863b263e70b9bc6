"""`rate_mse`: the compiled kernel beside the reference, and its gradient."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stbp.ops import dispatch, native
from stbp.ops.loss import reference


class _Direct(torch.autograd.Function):
    """The kernel, past the dispatcher: torch's nine small calls forward and three backward take 0.4 ms of a step whose
    instructions the layers have just pushed out of the caches, 7 % of one of 784-800-10."""

    @staticmethod
    def forward(ctx, o, y):
        o, y = o.contiguous(), y.contiguous()
        distance, loss = o.new_empty(o.shape[1:]), o.new_empty(())
        places = [ctypes.c_void_p(t.data_ptr()) for t in (o, y, distance, loss)]
        ctx.size = [ctypes.c_int64(n) for n in o.shape]
        if not native.call("stbp_rate_mse", *places[:2], *ctx.size, *places[2:], torch.get_num_threads()):
            check_labels(y, o.shape[2])
        ctx.save_for_backward(distance)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (distance,) = ctx.saved_tensors
        grad = distance.new_empty((ctx.size[0].value, *distance.shape))
        places = [ctypes.c_void_p(t.data_ptr()) for t in (distance, grads[0], grad)]
        native.call("stbp_rate_mse_backward", *places[:2], *ctx.size, places[2], torch.get_num_threads())
        return grad, None


def rate_mse(o: Tensor, y: Tensor) -> Tensor:
    """As `loss.rate_mse`, which checks the shapes.

    Raises:
        ValueError: a label that is no class.
    """
    if not dispatch.traced() and type(o) is type(y) is Tensor and y.device.type == "cpu" and dispatch.compiled(o):
        loss = _Direct.apply(o, y)
        assert isinstance(loss, Tensor)
        return loss
    check_labels(y, o.shape[2])
    return reference.rate_mse(o, y)


def check_labels(y: Tensor, classes: int) -> None:
    """Raise ValueError unless all labels are classes; not on a GPU, which that would be to wait for, nor compiling."""
    if y.device.type == "cpu" and not torch.compiler.is_compiling():
        least, most = (int(bound) for bound in y.aminmax())
        if not 0 <= least <= most < classes:
            raise ValueError(f"y must hold class indices in [0, {classes}); got {least} to {most}")
