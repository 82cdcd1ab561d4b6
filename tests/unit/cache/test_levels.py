"""Rows in eight bits: what they lose, and what they never depend on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.cache import KVCache
from rapid_integrations.cache.levels import SCALE_BYTES, quantised, restored
from tests.toys.budget import examples


def rows(count=40, width=64, dtype=torch.bfloat16, seed=0):
    return torch.randn(1, 2, count, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16])
@pytest.mark.parametrize("width", [2, 6, 32, 96])
def test_a_number_is_off_by_half_a_level_at_most(dtype, width):
    given = rows(width=width, dtype=dtype)
    stored = quantised(given)
    assert stored.dtype == torch.int8 and stored.shape == (1, 2, 40, width + SCALE_BYTES)
    off = (restored(stored, torch.float32) - given.float()).abs()
    assert (off <= given.float().abs().amax(-1, keepdim=True) / 127 * 0.5001).all()
    assert restored(stored, dtype).dtype == dtype


@settings(max_examples=examples(60))
@given(exponents=st.lists(st.integers(-120, 120), min_size=1, max_size=6), seed=st.integers(0, 2**16))
def test_a_row_has_the_same_bits_alone_and_among_others(exponents, seed):
    given = rows(len(exponents), 8, torch.float32, seed) * torch.tensor(exponents).float().exp2()[:, None]
    whole = quantised(given)
    for row in range(len(exponents)):
        assert torch.equal(whole[:, :, row : row + 1], quantised(given[:, :, row : row + 1]))


def test_rows_that_are_levels_already_come_back_as_they_are():
    levels = torch.arange(-127, 128).float().view(1, 1, 1, 255) * 2.0**-5
    assert torch.equal(restored(quantised(levels), torch.float32), levels)


def test_zeros_and_what_is_no_number():
    given = rows(4)
    given[:, :, 0] = 0
    given[:, :, 1, 3], given[:, :, 2, 5] = float("nan"), float("inf")
    found = restored(quantised(given), torch.float32)
    assert (found[:, :, 0] == 0).all() and found[:, :, 3].isfinite().all()
    assert found[:, :, 1:3].isnan().all()


def test_other_rows_are_returned_as_they_are():
    given = rows()
    assert restored(given, torch.float32) is given


def test_a_cache_holds_half_of_the_bytes_and_forks_are_of_its_kind():
    whole, half = (KVCache(1, 1024, kv_dtype=kind) for kind in (None, "int8"))
    for cache in (whole, half):
        cache.write(0, rows(1000), rows(1000, seed=1))
        cache.advance(1000)
    assert half.nbytes / whole.nbytes == (64 + SCALE_BYTES) / 128
    assert half.bytes_per_token == 2 * 2 * (64 + SCALE_BYTES)
    fork = half.fork(700, 1024)
    assert fork.shared and fork.kv_dtype == "int8"
    for cache in (half, fork):
        cache.rollback(700) if cache is fork else None
        for found, expected in zip(cache.layer(0), (rows(1000), rows(1000, seed=1)), strict=True):
            assert torch.equal(found, quantised(expected)[:, :, : cache.length])


def test_kept_rows_move_as_they_are():
    cache = KVCache(1, 64, kv_dtype="int8")
    cache.write(0, rows(10), rows(10, seed=1))
    cache.advance(10)
    cache.keep(4, [0, 2, 5])
    wanted = [0, 1, 2, 3, 4, 6, 9]
    assert torch.equal(cache.layer(0)[0], quantised(rows(10))[:, :, wanted])


def test_stored_rows_are_written_without_change():
    stored = quantised(rows(5))
    cache = KVCache(1, 64, kv_dtype="int8")
    cache.write(0, stored, stored)
    cache.advance(5)
    assert torch.equal(cache.layer(0)[0], stored)
