"""Readers whose caches are random, for tests of the kernels, and their keys and values as one tensor."""

import torch

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.kernels.cuda.places import Places

HEADS, KV_HEADS, DIM, LAYERS = 6, 2, 24, 2


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def cache_of(
    length, capacity=None, *, seed=0, shared=False, variant=0, dtype=torch.float32, kv_heads=KV_HEADS, dim=DIM
):
    """Return a cache of random rows. All others, of keys and values alike, are NaN, whichever segment they are in."""
    cache = KVCache(LAYERS, capacity or length + 64, variant)
    for layer in range(LAYERS):
        keys, values = (drawn(1, kv_heads, length, dim, seed=9 * seed + 2 * layer + i, dtype=dtype) for i in range(2))
        cache.write(layer, keys, values)
    cache.advance(length)
    if shared:
        cache = cache.fork(length, capacity or length + 64)
        assert cache.shared
    for layer in range(LAYERS):
        for buffer in cache.tail(0).layer(layer):
            buffer[:, :, length - cache.tail_begin :] = float("nan")
    return cache


def places_for(readers, *, group=HEADS // KV_HEADS, tile_rows=16, tables=None, dim=DIM, kv_heads=KV_HEADS):
    """Return the filled-in places of some `Rows`."""
    like = readers[0].cache.tail(0).layer(0)[0]
    places = Places(LAYERS, kv_heads, dim, group, tile_rows, like)
    empty = torch.empty(0, 0)
    places.fill(readers, tables or [(empty, empty)] * len(readers))
    return places


def rows(count, cache, parents=None):
    return Rows(torch.arange(count), cache, count, parents=parents)
