"""KV caches whose rows are the tokens themselves, so that a test can read what they hold."""

import torch

from rapid_integrations.cache import KVCache

LAYERS, HEADS, WIDTH = 2, 2, 4


def holding(token_ids, capacity=None):
    """Return a cache that has read `token_ids`."""
    cache = KVCache(LAYERS, capacity or len(token_ids))
    append(cache, token_ids)
    return cache


def append(cache, token_ids):
    """Do to the cache what a forward pass does."""
    rows = torch.tensor(token_ids, dtype=torch.float32).view(1, 1, -1, 1).expand(1, HEADS, len(token_ids), WIDTH)
    for layer in range(LAYERS):
        cache.write(layer, rows + layer, -rows - layer)
    cache.advance(len(token_ids))


def held(cache):
    """Return the tokens that a cache holds, having checked that its layers, heads and columns agree."""
    tokens = cache.layer(0)[0][0, 0, :, 0].long().tolist()
    for layer in range(LAYERS):
        keys, values = cache.layer(layer)
        expected = torch.tensor(tokens, dtype=torch.float32).view(1, 1, -1, 1).expand(1, HEADS, len(tokens), WIDTH)
        assert torch.equal(keys, expected + layer) and torch.equal(values, -keys)
    return tokens


def text(seed, length):
    """Return `length` random tokens."""
    return torch.randint(0, 1000, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
