"""What tokens change of a recurrent state, and what they read of it, by PyTorch's operators.

A chunk of tokens is computed with a few products, as if they attended to each other (Dao and Gu 2024, arXiv 2405.21060;
Yang et al. 2024, arXiv 2406.06484 and 2412.06464). What each token adds to the state of a delta net depends on what
those before it have added, which is a triangular system. A Mamba, of which each number of the state has a decay of its
own, and an RG-LRU are computed token by token.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 64  # tokens that are computed together
_SHORT_CHUNK = 16  # the same where each number of a key has a decay, and of a Mamba tokens of which factors are held
_LEAST_DECAY = 1e-30  # smaller ones leave nothing either


def changed(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, rate: Tensor, state: Tensor, *, delta: bool
) -> tuple[Tensor, Tensor]:
    """Return what T tokens read of a state that each of them changes first, (H, T, D_v), and the state behind them.

    Args:
        query, key: (H, T, D_k) float32.
        value: (H, T, D_v).
        log_decay, rate: (H, T).
        state: (H, D_k, D_v).
        delta: a token adds what its value has beyond what its key finds, as a gated delta net does, and not the value.
    """
    given = []
    chunks = (torch.split(each, _CHUNK, dim=1) for each in (query, key, value, log_decay, rate))
    for q, k, v, g, b in zip(*chunks, strict=True):
        grown = g.cumsum(dim=1)[..., None]  # (H, C, 1): log of what is left at each token of what the chunk began with
        left = (grown - grown.transpose(1, 2)).tril().exp().tril()  # of what token j adds, at token i
        added = b[..., None] * v
        if delta:
            # What token i adds, u_i, is b_i times (its value - what its key finds of the state and of u_j for j < i).
            system = b[..., None] * left * (k @ k.transpose(1, 2))
            added = added - b[..., None] * grown.exp() * (k @ state)
            added = torch.linalg.solve_triangular(system, added, upper=False, unitriangular=True)
        given.append(grown.exp() * (q @ state) + (left * (q @ k.transpose(1, 2))) @ added)
        end = grown[:, -1:]
        state = end.exp() * state + (k * (end - grown).exp()).transpose(1, 2) @ added
    return torch.cat(given, dim=1), state


def changed_by_number(
    query: Tensor, key: Tensor, value: Tensor, kept: Tensor, rate: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what `changed` does for a delta net of which each number of a key has a decay of its own.

    What is left of a number between two tokens is a product of decays, which is taken for each pair of them:
    quotients of products from the chunk's beginning would overflow.

    Args:
        query, key: (H, T, D_k) float32.
        value: (H, T, D_v).
        kept: (H, T, D_k), the decays.
        rate: (H, T).
        state: (H, D_k, D_v).
    """
    given = []
    chunks = (torch.split(each, _SHORT_CHUNK, dim=1) for each in (query, key, value, kept, rate))
    for q, k, v, a, b in zip(*chunks, strict=True):
        log = a.clamp(min=_LEAST_DECAY).log().cumsum(dim=1)  # (H, C, D_k)
        later = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool, device=q.device).tril()[..., None]
        # (H, C, C, D_k): what is left at a token of what another one adds
        left = (log[:, :, None] - log[:, None]).masked_fill(~later, -torch.inf).exp()
        by_key = torch.einsum("hid,hijd,hjd->hij", k, left, k)
        system = b[..., None] * by_key
        added = b[..., None] * (v - (log.exp() * k) @ state)
        added = torch.linalg.solve_triangular(system, added, upper=False, unitriangular=True)
        given.append((log.exp() * q) @ state + torch.einsum("hid,hijd,hjd->hij", q, left, k) @ added)
        end = log[:, -1:]
        state = end.exp().transpose(1, 2) * state + (k * (end - log).exp()).transpose(1, 2) @ added
    return torch.cat(given, dim=1), state


def changed_selectively(values: Tensor, selected: Tensor, decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return what T tokens read of a Mamba's state, (T, C), that each of them changes first, and the state behind them.

    Args:
        values: (T, C) float32.
        selected: (T, C + 2 D_k), steps, keys and queries.
        decay: (H, D_k, D_v), factors of steps, below 0.
        state: (H, D_k, D_v).
    """
    heads, keys, width = state.shape
    given = []
    for part, chosen in zip(torch.split(values, _SHORT_CHUNK), torch.split(selected, _SHORT_CHUNK), strict=True):
        steps, key, query = torch.split(chosen, [values.shape[1], keys, keys], dim=1)
        kept = (steps.view(-1, heads, 1, width) * decay).exp_()  # (C, H, D_k, D_v)
        added = key[:, None, :, None] * (steps * part).view(-1, heads, 1, width)
        for at in range(len(part)):
            state = torch.addcmul(added[at], kept[at], state, out=added[at])
        given.append(torch.einsum("td,thdv->thv", query, added).flatten(1))
    return torch.cat(given), state.clone()


def changed_by_gates(kept: Tensor, added: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return an RG-LRU's state behind each of T tokens, (T, C), and behind the last one, (H, 1, D_v).

    Args:
        kept, added: (T, C) float32, factors of the state, and what is added to it.
        state: (H, 1, D_v), of all C numbers.
    """
    given, now = torch.empty_like(added), state.reshape(-1)
    for factor, more, into in zip(kept, added, given, strict=True):
        now = torch.addcmul(more, factor, now, out=into)
    return given, now.clone().view(state.shape)
