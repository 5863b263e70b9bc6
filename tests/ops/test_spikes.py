import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stbp import Spikes

shapes = st.tuples(st.integers(1, 4), st.integers(0, 3)).flatmap(
    lambda tb: st.lists(st.integers(1, 9), min_size=1, max_size=3).map(lambda rest: (*tb, *rest))
)


def random_spikes(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


@given(shape=shapes, seed=st.integers(0, 99))
def test_packing_and_unpacking_gives_the_same_spikes(shape, seed):
    o = random_spikes(shape, seed)
    spikes = Spikes.pack(o)
    assert torch.equal(spikes.dense(), o)
    assert spikes.bits.nbytes == shape[0] * shape[1] * math.ceil(math.prod(shape[2:]) / 8)
    assert spikes.density() == pytest.approx(o.mean().item() if o.numel() else 0)


def test_bit_n_mod_8_of_byte_n_div_8():
    o = torch.zeros(1, 1, 20)
    o[0, 0, 11] = 1
    assert Spikes.pack(o).bits.tolist() == [[[0, 8, 0]]]


def test_slices_along_time_and_batch_share_the_memory():
    o = random_spikes((6, 5, 3, 7), 0)
    part = Spikes.pack(o)[2:5, 1:4]
    assert torch.equal(part.dense(), o[2:5, 1:4])
    whole = Spikes.pack(o)
    assert whole[1:].bits.untyped_storage().data_ptr() == whole.bits.untyped_storage().data_ptr()


def test_flatten_keeps_the_order():
    o = random_spikes((2, 3, 4, 5), 0)
    assert torch.equal(Spikes.pack(o).flatten().dense(), o.flatten(2))


def test_only_zeros_and_ones_can_be_packed():
    with pytest.raises(ValueError, match="only 0 and 1"):
        Spikes.pack(torch.full((1, 1, 3), 0.5))
    with pytest.raises(ValueError, match="at least three axes"):
        Spikes.pack(torch.zeros(2, 3))


def test_bits_that_do_not_fit_the_shape_are_refused():
    with pytest.raises(ValueError, match=r"bits must be uint8 \[1, 1, 2\]"):
        Spikes(torch.zeros(1, 1, 3, dtype=torch.uint8), (1, 1, 9))


def test_a_single_index_is_refused(unchecked_shapes):
    with pytest.raises(TypeError, match="slice along T"):
        Spikes.pack(torch.zeros(2, 2, 3))[0, 1]  # pyright: ignore[reportArgumentType]
