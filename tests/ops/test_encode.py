import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stbp import ops
from stbp.ops.encode import op
from stbp.ops.philox import philox, random_words

# counter, key and answer of the Random123 distribution's known-answer test for philox4x32-10
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_known_answers(counter, key, answer):
    c0, c1, c2, c3 = (torch.tensor(word) for word in counter)
    assert tuple(word.item() for word in philox((c0, c1, c2, c3), key)) == answer


def images(n: int = 8, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    dense = torch.randint(0, 256, (n, 1, 5, 7), generator=random, dtype=torch.uint8)
    return dense * (torch.rand(n, 1, 5, 7, generator=random) < 0.6)


@given(
    order=st.permutations(range(8)),
    batch=st.integers(1, 8),
    threads=st.sampled_from([1, 2]),
    T=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 2**32 - 1),
)
def test_a_samples_spikes_depend_on_seed_epoch_and_id_alone(order, batch, threads, T, seed, epoch):
    whole = ops.bernoulli(images(), T, seed, epoch).dense()
    torch.set_num_threads(threads)
    for ids in torch.tensor(order).split(batch):
        part = ops.bernoulli(images()[ids], T, seed, epoch, sample=ids).dense()
        assert torch.equal(part, whole[:, ids])


def test_a_longer_window_begins_with_the_shorter_one():
    assert torch.equal(ops.bernoulli(images(), 11).dense()[:6], ops.bernoulli(images(), 6).dense())


def test_spikes_follow_the_stated_rule():
    """Written down from the README: word t % 4 at counter (pixel, t // 4, sample, epoch), upper 24 bits, r < p."""
    image, seed, epoch, T = images(3), 5, 9, 7
    spikes = ops.bernoulli(image, T, seed, epoch, sample=torch.tensor([100, 7, 2**32 - 1]))
    p = (image.flatten(1).to(torch.float32) / 255).double()
    for b, sample in enumerate((100, 7, 2**32 - 1)):
        for pixel in (0, 3, 34):
            for t in range(T):
                c0, c1, c2, c3 = (torch.tensor(c) for c in (pixel, t // 4, sample, epoch))
                word = int(philox((c0, c1, c2, c3), (seed, 0))[t % 4])
                fires = (word >> 8) / 2**24 < p[b, pixel].item()
                assert spikes.dense().flatten(2)[t, b, pixel].item() == fires


def test_seeds_and_epochs_give_other_spikes():
    image = torch.full((1, 2000), 0.5)
    runs = [ops.bernoulli(image, 1, seed, epoch).dense().flatten() for seed in (0, 1) for epoch in (0, 1)]
    for i, first in enumerate(runs):
        for second in runs[i + 1 :]:
            assert 0.4 < (first == second).float().mean() < 0.6


def test_zero_never_fires_one_always_does_and_the_rate_is_the_value():
    values = torch.tensor([0.0, 1.0, 0.25, 0.9, 1 / 255])
    rate = ops.bernoulli(values.repeat_interleave(2000)[None], 50).dense().mean(0).view(5, 2000).mean(1)
    assert rate[0] == 0
    assert rate[1] == 1
    deviation = (values * (1 - values) / 100_000).sqrt()
    assert ((rate - values).abs() <= 4 * deviation + 1e-7).all()


def test_bytes_stand_for_value_over_255():
    image = images()
    assert torch.equal(ops.bernoulli(image, 5).bits, ops.bernoulli(image.float() / 255, 5).bits)


def test_the_four_streams_of_a_seed_differ():
    words = torch.stack([random_words(1000, seed=3, stream=stream) for stream in range(4)])
    assert words.unique().numel() > 3990


def test_static_repeats_the_image_without_copying_it():
    x = ops.static(images(), 6)
    assert x.shape == (6, 8, 1, 5, 7)
    assert x.stride(0) == 0
    assert torch.equal(x[5], images().float() / 255)


def test_an_empty_batch_and_an_empty_image_encode_to_nothing():
    assert ops.bernoulli(torch.zeros(0, 9), 3).shape == (3, 0, 9)
    assert ops.bernoulli(torch.zeros(2, 9), 3).density() == 0


def test_the_operator_passes_torchs_own_checks():
    torch.library.opcheck(op._bernoulli, (images().flatten(1), 5, 1, 2, torch.arange(8)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"T": 0}, "T must be at least 1"),
        ({"seed": -1}, "seed must lie in"),
        ({"epoch": 2**32}, "epoch must lie in"),
        ({"image": torch.full((2, 3), 1.5)}, r"values in \[0, 1\]; got 1.5 to 1.5"),
        ({"image": torch.tensor([[0.5, float("nan")]])}, r"values in \[0, 1\]"),
        ({"sample": torch.arange(3)}, r"sample must be int64 \[2\]"),
        ({"image": torch.zeros(3)}, "at least two axes"),
        ({"image": torch.full((2, 3), 3)}, "floating point in .0, 1., or uint8; got torch.int64"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message, unchecked_shapes):
    with pytest.raises(ValueError, match=message):
        ops.bernoulli(**{"image": torch.zeros(2, 3), "T": 4, **arguments})
