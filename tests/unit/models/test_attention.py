"""The attention against a loop over heads and queries in float64 that repeats every key and masks by hand."""

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    chunked_causal_mask_function,
    or_masks,
    sliding_window_causal_mask_function,
)

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.kernels.cpu.library import multiplies_prompts, native_library
from rapid_integrations.models.attention import (
    ATTENTION_NAME,
    MAX_FOLDED_BEFORE_BLOCKS,
    MAX_FOLDED_QUERIES,
    attend,
    rapid_attention,
    register,
)
from rapid_integrations.models.mask import Sight, described_mask
from tests.toys.attention_inputs import inputs, reference
from tests.toys.budget import examples

MODULE = torch.nn.Identity()
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2}  # bfloat16 has 8 bits; scores of size 4 are off by 1/64


def check(new, before, group=2, kv_heads=2, window=None, dtype=torch.float32, scaling=None, seed=0, slack=1, **shape):
    query, key, value = inputs(seed, kv_heads, group, new, before + new, dtype, **shape)
    kept = [tensor.clone() for tensor in (query, key, value)]
    computed, weights = rapid_attention(MODULE, query, key, value, None, scaling=scaling, sliding_window=window)
    assert weights is None
    assert computed.dtype == dtype
    wanted = reference(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling, window)
    torch.testing.assert_close(computed.double(), wanted, rtol=0, atol=slack * TOLERANCE[dtype])
    for before_call, after in zip(kept, (query, key, value), strict=True):
        assert torch.equal(before_call, after)
    for ends in ((total := key.shape[2]) // 3, total // 2), (max(0, total - new), total - 1):  # three segments
        cuts = sorted({0, *ends, total})
        segments = [(key[:, :, a:b], value[:, :, a:b]) for a, b in itertools.pairwise(cuts)]
        found = attend(query, segments, query.shape[-1] ** -0.5 if scaling is None else scaling, window)
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=slack * TOLERANCE[dtype])


@settings(max_examples=examples(150))
@given(
    new=st.integers(1, 70),
    before=st.integers(0, 130),
    group=st.integers(1, 4),
    kv_heads=st.integers(1, 3),
    window=st.none() | st.integers(1, 220),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    scaling=st.none() | st.floats(0.05, 0.5),
    seed=st.integers(0, 2**16),
)
@example(new=64, before=0, group=3, kv_heads=2, window=None, dtype=torch.float32, scaling=None, seed=0)
@example(new=65, before=0, group=3, kv_heads=2, window=None, dtype=torch.float32, scaling=None, seed=0)
def test_it_equals_a_loop_over_queries(new, before, group, kv_heads, window, dtype, scaling, seed):
    check(new, before, group, kv_heads, window, dtype, scaling, seed)


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("before", [0, 1, 135])
@pytest.mark.parametrize("new", [1, 2, MAX_FOLDED_QUERIES, MAX_FOLDED_QUERIES + 1])
def test_both_sides_of_the_boundary_between_the_two_paths(new, before, dtype):
    for group in (1, 2, 3, 4):
        check(new, before, group=group, dtype=dtype)


@pytest.mark.once
@pytest.mark.parametrize("before", [0, 7, 100])
@pytest.mark.parametrize("new", [1, 2, 64, 65])
def test_windows_around_every_length_that_matters(new, before):
    total = new + before
    for window in {1, 2, before, before + 1, new - 1, new, new + 1, total - 1, total, total + 1, 10_000} - {0}:
        check(new, before, window=window)


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("window", [None, 1, 90, 256, 10_000])
@pytest.mark.parametrize("new", [MAX_FOLDED_BEFORE_BLOCKS, MAX_FOLDED_BEFORE_BLOCKS + 1, 85, 86, 300])
def test_blocks_of_queries(new, window):
    """A prefill in bfloat16: 85 queries a block where three heads share a key."""
    for before in (0, 200):
        check(new, before, group=3, window=window, dtype=torch.bfloat16)


@pytest.mark.skipif(native_library() is None or not multiplies_prompts(), reason="PyTorch reads few queries here")
@pytest.mark.parametrize(("kv_heads", "group", "width"), [(3, 3, 64), (2, 6, 128), (1, 4, 256)])
def test_few_queries_have_the_bits_that_they_have_among_many(kv_heads, group, width):
    """So it does not matter for a prompt's rows in how short a piece they are read."""
    for before in (0, 40, 700):
        query, key, value = inputs(
            before, kv_heads, group, 300, before + 300, torch.bfloat16, width=width, value_width=width
        )
        whole = attend(query, [(key, value)], width**-0.5, None)
        for first, last in ((0, 1), (0, 8), (5, 9), (10, 60), (64, 128), (292, 300), (299, 300)):
            rows = [each[:, :, : before + last].contiguous() for each in (key, value)]
            part = attend(query[:, :, first:last].contiguous(), [(rows[0], rows[1])], width**-0.5, None)
            assert torch.equal(part, whole[:, first:last]), (before, first, last)


