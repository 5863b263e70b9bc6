"""The peers of `stbp bench --peers`: each library's own way to do the same task, by its public interface.

All get the same weights, the same loss (`stbp.loss.rate_mse`) and torch's fused Adam; spyx has both of them in JAX.
"""

import os
from typing import Any

import torch
from torch import Tensor

from stbp.bench.subject import Entry, Subject, Task, TorchSubject, stages


class Rectangle(torch.autograd.Function):
    """Fires where v >= 0; slope 1/width inside |v| < width/2."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(v)
        ctx.width = width
        return v.ge(0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return grad_outputs[0] * (v.abs() < ctx.width / 2) / ctx.width, None


def uniform_encoder(task: Task):
    """Bernoulli spikes from torch's own random numbers, as the authors' code and most tutorials draw them."""

    def encode(images: Tensor, ids: Tensor) -> Tensor:
        p = images.float() / 255
        return (torch.rand(task.T, *p.shape, device=p.device) < p).float()

    return encode


class Loop(torch.nn.Module):
    """The authors' loop, from the equations: in every step each synapse, then u = decay u (1 - o) + x, o = u >= V."""

    def __init__(self, task: Task):
        super().__init__()
        self.stages = torch.nn.ModuleList(stages(task))
        self.task = task

    def forward(self, x: Tensor) -> Tensor:
        task, outputs = self.task, []
        states = [(0.0, 0.0)] * len(self.stages)
        for frame in x:
            o = frame
            for i, stage in enumerate(self.stages):
                u, before = states[i]
                u = task.decay * u * (1 - before) + stage(o)
                o = Rectangle.apply(u - task.threshold, task.width)
                states[i] = (u, o)
            outputs.append(o)
        return torch.stack(outputs)


def official(task: Task, compiled: bool = False) -> Subject:
    return TorchSubject(_compiled(Loop(task), compiled), uniform_encoder(task))


def _compiled(module: torch.nn.Module, compiled: bool) -> torch.nn.Module:
    if compiled:
        module.compile(dynamic=False)
    return module


def spikingjelly(task: Task, compiled: bool = False, triangle: bool = False) -> Subject:
    """Multi-step mode: synapses once for all T*B frames; the neuron is exactly ours for tau = 1 / (1 - decay).

    Args:
        triangle: in place of the rectangle, of the same width: what its own CUDA and Triton kernels have.
    """
    from spikingjelly.activation_based import encoding, functional, layer, neuron, surrogate

    modules = []
    for stage in stages(task):
        for module in stage:
            if isinstance(module, torch.nn.Linear):
                modules.append(layer.Linear(module.in_features, module.out_features))
            elif isinstance(module, torch.nn.Conv2d):
                modules.append(layer.Conv2d(module.in_channels, module.out_channels, module.kernel_size[0]))
            elif isinstance(module, torch.nn.AvgPool2d):
                modules.append(layer.AvgPool2d(module.kernel_size))
            else:
                modules.append(layer.Flatten())
        curve = (surrogate.PiecewiseQuadratic if triangle else surrogate.Rect)(alpha=1 / task.width)
        modules.append(neuron.LIFNode(1 / (1 - task.decay), False, task.threshold, 0.0, curve, detach_reset=False))
    net = torch.nn.Sequential(*modules)
    functional.set_step_mode(net, "m")
    poisson = encoding.PoissonEncoder(step_mode="m")

    def encode(images: Tensor, ids: Tensor) -> Tensor:
        return poisson((images.float() / 255).expand(task.T, *images.shape))

    return TorchSubject(_compiled(net, compiled), encode, after=lambda: functional.reset_net(net))


