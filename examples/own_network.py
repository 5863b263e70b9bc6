"""A network of your own: a convolutional network with a skip connection and tdBN.

    python examples/own_network.py

Trains on the 8x8 digits that come with the package.
"""

import stbp
from stbp import nn

THRESHOLD, DECAY = 0.5, 0.3


def neurons() -> nn.LIF:
    return nn.LIF(decay=DECAY, threshold=THRESHOLD)


def block(channels: int) -> nn.Residual:
    """Two convolutions with a shortcut around them; neurons stand behind the sum."""
    scale = 2**-0.5  # two branches are added
    return nn.Residual(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.TdBatchNorm2d(channels, THRESHOLD),
        neurons(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.TdBatchNorm2d(channels, THRESHOLD, alpha=scale),
    )


net = nn.Network(
    nn.Conv2d(1, 16, 3, bias=False),
    nn.TdBatchNorm2d(16, THRESHOLD),
    neurons(),
    block(16),
    neurons(),
    nn.AvgPool2d(2),
    nn.Linear(16 * 3 * 3, 10),
    neurons(),
)
train, test = stbp.data.load("digits")
run = stbp.fit(net, train, test, T=8, epochs=3, batch_size=50, learning_rate=3e-3, out="runs/own-network", resume=True)
print(f"test accuracy {100 * run.test_accuracy:.1f} %")
