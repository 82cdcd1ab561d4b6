"""A language model that is a table: its every probability is known, and a wrong cache changes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.cache.cache_view import CacheView
from rapid_integrations.errors import CacheError
from rapid_integrations.sampling.trees import path_to

ROWS = 1009  # a prime


class TableLM:
    """Gives the row of a seeded random table that the whole text so far hashes to.

    What it has read lies in a real `KVCache` (token ids as the keys of one layer), and the text is read back from
    there: a rollback to the wrong length, a token that was never fed or one that was fed twice gives other logits.

    Args:
        seed: which table.
        vocab_size: tokens that it may generate.
        spread: standard deviation of the logits.
        padding: further columns, as padded embeddings have them; so likely that whoever forgets to cut them loses.
        device: where it computes.
    """

    name = "table"
    context_window = 100_000
    num_parameters = ROWS
    weight_bytes = 4 * ROWS
    kv_bytes_per_token = 2 * 8  # a key and a value
    kernels = "none (a table)"
    hidden_size = 8
    num_layers = 6
    dtype = torch.float32

    def __init__(
        self, seed: int, vocab_size: int = 4, *, spread: float = 1.2, padding: int = 0, device: str = "cpu"
    ) -> None:
        table = spread * torch.randn(ROWS, vocab_size, generator=torch.Generator().manual_seed(seed))
        self.table = torch.cat([table, torch.full((ROWS, padding), 50.0)], dim=1).to(device)  # (ROWS, V_model)
        draw = torch.Generator().manual_seed(1000 + seed)
        self._states = torch.randn(self.num_layers + 1, ROWS, self.hidden_size, generator=draw).to(device)
        self._embedding = torch.randn(vocab_size + padding, self.hidden_size, generator=draw).to(device)
        self.vocab_size = vocab_size + padding
        self.seed = seed
        self._parts: dict[frozenset[int], TableLM] = {}
        self.device = torch.device(device)
        self.passes: list[tuple[Any, ...]] = []  # (T, keep) of each forward pass; of a shared one, those of its readers

    def fingerprint(self) -> str:
        """Raise an error: there are no weights."""
        raise CacheError("a table has no weights")

    def close(self) -> None:
        """Do nothing."""

    def new_cache(self, capacity: int) -> KVCache:
        """Return a cache of one layer, whose keys are the tokens."""
        return KVCache(1, capacity)

    def read(self, token_ids: Tensor, cache: KVCache, keep: int) -> Tensor:
        """Append tokens (T,) to the cache, and return the last logits (keep, V)."""
        new = token_ids.shape[0]
        assert token_ids.shape == (new,) and token_ids.dtype == torch.long, "token_ids: (T,) int64"
        assert new >= 1, "a forward pass over no tokens"
        assert 0 <= keep <= new, f"{keep} rows of logits asked for, {new} tokens fed"
        self.passes.append((new, keep))
        keys = token_ids.view(1, 1, new, 1)
        cache.write(0, keys, keys)
        cache.advance(new)
        text, _ = cache.layer(0)
        return self.table[_rows(text.flatten().tolist())[len(text.flatten()) - keep :]]  # (keep, V_model)

    def read_tree(self, rows: Rows) -> Tensor:
        """Read every path of a tree by itself, and leave the tree's own rows in the cache."""
        cache, parents = rows.cache, rows.parents
        past, asked = cache.length, len(self.passes)
        assert parents is not None and len(parents) == rows.count
        logits = []
        for row in range(rows.count):
            logits.append(self.read(rows.token_ids[path_to(parents, row)], cache, 1))
            cache.rollback(past)
        self.passes[asked:] = [(rows.count, rows.keep)]
        keys = rows.token_ids.view(1, 1, -1, 1)
        cache.write(0, keys, keys)
        cache.advance(rows.count)
        return torch.cat(logits)[rows.count - rows.keep :]

    passes_together = False
    prompts_together = False
    reads_trees = True
    rows_together = 32

    @torch.inference_mode()
    def forward(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Read what each reader wants; see `CausalLM.forward`."""
        for each in rows:
            self._give_states(each)
        found = [
            self.read(each.token_ids, each.cache, each.keep) if each.parents is None else self.read_tree(each)
            for each in rows
        ]
        if len(rows) > 1:
            self.passes[-len(rows) :] = [tuple(self.passes[-len(rows) :])]
        return found

    def _give_states(self, rows: Rows) -> None:
        if (wanted := rows.wanted_states) is not None:
            before = rows.cache.layer(0)[0].flatten().tolist() if rows.cache.length else []
            ids = rows.token_ids.tolist()
            parents = rows.parents or range(-1, rows.count - 1)
            texts = [[*before, *(ids[each] for each in path_to(parents, row))] for row in range(rows.count)]
            places = [_rows(text)[-1] for text in texts]
            rows.give(torch.cat([self._states[level][places] for level in wanted.levels], dim=-1))

    has_parts = True

    def part(self, skipped: frozenset[int] = frozenset()) -> TableLM:
        """Return the table of a model without some layers; see `HasParts`. It reads this one's caches."""
        if not skipped:
            return self
        if skipped not in self._parts:
            self._parts[skipped] = TableLM(1000 * self.seed + hash(tuple(sorted(skipped))) % 997, self.vocab_size)
        return self._parts[skipped]

    def new_view(self, cache: KVCache, runs: Sequence[tuple[int, int]] | None = None) -> CacheView:
        """Return a view of a cache; see `PartOfLM`. A table has one layer, whichever are left out."""
        return CacheView(cache, runs)

    def embedded(self, token_ids: Tensor) -> Tensor:
        """Return tokens' rows of a random embedding table, which heads read; see `GivesStates`."""
        return self._embedding[token_ids]

    def logits_of(self, states: Tensor) -> Tensor:
        """Return what a head over that table makes of states; see `GivesStates`."""
        return states @ self._embedding.T

    def logits_after(self, text: Sequence[int]) -> list[float]:
        """Return the logits after `text`, without any cache."""
        return self.table[_rows(text)[-1]].tolist()


class SharedTableLM(TableLM):
    """A table whose readers share passes, as on the kernels."""

    passes_together = True


def _rows(text: Sequence[int]) -> list[int]:
    """Return the table's row after each token of `text`."""
    rows, state = [], 1
    for token in text:
        state = (state * 31 + token + 1) % ROWS
        rows.append(state)
    return rows
