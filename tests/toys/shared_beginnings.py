"""Readers of one document: each has to get the bits that it gets alone."""

import torch

from rapid_integrations.cache import KVCache, Rows
from tests.toys.decoders import ids

READERS = [  # tokens of the document that are shared, further tokens of the reader's own, rows of the pass, logits
    (1400, 37, 1, 1),
    (1400, 3, 5, 2),
    (1200, 700, 1, 1),
    (600, 20, 3, 0),
    (300, 0, 4, 4),
    (1399, 64, 7, 7),
]


def private(cache):
    """Return a cache of its own with copies of the same rows."""
    own = KVCache(cache.layers, cache.capacity, kv_dtype=cache.kv_dtype)
    for layer in range(cache.layers):
        own.write(layer, *cache.layer(layer))
    own.advance(cache.length)
    return own


@torch.inference_mode()
def check(lm, readers=READERS):
    document = lm.new_cache(1500)
    lm.forward([Rows(ids(1400), document, 0)])
    rows, alone = [], []
    for seed, (shared, more, new, keep) in enumerate([*readers, (None, 0, 2, 2)], 1):  # the last one is the owner
        cache = document if shared is None else document.fork(shared, shared + more + new)
        if more:
            lm.forward([Rows(ids(more, seed), cache, 0)])
        assert bool(cache.shared) == (shared is not None)
        rows.append(Rows(ids(new, 50 + seed), cache, keep))
    for each in rows:
        own = private(each.cache)
        alone.append((lm.forward([Rows(each.token_ids, own, each.keep)])[0], own))
    for each, found, (expected, own) in zip(rows, lm.forward(rows), alone, strict=True):
        assert torch.equal(found, expected)
        for layer in range(own.layers):
            assert all(map(torch.equal, each.cache.layer(layer), own.layer(layer)))
    again = [document.fork(shared, 1600) for shared in (1400, 1400, 1200)]  # forks of forks, and of what has grown
    again += [again[0].fork(1400, 1500), rows[2].cache.fork(1850, 1900)]
    assert len(again[-1].shared) == 2
    expected = [lm.forward([Rows(ids(2), private(cache), 2)])[0] for cache in again]
    found = lm.forward([Rows(ids(2), cache, 2) for cache in again])
    assert all(map(torch.equal, found, expected))