@pytest.mark.parametrize("new", [1, 5, 70])
def test_values_may_be_narrower_or_wider_than_keys(new):
    check(new, 20, width=12, value_width=5)
    check(new, 20, width=4, value_width=16)


@pytest.mark.parametrize("new", [1, 5, 70])
def test_scores_far_apart_do_not_overflow(new):
    check(new, 20, spread=300.0, group=4, slack=20)  # scores of size 1,000


def call(**changes):
    query, key, value = inputs(0, 2, 2, 3, 9, torch.float32)
    arguments = {"query": query, "key": key, "value": value, "attention_mask": None} | changes
    return rapid_attention(MODULE, **arguments)[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"something_new": 1}, "Identity asks its attention for something_new, which this engine does not compute"),
        ({"position_bias": torch.zeros(1, 4, 3, 9), "other": 30.0}, "other, position_bias"),
        ({"dropout": 0.1}, "dropout"),
        ({"attention_mask": torch.zeros(1, 1, 3, 9)}, "mask"),
        ({"is_causal": False}, "bidirectional"),
        (dict(zip(("query", "key", "value"), (torch.zeros(2, 2, 3, 4),) * 3, strict=True)), "batch"),
    ],
)
def test_what_would_change_the_result_is_refused(changes, reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        call(**changes)


def test_what_changes_nothing_is_accepted():
    plain = call()
    harmless = {
        "softcap": None,
        "s_aux": None,
        "position_ids": torch.arange(3),
        "use_cache": True,
        "cache_position": torch.arange(3),
        "is_causal": True,
        "dropout": 0.0,
    }
    assert torch.equal(call(**harmless), plain)


def test_transformers_knows_the_attention_and_its_masks():
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import causal_mask_function

    register()
    register()
    assert AttentionInterface()[ATTENTION_NAME] is rapid_attention
    mask = AttentionMaskInterface()[ATTENTION_NAME](mask_function=causal_mask_function, q_length=1, kv_length=9)
    assert mask.window is None


def described(mask_function, local_size=None, new=3, total=9, **kwargs):
    return described_mask(
        mask_function=mask_function,
        q_length=new,
        kv_length=total,
        q_offset=total - new,
        local_size=local_size,
        **kwargs,
    )


def test_a_mask_decides_whatever_window_the_layer_names():
    windowed = described(sliding_window_causal_mask_function(2), 2)
    full = described(causal_mask_function)
    assert (windowed.window, full.window) == (2, None)
    torch.testing.assert_close(call(attention_mask=windowed), call(sliding_window=2))
    torch.testing.assert_close(call(attention_mask=windowed[:, :, :, :9], sliding_window=5), call(sliding_window=2))
    torch.testing.assert_close(call(attention_mask=full, sliding_window=2), call())
    assert not torch.allclose(call(sliding_window=2), call())


def test_a_mask_with_a_local_size_that_sees_everything_is_full():
    assert described(and_masks(causal_mask_function), 2).window is None


@pytest.mark.parametrize(
    "mask_function",
    [
        bidirectional_mask_function,
        or_masks(causal_mask_function, lambda batch, head, query, key: key > 7),
        and_masks(causal_mask_function, lambda batch, head, query, key: key != 2),
    ],
)
def test_a_mask_that_is_neither_causal_nor_a_window_is_refused(mask_function):
    with pytest.raises(UnsupportedModelError, match="neither causal nor a sliding window"):
        described(mask_function, 4)


@pytest.mark.parametrize("offset", range(9))
@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_chunks_are_told_from_windows(offset, length):
    """Near the beginning of a chunk both hide the same keys."""
    chunked = chunked_causal_mask_function(4, torch.zeros(1, dtype=torch.long))
    for mask_function, kind in ((chunked, {"chunk": 4}), (sliding_window_causal_mask_function(4), {"window": 4})):
        mask = described_mask(
            mask_function=mask_function,
            q_length=length,
            kv_length=offset + length,
            q_offset=offset,
            local_size=4,
        )
        found = Sight(mask.window, mask.chunk_size).visible(length, offset + length, torch.device("cpu"))
        expected = Sight(kind.get("window"), kind.get("chunk")).visible(length, offset + length, torch.device("cpu"))
        assert torch.equal(found, expected)


def test_a_mask_of_padding_is_refused():
    with pytest.raises(UnsupportedModelError, match="padding"):
        described(causal_mask_function, attention_mask=torch.tensor([[False, True, True]]))
    assert described(causal_mask_function, attention_mask=torch.ones(1, 9, dtype=torch.bool)).window is None
