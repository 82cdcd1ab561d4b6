"""Chunk KV: a drafter's retrieved chunks take keys and values that were computed at other positions.

Nearly everything that a drafter reads for a second question are chunks of a document that has been read before. Their
keys are rotated by the difference of positions, their values are copied, and the first tokens of each run of them are
read anew, so that they see what stands before them now (EPIC's LegoLink, arXiv 2410.15332). The drafter's rows differ a
little from those of a prefill, and so does q. What verifies does not change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from rapid_integrations.cache import KVCache
from rapid_integrations.cache.levels import quantised, restored
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.models.causal_lm import MovesKeys

LEAST_RUN = 32  # tokens; a shorter run is read
REPAIRED = 16  # first tokens of a run that are read anew; EPIC's number
_WORD = 12  # tokens by which runs are found


@dataclass(frozen=True)
class Run:
    """Tokens that stand in a prompt and in another text that has been read.

    Attributes:
        begin: position in the prompt.
        source: position in the other text.
        length: number of tokens.
    """

    begin: int
    source: int
    length: int


def common_runs(prompt_ids: Sequence[int], source_ids: Sequence[int], begin: int = 0) -> Iterator[Run]:
    """Yield what a prompt can take from another text, from position `begin` of the prompt on, without overlap.

    Of several places in the other text, the one with the longest run counts, and the first of those.
    """
    places: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place in range(len(source_ids) - _WORD + 1):
        places[tuple(source_ids[place : place + _WORD])].append(place)
    while begin <= len(prompt_ids) - LEAST_RUN:
        found = places.get(tuple(prompt_ids[begin : begin + _WORD]), ())
        length, source = max(((_common(prompt_ids, begin, source_ids, at), -at) for at in found), default=(0, 0))
        if length >= LEAST_RUN:
            yield Run(begin, -source, length)
            begin += length
        else:
            begin += 1


def _common(prompt_ids: Sequence[int], begin: int, source_ids: Sequence[int], place: int) -> int:
    length, most = 0, min(len(prompt_ids) - begin, len(source_ids) - place)
    while length < most and prompt_ids[begin + length] == source_ids[place + length]:
        length += 1
    return length


def prefill(
    reader: Reader,
    taken: Iterable[tuple[Run, KVCache]],
    report: Callable[[int, int], None] = lambda done, total: None,
    repaired: int = REPAIRED,
) -> Steps[None]:
    """Prefill all but the last token of a reader's prompt, and take the rows of runs from other caches.

    A run at the very beginning of both texts is taken whole, because its rows are those of a prefill.

    Args:
        reader: has read nothing yet. Its `reused` counts what is taken.
        taken: the runs, in the order of the prompt, each with the cache of the other text.
        report: told of the tokens in the cache and the tokens of the prompt.
        repaired: first tokens of a run that are read anew.
    """
    last = len(reader.tokens) - 1
    for run, cache in taken:
        begin = run.begin + (0 if run.begin == run.source == 0 else repaired)
        end = min(run.begin + run.length, last, run.begin + cache.length - run.source)
        if end - begin >= LEAST_RUN - REPAIRED:
            yield from reader.prefill(report, begin)
            _take(reader, cache, run.source - run.begin, end)
    yield from reader.prefill(report)


@torch.inference_mode()
def _take(reader: Reader, source: KVCache, distance: int, end: int) -> None:
    """Write rows behind what a reader has read, up to the position `end`: those `distance` further on in `source`."""
    cache, model = reader.cache, reader.model
    begin = cache.length
    assert isinstance(model, MovesKeys), "the plan asks for this only if the model can"
    for layer in range(cache.layers):
        keys, values = source.rows(layer, begin + distance, end + distance)
        # Keys in eight bits are rotated as numbers. Values stay what they are.
        moved = model.shifted(layer, restored(keys, model.dtype), -distance)
        cache.write(layer, moved if cache.kv_dtype is None else quantised(moved), values)
    cache.advance(end - begin)
    reader.reused += end - begin
