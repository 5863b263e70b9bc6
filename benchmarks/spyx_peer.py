"""spyx, in JAX: step, loss and optimiser are one XLA program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import spyx
import torch
from flax import nnx
from torch import Tensor

from stbp.bench.subject import Task, Weights, stages


class HardResetLIF(nnx.Module):
    """The paper's neuron by spyx's protocol for stateful layers; spyx's own subtracts the threshold instead."""

    def __init__(self, task: Task, shape: tuple[int, ...]):
        self.shape, self.decay, self.threshold = shape, task.decay, task.threshold
        self.spike = spyx.axn.custom(
            bwd=lambda v: (jnp.abs(v) < task.width / 2) / task.width, fwd=lambda v: (v >= 0).astype(v.dtype)
        )

    def initial_state(self, batch_size: int):
        zero = jnp.zeros((batch_size, *self.shape))
        return zero, zero

    def __call__(self, x, state):
        u, o = state
        u = self.decay * u * (1 - o) + x
        o = self.spike(u - self.threshold)
        return o, (u, o)


class Pool(nnx.Module):
    def __init__(self, k: int):
        self.k = k

    def __call__(self, x):
        return nnx.avg_pool(x, (self.k, self.k), strides=(self.k, self.k))


class Spyx:
    """A subject; maps are `[B, H, W, C]` here, so weights and gradients change their layout on the way."""

    def __init__(self, task: Task):
        self.task = task
        self.model, self.maps = _model(task)
        self.synapses = [m for m in self.model.layers if isinstance(m, nnx.Linear | nnx.Conv)]
        self.train = spyx.optimize.make_train_step(self._loss)
        self.forward = nnx.jit(lambda model, x: spyx.nn.run(model, x)[0])
        self.gradient = nnx.jit(nnx.value_and_grad(self._loss_and_spikes, has_aux=True))
        self.random = spyx.data.rate_code(task.T, 1.0)
        self.key = jax.random.PRNGKey(0)

    def _loss_and_spikes(self, model, x, y):
        o, _ = spyx.nn.run(model, x)
        target = jax.nn.one_hot(y, self.task.classes)
        return jnp.square(target - o.mean(0)).sum(1).mean() / 2, o

    def _loss(self, model, x, y):
        return self._loss_and_spikes(model, x, y)[0]

    def start(self, weights: Weights, learning_rate: float) -> None:
        for i, module in enumerate(self.synapses):
            kernel, bias = weights[2 * i : 2 * i + 2]
            module.kernel[...] = jnp.asarray(_to_jax(kernel.detach(), self.maps[i]).numpy())
            module.bias[...] = jnp.asarray(bias.detach().numpy())
        # as an input of the program, so that XLA cannot work a rate of zero into it
        rule = optax.inject_hyperparams(optax.adam)(learning_rate=learning_rate)
        self.optimizer = nnx.Optimizer(self.model, rule, wrt=nnx.Param)

    def place(self, x: Tensor, y: Tensor) -> tuple[Any, Any]:
        x = x.movedim(2, -1) if x.dim() == 5 else x
        return jnp.asarray(x.contiguous().numpy()), jnp.asarray(y.numpy())

    def step(self, x: Any, y: Any) -> None:
        jax.block_until_ready(self.train(self.model, self.optimizer, x, y))
        jax.block_until_ready(self.synapses[0].kernel[...])

    def infer(self, x: Any) -> None:
        jax.block_until_ready(self.forward(self.model, x))

    def look(self, x: Any, y: Any) -> tuple[Tensor, list[Tensor]]:
        (_, o), found = self.gradient(self.model, x, y)
        gradients = []
        for i in range(len(self.model.layers)):
            if isinstance(self.model.layers[i], nnx.Linear | nnx.Conv):
                part = found["layers"][i]
                kernel = torch.from_numpy(np.array(part["kernel"][...]))
                gradients += [_from_jax(kernel, self.maps[len(gradients) // 2])]
                gradients += [torch.from_numpy(np.array(part["bias"][...]))]
        return torch.from_numpy(np.array(o)), gradients

    def encode(self, images: Tensor, labels: Tensor, ids: Tensor) -> tuple[Any, Any]:
        """spyx's rate code, as its documentation uses it: `[B, 1, ...]` becomes `[B, T, ...]`, uint8."""
        self.key, key = jax.random.split(self.key)
        frames = images.movedim(1, -1) if images.dim() == 4 else images
        o = self.random(jnp.asarray(frames.numpy())[:, None] / 255, key)
        return jnp.swapaxes(o, 0, 1).astype(jnp.float32), jnp.asarray(labels.numpy())


def _model(task: Task) -> tuple[Any, list[tuple[int, ...] | None]]:
    """The model, and for each synapse the maps `(C, H, W)` that a flattening in front of it was given."""
    rngs, shape, layers, maps = nnx.Rngs(0), task.shape, [], []
    for stage in stages(task):
        flattened = None
        for module in stage:
            if isinstance(module, torch.nn.Conv2d):
                k = module.kernel_size[0]
                layers.append(nnx.Conv(module.in_channels, module.out_channels, (k, k), padding="VALID", rngs=rngs))
                shape = (module.out_channels, shape[1] - k + 1, shape[2] - k + 1)
            elif isinstance(module, torch.nn.AvgPool2d):
                k = int(module.kernel_size)
                layers.append(Pool(k))
                shape = (shape[0], shape[1] // k, shape[2] // k)
            elif isinstance(module, torch.nn.Flatten):
                layers.append(spyx.nn.Flatten())
                flattened = shape
            else:
                layers.append(nnx.Linear(module.in_features, module.out_features, rngs=rngs))
                shape = (module.out_features,)
        maps.append(flattened)
        layers.append(HardResetLIF(task, (*shape[1:], shape[0])))
    return spyx.nn.Sequential(*layers), maps


def _to_jax(weight: Tensor, maps: tuple[int, ...] | None) -> Tensor:
    if weight.dim() == 4:
        return weight.permute(2, 3, 1, 0).contiguous()
    if maps is not None:
        weight = weight.unflatten(1, maps).movedim(1, -1).flatten(1)
    return weight.T.contiguous()


def _from_jax(kernel: Tensor, maps: tuple[int, ...] | None) -> Tensor:
    if kernel.dim() == 4:
        return kernel.permute(3, 2, 0, 1).contiguous()
    weight = kernel.T
    if maps is not None:
        c, h, w = maps
        weight = weight.unflatten(1, (h, w, c)).movedim(-1, 1).flatten(1)
    return weight.contiguous()
