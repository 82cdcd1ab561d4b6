"""Distributions cut to their best tokens, as they are sent: what remains is a law of its own, which is exact.

q is then the softmax over these tokens, and 0 elsewhere, at every temperature. A drafter on this machine that is cut
to as many has the same law.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rapid_integrations.server.remote.frames import Array

BEST = 20
"""How many tokens of a distribution are sent unless all are: as many as vLLM gives by default."""


def cut(logits: Tensor, best: int) -> Tensor:
    """Return logits (V,) with -inf for all but the `best` largest; 0 keeps all."""
    if not 0 < best < logits.shape[-1]:
        return logits
    found = logits.topk(best)
    return torch.full_like(logits, -torch.inf).scatter_(-1, found.indices, found.values)


def outside(logits: Tensor, best: int) -> float:
    """Return the probability, at temperature 1, of all tokens of logits (V,) but the `best` most probable."""
    if not 0 < best < logits.shape[-1]:
        return 0.0
    kept = logits.topk(best).values.double().logsumexp(-1)
    return max(0.0, -math.expm1(float(kept - logits.logsumexp(-1).double())))


def packed(rows: Sequence[Tensor], best: int) -> dict[str, Array]:
    """Return rows (V,) as arrays of a frame: "logits" (n, V), or the ids and logits of the best, (n, best)."""
    stacked = torch.stack(tuple(rows)).float().cpu()
    if not 0 < best < stacked.shape[-1]:
        return {"logits": stacked.numpy()}
    found = stacked.topk(best, dim=-1)
    return {"best_ids": found.indices.numpy(), "best_logits": found.values.numpy()}


def unpacked(arrays: dict[str, Array], vocab_size: int) -> list[Tensor]:
    """Return the rows (V,) float32 of arrays that `packed` made.

    Raises:
        ValueError, KeyError: they are not rows of so wide a vocabulary.
    """
    if "logits" in arrays:
        logits = torch.from_numpy(arrays["logits"].astype(np.float32))  # a copy, which may be written
        if logits.ndim != 2 or logits.shape[1] != vocab_size:
            raise ValueError(f"rows of the shape {tuple(logits.shape)}, not (n, {vocab_size})")
        return list(logits.unbind())
    ids, values = arrays["best_ids"], arrays["best_logits"]
    return [row_of(each, values[place], vocab_size) for place, each in enumerate(ids)]


def row_of(ids: Array | Sequence[int], logits: Array | Sequence[float], vocab_size: int) -> Tensor:
    """Return a row (V,) with these logits of these tokens, and -inf elsewhere.

    Raises:
        ValueError: an id lies outside of the vocabulary, or there is none.
    """
    where = torch.from_numpy(np.array(ids, dtype=np.int64))
    values = torch.from_numpy(np.array(logits, dtype=np.float32))
    if where.shape != values.shape or not where.numel() or int(where.min()) < 0 or int(where.max()) >= vocab_size:
        raise ValueError(f"a row with ids that are not of a vocabulary of {vocab_size:,} tokens")
    return torch.full((vocab_size,), -torch.inf).scatter_(0, where, values)
