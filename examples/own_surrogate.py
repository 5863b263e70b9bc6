"""A surrogate of your own: SuperSpike's curve (Zenke and Ganguli, 2018) in place of the paper's four.

    python examples/own_surrogate.py

The curve is computed by the PyTorch reference, which `stbp.explain` says. With kernels: CONTRIBUTING.md, "A surrogate".
"""

import torch

import stbp
from stbp.ops.surrogate.curves import TABLE, Curve


def superspike(v: torch.Tensor, width: float) -> torch.Tensor:
    """Area 1 and peak 1/width, as all curves: 1/width / (1 + 2|v|/width)^2 at v = u - threshold."""
    return 1 / (width * (1 + 2 * v.abs() / width) ** 2)


TABLE["superspike"] = Curve(superspike, reach=4.5)  # under 1 % of its peak beyond 4.5 widths

train, test = stbp.data.load("digits")
for surrogate in ("rectangle", "superspike"):
    neurons = {"decay": 0.3, "threshold": 0.5, "surrogate": surrogate, "width": 1.0}
    net = stbp.nn.Network(
        stbp.nn.Linear(64, 100), stbp.nn.LIF(**neurons), stbp.nn.Linear(100, 10), stbp.nn.LIF(**neurons)
    )
    stbp.nn.initialise(net, input_rate=0.3, seed=0)
    run = stbp.fit(net, train, test, T=10, epochs=3, batch_size=50, learning_rate=3e-3)
    print(f"{surrogate}: test accuracy {100 * run.test_accuracy:.1f} %")
print(stbp.explain(net, stbp.ops.bernoulli(test.images[:10], T=10)))
