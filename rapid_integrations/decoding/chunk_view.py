"""Chunk KV in place: a drafter with the target's weights reads the retrieved chunks where the target holds them.

Nothing is copied and nothing is rotated. The drafter attends to the target's rows of the prompt's first tokens and of
the retrieved chunks, at the positions that they have in the target's prompt. Behind them, it reads the question and the
instruction itself, so that these have seen nothing but the chosen rows. Which rows are chosen depends on both prompts
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rapid_integrations.cache import TILE, KVCache
from rapid_integrations.cache.chunk_view import ChunkView
from rapid_integrations.cache.prefix_cache import common_prefix
from rapid_integrations.decoding.moved_rows import Run
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.models.causal_lm import CausalLM


@dataclass(frozen=True)
class Chosen:
    """What a drafter reads over the target's rows.

    Attributes:
        runs: positions (begin, end) in the target's prompt, ascending, in whole tiles. The drafter sees their rows.
        token_ids: the tokens of these rows, and behind them those that the drafter reads itself.
    """

    runs: tuple[tuple[int, int], ...]
    token_ids: list[int]

    @property
    def seen(self) -> int:
        """The number of the target's rows that the drafter sees."""
        return sum(end - begin for begin, end in self.runs)


def choose(drafter_ids: Sequence[int], target_ids: Sequence[int], runs: Sequence[Run], closing: int) -> Chosen:
    """Return which of the target's rows a drafter sees, and what it reads itself.

    The runs are rounded to whole tiles, outwards, because the kernels read tiles. The order is that of the target's
    prompt, whatever the order of the passages in the drafter's. The first tile is always seen: attention needs the
    first tokens of a text (StreamingLLM's sinks, arXiv 2309.17453).

    Args:
        drafter_ids, target_ids: both prompts.
        runs: what the first prompt has of the second one.
        closing: the number of tokens behind the last context. The drafter reads them itself.
    """
    behind = common_prefix(np.asarray(drafter_ids[::-1]), np.asarray(target_ids[::-1]))
    own = max(1, min(closing, behind))
    end = len(target_ids) - own
    whole = end // TILE
    tiles = {0}
    for run in runs:
        stop = min(run.source + run.length, end)
        if run.source < stop:
            tiles.update(range(run.source // TILE, -(-stop // TILE)))
    # A last tile that is not full of the document's rows is read by the drafter itself.
    begin = whole * TILE if whole in tiles else end
    seen: list[tuple[int, int]] = []
    for tile in sorted(each for each in tiles if each < whole):
        if seen and seen[-1][1] == tile * TILE:
            seen[-1] = seen[-1][0], (tile + 1) * TILE
        else:
            seen.append((tile * TILE, (tile + 1) * TILE))
    rows = [token for first, last in seen for token in target_ids[first:last]]
    read = drafter_ids[len(drafter_ids) - own :]
    return Chosen(tuple(seen), [*rows, *target_ids[begin:end], *read])


def reader_over(model: CausalLM, chosen: Chosen, target: KVCache, new_tokens: int) -> Reader:
    """Return a reader that sees chosen rows of the target's cache, and has read nothing itself yet.

    Args:
        model: the target.
        chosen: see `choose`.
        target: the target's cache. It holds all tokens of the prompt but the last one.
        new_tokens: tokens of the answer and of a draft that have to fit behind the prompt.
    """
    capacity = len(chosen.token_ids) + new_tokens
    cache = ChunkView(target, chosen.runs, capacity) if chosen.runs else model.new_cache(capacity)
    return Reader(model, chosen.token_ids, capacity, cache)