class SnnTorch(torch.nn.Module):
    """A loop over T in user code, as snnTorch's tutorials write it."""

    def __init__(self, task: Task):
        import snntorch

        super().__init__()
        self.stages = torch.nn.ModuleList(stages(task))
        self.neurons = torch.nn.ModuleList(
            snntorch.Leaky(
                beta=task.decay,
                threshold=task.threshold,
                spike_grad=lambda v: Rectangle.apply(v, task.width),
                reset_mechanism="zero",
            )
            for _ in self.stages
        )

    def forward(self, x: Tensor) -> Tensor:
        potentials: list[Any] = [neuron.reset_mem() for neuron in self.neurons]
        outputs = []
        for frame in x:
            o = frame
            for i, (stage, neuron) in enumerate(zip(self.stages, self.neurons, strict=True)):
                o, potentials[i] = neuron(stage(o), potentials[i])
            outputs.append(o)
        return torch.stack(outputs)


def snntorch(task: Task) -> Subject:
    from snntorch import spikegen

    def encode(images: Tensor, ids: Tensor) -> Tensor:
        return spikegen.rate(images.float() / 255, num_steps=task.T)

    return TorchSubject(SnnTorch(task), encode)


class Norse(torch.nn.Module):
    """A loop over T around Norse's container of stateful modules.

    Its neuron moves by (1 - decay)(x - v), so threshold and slope are those of a potential (1 - decay) times ours.
    """

    def __init__(self, task: Task):
        import norse.torch as norse

        super().__init__()
        scale = 1 - task.decay
        parameters = norse.LIFBoxParameters(
            tau_mem_inv=torch.tensor(1000 * scale),
            v_th=torch.tensor(task.threshold * scale),
            method="triangle",
            alpha=1 / (scale * task.width),
        )
        modules = []
        for stage in stages(task):
            modules += [*stage, norse.LIFBoxCell(parameters, dt=0.001)]
        self.net = norse.SequentialState(*modules)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for frame in x:
            o, state = self.net(frame, state)
            outputs.append(o)
        return torch.stack(outputs)


def norse(task: Task, compiled: bool = False) -> Subject:
    from norse.torch.functional.encode import poisson_encode

    def encode(images: Tensor, ids: Tensor) -> Tensor:
        return poisson_encode(images.float() / 255, task.T, f_max=1000)

    return TorchSubject(_compiled(Norse(task), compiled), encode)


class Synapses(torch.nn.Module):
    """All synapses on all T*B frames at once, forward and backward, and no neurons."""

    def __init__(self, task: Task):
        super().__init__()
        self.net = torch.nn.Sequential(*(module for stage in stages(task) for module in stage))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def synapses(task: Task) -> Subject:
    return TorchSubject(Synapses(task), uniform_encoder(task))


def spyx(task: Task) -> Subject:
    # read when JAX starts its pool of threads: as many as torch has
    os.environ["NPROC"] = str(torch.get_num_threads())
    from spyx_peer import Spyx

    return Spyx(task)


PEERS = (
    Entry("authors' loop", "peer", official),
    Entry("spikingjelly", "peer", spikingjelly, "spikingjelly"),
    Entry("snntorch", "peer", snntorch, "snntorch", note="its reset is not differentiated"),
    Entry("norse", "peer", norse, "norse", note="it has no rectangle: a triangle; fires at >"),
    Entry("authors' loop, compiled", "peer", lambda task: official(task, True), compiled=True),
    Entry("spikingjelly, compiled", "peer", lambda task: spikingjelly(task, True), "spikingjelly", True),
    Entry("norse, compiled", "peer", lambda task: norse(task, True), "norse", True, "as norse"),
    Entry(
        "spyx", "peer", spyx, "spyx", True, "XLA; the neuron is written by spyx's protocol, its own has no hard reset"
    ),
    Entry("dense synapses alone", "bound", synapses, note="no neurons: what no framework with dense products beats"),
)


def _implementation(device: torch.device) -> str:
    """cuda (native, where that was built), triton or torch; SJ_LIF_CUDA_IMPLEMENTATION in the environment decides."""
    from spikingjelly._ops import lif

    return str(lif._selection.diagnostics(device)["implementation"])


# On a GPU besides.
GPU_PEERS = (
    Entry(
        "spikingjelly, its kernels",
        "peer",
        lambda task: spikingjelly(task, triangle=True),
        "spikingjelly",
        note="a triangle: its kernels have no rectangle",
        chosen=_implementation,
    ),
)
