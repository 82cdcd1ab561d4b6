"""Which keys the rows of indexed attention see, chosen by PyTorch's operators (`description.Indexer`).

A row's choice depends on its own text alone: its scores are computed with the keys that it could see, in their order.
Of keys with equal scores those are taken that `torch.topk` takes of the scores of exactly these keys. transformers asks
it the same when it reads a single token. (Of several rows at once it asks for all of them behind each other, and which
of equal ones it then takes depends on how many there are.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rapid_integrations.cache import LayerRows
from rapid_integrations.cache.arena import Arena
from rapid_integrations.cache.levels import restored
from rapid_integrations.config import Quantization
from rapid_integrations.kernels.cpu import MAX_ROWS, NativeIndexer, NativeMatrix
from rapid_integrations.kernels.layers import Rope
from rapid_integrations.models.description import Indexer
from rapid_integrations.models.linear import Linear, native_matrix
from rapid_integrations.models.norms import normalised
from rapid_integrations.models.rotation import Tables, turned
from rapid_integrations.models.taken_weights import Linears, Matrices, fuse
from rapid_integrations.sampling.sending import sent

_MOST_NUMBERS = 2**25  # of scores that are made at once


@dataclass(frozen=True)
class IndexRows:
    """What the new tokens of a pass have before they choose.

    Attributes:
        queries: (T, H, D), rotated.
        keys: (T, 1, D), normalised and rotated.
        weights: (T, H) float32, with both factors of the scores.
    """

    queries: Tensor
    keys: Tensor
    weights: Tensor

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """The keys as a cache holds them: half of their numbers in the place of keys, the others in that of values."""
        first, second = self.keys.chunk(2, dim=2)
        return first, second


@dataclass(frozen=True)
class Choice:
    """Which keys some rows of a reader see.

    Attributes:
        rows: (R,) int64, ascending: their numbers. The others see all that they could.
        keys: (R, K) int64, ascending: of each the rows of the cache that it sees.
    """

    rows: Tensor
    keys: Tensor

    def behind(self, begin: int) -> Choice:
        """Return it for the rows from `begin` on, counted from there."""
        if begin == 0:
            return self
        left = self.rows >= begin
        return Choice(self.rows[left] - begin, self.keys[left])


@dataclass
class TakenIndexer:
    """An indexer whose weights were taken over.

    Attributes:
        described: the indexer.
        rope: how its queries and keys are rotated.
        query, key: its products.
        weights: (H, E), never quantised.
        taken: how many keys a row sees; what compares models makes it smaller for that time.
    """

    described: Indexer
    rope: Rope
    query: Linear
    key: Linear
    weights: Tensor
    taken: int

    @classmethod
    def of(
        cls, indexer: Indexer, taken: int, rope: Rope, quantization: Quantization | None, arena: Arena | None
    ) -> TakenIndexer:
        """Take the weights from their modules. `taken`: see the attributes. `rope`: of the attention."""
        return cls(
            indexer,
            replace(rope, interleaved=indexer.interleaved),
            fuse([indexer.query], quantization, arena),
            fuse([indexer.key], quantization, arena),
            indexer.weights.weight.data,
            taken,
        )

    @property
    def products(self) -> dict[str, Linear]:
        """All products by name."""
        return {"index_query": self.query, "index_key": self.key}

    @property
    def step_bytes(self) -> int:
        """Bytes that a step of one row reads."""
        return self.query.step_bytes + self.key.step_bytes + self.weights.nbytes

    def matrices(self, described: Indexer) -> Matrices:
        """Return the products with the modules of `described` whose weights they hold."""
        return [(self.query, Linears([described.query])), (self.key, Linears([described.key]))]

    def native(self) -> NativeIndexer:
        """Return it for the kernels; every product was made for them."""
        own = self.described
        return NativeIndexer(
            heads=own.heads,
            dim=own.dim,
            query=native_matrix(self.query),
            key=native_matrix(self.key),
            weights=NativeMatrix(self.weights.bfloat16().contiguous()),
            norm=own.key_norm,
            rope=self.rope,
        )

    def rows(self, normed: Tensor, compressed: Tensor, spread: Tables) -> IndexRows:
        """Return what rows have before they choose.

        Args:
            normed: (T, E), what the attention reads.
            compressed: (T, ...), compressed queries, normalised.
            spread: cosines and sines of the rows' positions, for `turned`.
        """
        own = self.described
        queries = self.query(compressed).view(len(normed), own.heads, own.dim)
        keys = normalised(own.key_norm, self.key(normed))[:, None]
        both = turned(torch.cat([queries, keys], dim=1), self.rope, *spread)
        weights = torch.nn.functional.linear(normed.to(self.weights.dtype), self.weights).float()
        return IndexRows(both[:, :-1], both[:, -1:], weights * (own.heads**-0.5 * own.dim**-0.5))

    def choice(
        self, new: IndexRows, segments: Sequence[LayerRows], parents: Sequence[int] | None, begin: int = 0
    ) -> Choice:
        """Return which keys a reader's rows from `begin` on see.

        Args:
            new: of its T rows.
            segments: halves of the keys of all L rows of its cache, the new ones last, as they are stored.
            parents: the rows are a tree; see `Rows`.
        """
        count, total = len(new.queries), sum(first.shape[2] for first, _ in segments)
        past = total - count
        paths = None if parents is None else _paths(parents)
        depths = range(count) if paths is None else [len(path) - 1 for path in paths]
        choosing = [row for row, depth in enumerate(depths) if row >= begin and past + depth + 1 > self.taken]
        device = new.queries.device
        if not choosing:
            nothing = torch.empty(0, self.taken, dtype=torch.int64, device=device)
            return Choice(nothing[:, 0], nothing)
        rows = sent(torch.tensor(choosing, dtype=torch.int64, device="cpu"), device)
        held = [restored(part, torch.float32)[0, 0].float() for parts in segments for part in parts]
        keys = torch.cat([torch.cat(held[0::2]), torch.cat(held[1::2])], dim=1)  # (L, D)
        if paths is not None:
            chosen = []
            for row in choosing:
                own_rows = sent(torch.tensor(paths[row], dtype=torch.int64, device="cpu"), device)
                seen = torch.cat([torch.arange(past, device=device), own_rows + past])
                (own,) = self._chosen(new, [row], keys[seen])
                chosen.append(seen[own])  # rows of a tree lie in the order in which they follow each other
            return Choice(rows, torch.stack(chosen))
        # Few rows choose one by one, so that each has the bits that it has alone. Those of a prompt need not.
        each = 1 if count <= MAX_ROWS else max(1, _MOST_NUMBERS // (total * self.described.heads))
        parts = [choosing[at : at + each] for at in range(0, len(choosing), each)]
        return Choice(rows, torch.cat([self._chosen(new, part, keys[: past + part[-1] + 1]) for part in parts]))

    def _chosen(self, new: IndexRows, rows: Sequence[int], keys: Tensor) -> Tensor:
        """Return the keys that consecutive rows see, (R, K), ascending.

        `keys`, (L, D), are those that the last of them could see. The one before it could see one less, and so on.
        """
        scores = self.scores(new, rows, keys)
        count, total = scores.shape
        if count == 1:
            return scores.topk(self.taken).indices.sort().values
        behind = torch.ones(count, total, dtype=torch.bool, device=scores.device).triu(total - count + 1)
        scores.masked_fill_(behind, float("-inf"))
        best = scores.topk(self.taken + 1)
        chosen = best.indices[:, :-1].clone()
        tied = best.values[:, -2] == best.values[:, -1]
        for row in tied.nonzero()[:, 0].tolist():
            chosen[row] = scores[row, : total - count + 1 + row].topk(self.taken).indices
        return chosen.sort().values

    def scores(self, new: IndexRows, rows: Sequence[int], keys: Tensor) -> Tensor:
        """Return the scores of keys (L, D) for consecutive rows, (R, L) float32."""
        of_rows = slice(rows[0], rows[-1] + 1)
        queries = new.queries[of_rows].float()  # (R, H, D)
        met = torch.relu(queries.flatten(0, 1) @ keys.t()).view(*queries.shape[:2], -1)  # (R, H, L)
        return torch.bmm(new.weights[of_rows, None], met)[:, 0]


def _paths(parents: Sequence[int]) -> list[list[int]]:
    """Return for each row of a tree the rows of its own text, ascending, itself the last one."""
    paths: list[list[int]] = []
    for row, parent in enumerate(parents):
        paths.append([*(paths[parent] if parent >= 0 else ()), row])
    return paths
