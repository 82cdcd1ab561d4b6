"""Attentions: plain ones, and those with latents, which may choose their keys."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from rapid_integrations.kernels.layers import PLAIN, AttentionKind, Norm
from rapid_integrations.models.description.matrix import Adapter, Inputs, OneMatrix
from rapid_integrations.models.description.positions import Growth


@dataclass(frozen=True)
class Indexer:
    """A small attention of its own by which a row chooses the keys that it sees (DeepSeek-AI 2025, arXiv 2512.02556).

    Of head h, q_h is a query and w_h a weight, both of the row. Key k has the score sum_h w_h relu(q_h k / root of D) /
    root of H, and a row sees the keys with the best scores, of those before it and its own. Keys are cached.

    Attributes:
        query: (H * D, ...), which reads compressed queries, normalised.
        key: (D, E), which reads what the attention reads.
        key_norm: of keys, before they are rotated.
        weights: (H, E), never quantised.
        heads, dim: H and D.
        rotated: how many of the D numbers are rotated, from the first one on, with the attention's angles.
        interleaved: see `Rope`; the attention's own may differ.
    """

    query: nn.Linear
    key: nn.Linear
    key_norm: Norm
    weights: nn.Linear
    heads: int
    dim: int
    rotated: int
    interleaved: bool


@dataclass(frozen=True)
class Latent:
    """What multi-head latent attention has beside a plain one (DeepSeek-AI 2024, arXiv 2405.04434).

    A token's keys and values are linear in a vector that all heads share, the latent, and in one rotated key.

    Attributes:
        rank: numbers of the latent.
        plain, rotated: numbers of a head's query and key that are not rotated, and those that are.
        value: numbers of a head's value.
        norm: of the latent.
        up: the matrix behind it, (H * (plain + value), rank): of each head its keys and then its values.
        query_norm, query_up: of queries that are compressed, too; None: they are not.
        indexer: chooses the keys that a row sees; None: it sees all, or those that another layer has chosen.
        choice_of: number of the earlier layer whose choice it takes; None: it takes none.
        chosen: with one of these, how many keys a row sees.
    """

    rank: int
    plain: int
    rotated: int
    value: int
    norm: Norm
    up: nn.Linear
    query_norm: Norm | None = None
    query_up: nn.Linear | None = None
    indexer: Indexer | None = None
    choice_of: int | None = None
    chosen: int = 0


@dataclass(frozen=True)
class Attention:
    """An attention.

    Attributes:
        qkv: matrices of queries, keys and values, or one that holds all of them; of queries alone with `keys_of`. Of
            latent attention they are those of queries, or of what queries are computed from, and of the latent with the
            rotated key behind it.
        out: the matrix behind it.
        scale: of the scores.
        window: keys that a query sees, its own included; None: all.
        kind: what else it does.
        query, key: norms of queries and keys.
        rotation: index of the rotation; None: there is none.
        interleaved, norm_behind: see `Rope`.
        latent: of multi-head latent attention; None: it is another one.
        value: norm of values.
        heads, kv_heads, head_dim: in place of the decoder's, if they differ.
        growth: of queries; None: there is none.
        gated: `qkv` has behind the values gates (H * D). The sigmoids are factors on what heads give.
        gate_of_head: they are one for each head (H), and not one for each of its numbers.
        softplus_gates: their softplus is a factor, and not their sigmoid.
        keys_of: number of the layer whose keys and values this one reads. Such layers come behind all others.
        factor: on what `out` gives.
        adapter: beside `qkv`; None: there is none.
    """

    qkv: Inputs
    out: OneMatrix
    scale: float
    window: int | None = None
    kind: AttentionKind = PLAIN
    query: Norm | None = None
    key: Norm | None = None
    rotation: int | None = 0
    interleaved: bool = False
    norm_behind: bool = False
    latent: Latent | None = None
    value: Norm | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    keys_of: int | None = None
    growth: Growth | None = None
    gated: bool = False
    gate_of_head: bool = False
    softplus_gates: bool = False
    factor: float = 1.0
    adapter: Adapter | None = None
