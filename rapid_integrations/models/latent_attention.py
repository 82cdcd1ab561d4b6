"""Multi-head latent attention, computed by PyTorch's operators on a cache of latents.

The cache holds for each token its rotated key and its latent, in the places of keys and values, and not the keys and
values of the heads. There are two ways to attend to them, with the same result up to rounding:

- Few queries are multiplied with the matrix that makes keys of latents (it is absorbed). All heads then attend to the
  latents themselves, as to keys and values of one head, and what they mix becomes their values.
- For many queries the keys and values of all heads are computed anew from the latents. With DeepSeek V3's widths, a
  score and its value then cost 320 products instead of 1,088.

With an indexer (`indexer.py`), rows that choose their keys attend to the latents of these alone. Many rows of a text
that is little longer than what they choose do so in the second way, with all other keys hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from rapid_integrations.cache import LayerRows
from rapid_integrations.cache.arena import Arena
from rapid_integrations.cache.levels import restored
from rapid_integrations.config import Quantization
from rapid_integrations.kernels.cpu import NativeLatent
from rapid_integrations.kernels.layers import Rope
from rapid_integrations.models.attention import attend
from rapid_integrations.models.description import Latent
from rapid_integrations.models.indexer import Choice, IndexRows, TakenIndexer
from rapid_integrations.models.linear import Linear, PlainLinear, make_linear, native_matrix
from rapid_integrations.models.mask import Sight
from rapid_integrations.models.norms import normalised
from rapid_integrations.models.placement import multiplied_in
from rapid_integrations.models.rotation import Tables, turned
from rapid_integrations.models.taken_weights import Linears, Matrices, empty, fuse

MOST_ABSORBED: Final = 128
"""Queries that attend to the latents themselves. More of them pay for computing the keys and values of all heads."""

_MOST_NUMBERS: Final = 2**26  # that are made at once; a few heads at a time compute a long text
_MOST_GATHERED: Final = 2**22  # numbers of chosen keys that are laid together at once: larger memory is asked for anew
_HIDDEN: Final = 3  # keys for each that is chosen, up to which many rows compute all


@dataclass(frozen=True)
class LatentRows:
    """What the new tokens of a pass have before they attend.

    Attributes:
        plain: (T, H, plain), the part of the queries that is not rotated.
        rotated: (T, H, rotated), the other part.
        keys: (T, 1, rotated), the rotated keys.
        latents: (T, 1, rank), normalised.
        index: what the rows have before they choose keys; None: there is no indexer.
    """

    plain: Tensor
    rotated: Tensor
    keys: Tensor
    latents: Tensor
    index: IndexRows | None = None


@dataclass(frozen=True)
class TakenLatent:
    """A latent attention whose weights were taken over.

    Attributes:
        described: the attention.
        query_up: the product that makes queries of compressed ones; None: they are not compressed.
        keys: for each head the product (rank, plain) of its queries with the matrix that makes its keys.
        values: for each head the product (value, rank) that makes its values.
        stacked: both as tensors, (H, rank, plain) and (H, value, rank), unless they are quantised.
        indexer: chooses the keys that rows see; None: there is none.
    """

    described: Latent
    query_up: Linear | None
    keys: Sequence[Linear]
    values: Sequence[Linear]
    stacked: tuple[Tensor, Tensor] | None
    indexer: TakenIndexer | None = None

    @classmethod
    def of(cls, latent: Latent, rope: Rope, quantization: Quantization | None, arena: Arena | None) -> TakenLatent:
        """Take the weights from their modules. `rope` says how its queries and keys are rotated."""
        query_up = None if latent.query_up is None else fuse([latent.query_up], quantization, arena)
        indexer = None
        if latent.indexer is not None:
            indexer = TakenIndexer.of(latent.indexer, latent.chosen, rope, quantization, arena)
        stored = getattr(latent.up, "stored", None)  # of which no product takes columns
        up = latent.up.weight.data if stored is None else stored.rounded()
        by_head = up.view(-1, latent.plain + latent.value, latent.rank)
        keys, values = by_head[:, : latent.plain].transpose(1, 2), by_head[:, latent.plain :]
        if quantization is not None:
            to_keys, to_values = (
                [make_linear(each.contiguous(), None, quantization, arena=arena) for each in part]
                for part in (keys, values)
            )
            empty(latent.up)
            return cls(latent, query_up, to_keys, to_values, None, indexer)
        if arena is not None:
            keys, values = (arena.copy(part.contiguous()) for part in (keys, values))
            empty(latent.up)
        plain_keys, plain_values = ([PlainLinear(each) for each in part] for part in (keys, values))
        return cls(latent, query_up, plain_keys, plain_values, (keys, values), indexer)

    @property
    def products(self) -> dict[str, Linear]:
        """All products by name."""
        named = {} if self.query_up is None else {"query_up": self.query_up}
        for name, part in (("latent_keys", self.keys), ("latent_values", self.values)):
            named |= {f"{name}.{index}": each for index, each in enumerate(part)}
        return named if self.indexer is None else named | self.indexer.products

    @property
    def step_bytes(self) -> int:
        """Bytes that a step of one row reads."""
        weights = 0 if self.indexer is None else self.indexer.weights.nbytes
        return sum(product.step_bytes for product in self.products.values()) + weights

    def matrices(self, described: Latent) -> Matrices:
        """Return the products with the modules of `described` whose weights they hold."""
        held: list[tuple[Any, Any]] = [((self.keys, self.values), UpHolder(described.up))]
        if self.query_up is not None:
            assert described.query_up is not None
            held.append((self.query_up, Linears([described.query_up])))
        if self.indexer is not None:
            assert described.indexer is not None
            held += self.indexer.matrices(described.indexer)
        return held

    def native(self) -> NativeLatent:
        """Return the attention for the kernels; every product was made for them."""
        own = self.described
        return NativeLatent(
            rotated=own.rotated,
            norm=own.norm,
            keys=[native_matrix(each) for each in self.keys],
            values=[native_matrix(each) for each in self.values],
            query=own.query_norm,
            query_up=None if self.query_up is None else native_matrix(self.query_up),
        )

    def rows(
        self,
        qkv: Tensor,
        rope: Rope,
        spread: Tables,
        balance: Tensor | None,
        normed: Tensor,
        index_spread: Tables | None,
    ) -> LatentRows:
        """Return what `qkv`, (T, ...) as the first product gives it, holds, normalised and rotated.

        Args:
            qkv: what the first product makes of `normed`.
            rope, spread: how queries and keys are rotated.
            balance: (H + 1, rotated), factors of queries and keys as a cache in eight bits stores them.
            normed: (T, E), what the attention reads, and an indexer, too.
            index_spread: the same as `spread` for the indexer; None: there is none.
        """
        own = self.described
        widths = [qkv.shape[1] - own.rank - own.rotated, own.rank, own.rotated]
        queries, latents, keys = torch.split(qkv, widths, dim=1)
        index = None
        if self.query_up is not None:
            compressed = normalised(own.query_norm, queries)
            queries = self.query_up(compressed)
            if self.indexer is not None:
                assert index_spread is not None
                index = self.indexer.rows(normed, compressed, index_spread)
        by_head = queries.reshape(len(qkv), -1, own.plain + own.rotated)
        both = turned(torch.cat([by_head[..., own.plain :], keys[:, None]], dim=1), rope, *spread)
        if balance is not None:
            both = (both * balance).to(both.dtype)  # by powers of two: nothing is rounded
        latents = normalised(own.norm, latents)
        return LatentRows(by_head[..., : own.plain], both[:, :-1], both[:, -1:], latents[:, None], index)

    def attend_chosen(
        self,
        plain: Tensor,
        rotated: Tensor,
        segments: Sequence[LayerRows],
        scale: float,
        seen: Tensor | None,
        choice: Choice,
    ) -> Tensor:
        """Do `attend` where some rows have chosen the keys that they see."""
        if not len(choice.rows):
            return self.attend(plain, rotated, segments, scale, seen)
        total = sum(keys.shape[2] for keys, _ in segments)
        if len(plain) > MOST_ABSORBED and total <= _HIDDEN * choice.keys.shape[1]:
            if seen is None:
                seen = Sight(None, None, 0).visible(len(plain), total, plain.device)
            chosen_alone = torch.zeros(len(choice.rows), total, dtype=torch.bool, device=plain.device)
            seen = seen.index_copy(0, choice.rows, chosen_alone.scatter_(1, choice.keys, True))
            return self.attend(plain, rotated, segments, scale, seen)
        chosen = self._attend_rows(plain[choice.rows], rotated[choice.rows], segments, scale, choice.keys)
        if len(choice.rows) == len(plain):
            return chosen
        out = chosen.new_empty(len(plain), *chosen.shape[1:])
        out[choice.rows] = chosen
        whole = torch.ones(len(plain), dtype=torch.bool, device=plain.device)
        whole[choice.rows] = False
        if seen is not None:
            out[whole] = self.attend(plain[whole], rotated[whole], segments, scale, seen[whole])
            return out
        count = len(plain) - len(choice.rows)  # the first ones of a chain, which do not see the last rows
        out[:count] = self.attend(plain[:count], rotated[:count], _without(segments, len(choice.rows)), scale, None)
        return out

    def _attend_rows(
        self, plain: Tensor, rotated: Tensor, segments: Sequence[LayerRows], scale: float, chosen: Tensor
    ) -> Tensor:
        """Return what rows attend to, (R, H, value), that see K keys each, `chosen`: (R, K)."""
        keys, latents = (torch.cat(part, dim=2) if len(part) > 1 else part[0] for part in zip(*segments, strict=True))
        dtype = multiplied_in(plain)
        to_latents = self._to_latents(plain.transpose(0, 1)).transpose(0, 1)  # (R, H, rank)
        to_latents, to_keys = (to_latents * scale).to(dtype), (rotated * scale).to(dtype)
        width = keys.shape[3] + latents.shape[3] + 2 * to_keys.shape[1]
        each = max(1, _MOST_GATHERED // (chosen.shape[1] * width))
        mixed = []
        for begin in range(0, len(chosen), each):
            block, own = slice(begin, begin + each), chosen[begin : begin + each]
            own_keys, own_latents = (
                restored(part[0, 0].index_select(0, own.flatten()), plain.dtype).to(dtype).view(*own.shape, -1)
                for part in (keys, latents)
            )
            scores = torch.baddbmm(
                torch.bmm(to_keys[block], own_keys.transpose(1, 2)), to_latents[block], own_latents.transpose(1, 2)
            )
            mixed.append(torch.bmm(torch.softmax(scores, dim=-1), own_latents))  # (rows, H, rank)
        return self._of_latents(torch.cat(mixed).to(plain.dtype).transpose(0, 1))

    def attend(
        self, plain: Tensor, rotated: Tensor, segments: Sequence[LayerRows], scale: float, seen: Tensor | None
    ) -> Tensor:
        """Return what the last T of L positions attend to, (T, H, value).

        Args:
            plain: (T, H, plain).
            rotated: (T, H, rotated).
            segments: rotated keys (1, 1, rows, rotated) and latents (1, 1, rows, rank) of L positions, or both in eight
                bits (`cache.levels`).
            scale: of the scores.
            seen: (T, L) bool, True where a query sees a key; None: it sees those up to its own.
        """
        held = [(restored(keys, plain.dtype)[0, 0], restored(latents, plain.dtype)[0, 0]) for keys, latents in segments]
        dtype = multiplied_in(plain)
        if dtype != plain.dtype:
            held = [(keys.to(dtype), latents.to(dtype)) for keys, latents in held]
        if len(plain) <= MOST_ABSORBED:
            return self._absorbed(plain, rotated, held, scale, seen)
        keys, latents = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*held, strict=True))
        to_keys, to_values = (each.to(dtype) for each in self._stacked())
        query = torch.cat([plain, rotated], dim=2).to(dtype).transpose(0, 1)[None]  # (1, H, T, plain + rotated)
        if query.device.type == "cuda":  # its flash attention takes values as wide as keys: zeros are mixed, too
            to_values = pad(to_values, (0, 0, 0, max(0, query.shape[3] - to_values.shape[1])))
        attended = []
        scored = 0 if seen is None else len(plain)  # a row's scores are held whole then
        for block in _blocks(len(to_keys), len(keys) * (query.shape[3] + to_values.shape[1] + scored)):
            own_keys = _for_each_head(latents, to_keys[block])
            whole = torch.cat([own_keys, keys.expand(len(own_keys), -1, -1)], dim=2)  # (heads, L, plain + rotated)
            values = _for_each_head(latents, to_values[block].transpose(1, 2))
            attended.append(attend(query[:, block], [(whole[None], values[None])], scale, None, seen=seen)[0])
        heads = attended[0] if len(attended) == 1 else torch.cat(attended, dim=1)
        return heads[..., : self.described.value].to(plain.dtype)

    def _absorbed(
        self, plain: Tensor, rotated: Tensor, held: Sequence[LayerRows], scale: float, seen: Tensor | None
    ) -> Tensor:
        by_head = plain.transpose(0, 1)  # (H, T, plain)
        to_latents, dtype = self._to_latents(by_head), held[0][0].dtype
        to_latents, to_keys = (to_latents * scale).to(dtype), (rotated.transpose(0, 1) * scale).to(dtype)
        blocks = _blocks(len(by_head), len(plain) * sum(len(keys) for keys, _ in held))
        of_heads = [_mixed(to_latents[block], to_keys[block], held, seen) for block in blocks]
        return self._of_latents(torch.cat(of_heads).to(plain.dtype))

    def _to_latents(self, by_head: Tensor) -> Tensor:
        """Return queries (H, T, plain) as they meet latents, (H, T, rank)."""
        if self.stacked is not None:
            return torch.bmm(by_head, self.stacked[0].transpose(1, 2))
        return torch.stack([product(own) for product, own in zip(self.keys, by_head, strict=True)])

    def _of_latents(self, mixed: Tensor) -> Tensor:
        """Return the values (T, H, value) that mixed latents (H, T, rank) stand for."""
        if self.stacked is not None:
            return torch.bmm(mixed, self.stacked[1].transpose(1, 2)).transpose(0, 1)
        return torch.stack([product(own) for product, own in zip(self.values, mixed, strict=True)], dim=1)

    def _stacked(self) -> tuple[Tensor, Tensor]:
        """Return what makes keys and values of latents: (H, rank, plain) and (H, value, rank)."""
        if self.stacked is not None:
            return self.stacked
        keys, values = (torch.stack([each.dense() for each in part]) for part in (self.keys, self.values))
        return keys, values


def _without(segments: Sequence[LayerRows], last: int) -> list[LayerRows]:
    """Return segments without so many of the last rows, which are all of the last segment's."""
    *before, (keys, latents) = segments
    return [*before, (keys[:, :, : keys.shape[2] - last], latents[:, :, : latents.shape[2] - last])]


