"""A training loop of your own: plain PyTorch around a network of stbp.

    python examples/own_training_loop.py

Trains on the 8x8 digits that come with the package.
"""

import torch

import stbp

train, test = stbp.data.load("digits")
net = stbp.nn.Network(
    stbp.nn.Conv2d(1, 16, 3),
    stbp.nn.LIF(decay=0.3, threshold=0.5),
    stbp.nn.AvgPool2d(2),
    stbp.nn.Linear(16 * 3 * 3, 10),
    stbp.nn.LIF(decay=0.3, threshold=0.5),
)
stbp.nn.initialise(net, input_rate=0.3, seed=0)
optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)

for epoch in range(1, 7):
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(epoch))
    for ids in order.split(50):
        # a pixel's brightness is its firing probability; epoch and sample number decide the random spikes
        x = stbp.ops.bernoulli(train.images[ids], T=10, epoch=epoch, sample=ids)  # Spikes [T, B, 1, 8, 8]
        o = net(x)  # output spikes [T, B, 10]
        loss = stbp.loss.rate_mse(o, train.labels[ids])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with torch.no_grad():
        counts = net(stbp.ops.bernoulli(test.images, T=10)).sum(0)  # epoch 0: spikes that training never saw
    accuracy = (counts.argmax(1) == test.labels).float().mean()
    print(f"epoch {epoch}: test accuracy {100 * accuracy:.1f} %")

print(stbp.explain(net, x))
