"""The kernels of sparse attention, on both paths, against the operators that do the same."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.cache.levels import quantised, restored
from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import library, prefill
from rapid_integrations.models.sparse_attention import BLOCK, attend_blocks, select_blocks
from tests.toys.blocks_of_attention import drawn
from tests.toys.budget import examples

kernels_only = pytest.mark.skipif(
    native.native_library() is None or not native.native_library().rapid_fast_path(),
    reason="this processor's vectors do not know bfloat16",
)


@pytest.fixture(params=["fast", pytest.param("portable", marks=pytest.mark.process)])
def path(request, monkeypatch):
    if request.param == "portable":
        monkeypatch.setattr(library, "_outcome", library._Outcome(request.getfixturevalue("portable")))


@settings(max_examples=examples(12))
@given(
    blocks=st.integers(1, 4),
    before=st.integers(0, 20),
    group=st.integers(1, 7),
    width=st.sampled_from([32, 64, 128]),
    eight_bits=st.booleans(),
    cut=st.integers(1, 12),
    threshold=st.sampled_from([0.2, 0.7, 0.95]),
)
@kernels_only
def test_kernels_and_operators_choose_and_attend_alike(blocks, before, group, width, eight_bits, cut, threshold):
    check_kernels(blocks, before, group, width, eight_bits, cut, threshold)


@pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
@pytest.mark.parametrize("eight_bits", [False, True])
def test_both_paths_of_the_kernels(path, eight_bits):
    check_kernels(2, 18, 3, 64, eight_bits, 4, 0.6)


def check_kernels(blocks, before, group, width, eight_bits, cut, threshold):
    total, scale = (before + blocks) * BLOCK, width**-0.5
    query, key, value = drawn(blocks * BLOCK, total, group, 2, width, seed=blocks + 10 * before)
    whole = [(quantised(each) if eight_bits else each) for each in (key, value)]
    at = min(cut, before + blocks) * BLOCK
    segments = [[each[:, :, part].contiguous() for each in whole] for part in (slice(at), slice(at, None))]
    segments = [tuple(each) for each in segments if each[0].shape[2]]
    if eight_bits:
        key, value = (restored(each, torch.bfloat16) for each in whole)
    taken = prefill.select_blocks(query, segments, scale, threshold)
    expected = select_blocks(query, key, scale, threshold)
    assert (taken != expected).float().mean() < 0.01  # another rounding may move a share over the threshold
    found = prefill.attend(query, segments, scale, None, taken=taken)
    by_operators = attend_blocks(query.float(), key.float(), value.float(), scale, taken)
    torch.testing.assert_close(found.float(), by_operators, rtol=0.02, atol=0.03)
    everything = torch.ones_like(taken)
    dense = prefill.attend(query, segments, scale, None)
    assert torch.equal(prefill.attend(query, segments, scale, None, taken=everything), dense)