def _blocks(heads: int, each: int) -> list[slice]:
    """Return blocks of heads for which few numbers are made at once; one head makes `each`."""
    most = max(1, _MOST_NUMBERS // each)
    return [slice(begin, begin + most) for begin in range(0, heads, most)]


def _mixed(to_latents: Tensor, to_keys: Tensor, held: Sequence[LayerRows], seen: Tensor | None) -> Tensor:
    """Return the latents as the heads mix them, (H, T, rank).

    Args:
        to_latents, to_keys: (H, T, rank) and (H, T, rotated), what meets latents and rotated keys.
        held: of each segment rotated keys (rows, rotated) and latents (rows, rank).
        seen: see `TakenLatent.attend`.
    """
    heads, new, _ = to_latents.shape
    by_latents, by_keys = to_latents.flatten(0, 1).t(), to_keys.flatten(0, 1).t()  # (rank or rotated, H*T)
    scores = torch.cat([torch.addmm(keys @ by_keys, latents, by_latents) for keys, latents in held])  # (L, H*T)
    scores = scores.t().contiguous().view(heads, new, -1)
    if seen is not None:
        scores.masked_fill_(~seen, float("-inf"))
    elif new > 1:
        ahead = torch.ones(new, new, dtype=torch.bool, device=scores.device).triu(1)
        scores[..., -new:].masked_fill_(ahead, float("-inf"))
    weights = torch.softmax(scores, dim=-1).flatten(0, 1)  # computed in float32 inside, whatever the dtype
    parts = torch.split(weights, [len(keys) for keys, _ in held], dim=1)
    mixed = parts[0] @ held[0][1]  # (H*T, rank)
    for part, (_, latents) in zip(parts[1:], held[1:], strict=True):
        mixed = torch.addmm(mixed, part, latents)
    return mixed.view(heads, new, -1)


def _for_each_head(latents: Tensor, weights: Tensor) -> Tensor:
    """Return (H, L, n) of latents (L, rank) and (H, rank, n). One product of all heads would copy the latents."""
    out = latents.new_empty(len(weights), len(latents), weights.shape[2])
    for own, weight in zip(out, weights, strict=True):
        torch.mm(latents, weight, out=own)
    return out


class UpHolder:
    """The module whose weight is held as two products for each head."""

    def __init__(self, up: nn.Linear) -> None:
        self.up = up

    def fill(self, fused: tuple[Sequence[Linear], Sequence[Linear]]) -> None:
        """See `Holder`."""
        keys, values = (torch.stack([each.dense() for each in part]) for part in fused)
        whole = torch.cat([keys.transpose(1, 2), values], dim=1).flatten(0, 1)
        self.up.weight = nn.Parameter(whole.to(self.up.weight.dtype), requires_grad=False)

    def weights(self) -> dict[tuple[nn.Module, str], Any]:
        """See `Holder`."""
        return {(self.up, "weight"): self.up.weight}
