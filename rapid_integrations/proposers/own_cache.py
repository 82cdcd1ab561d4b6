"""What self-drafting has in common: over which rows of its own the target drafts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rapid_integrations.cache import TILE
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.moved_rows import common_runs
from rapid_integrations.decoding.proposal import ProposerRequest
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.view_reader import Runs, ViewReader
from rapid_integrations.models.causal_lm import HasParts, PartOfLM


def parts_of(reader: Reader) -> HasParts:
    """Return the model of a reader. The plan takes another proposer if its layers cannot be left out."""
    model = reader.model
    assert isinstance(model, HasParts) and model.has_parts, "the plan has looked at it"
    return model


def base_of(request: ProposerRequest) -> Reader:
    """Return the reader whose rows a draft stands on: the drafter's if the target drafts for itself, else the target's.

    The drafter's text is short, so that a token costs less there. It is only read if the law needs it.
    """
    target, drafter = request.target, request.drafter
    assert target is not None, "the loop has a target"
    if request.rules.law.needs_drafter and drafter is not None and not drafter.elsewhere:
        if drafter.reader.model is target.model:
            return drafter.reader
    return target


def step_bytes(part: PartOfLM, rows: int) -> float:
    """Return roughly how many bytes a token of a draft moves: the weights that are left, and the rows that are seen."""
    return float(part.weight_bytes + part.kv_bytes_per_token * rows)


def sparse_drafter(request: ProposerRequest, tile: int = TILE) -> tuple[Drafter, float]:
    """Return the target as a drafter over some rows of its own cache, and the bytes that a token of it moves.

    Args:
        request: of the proposer.
        tile: rows that are seen or not seen together.
    """
    assert request.target is not None, "the loop has a target"
    rows = sparse_rows(request, tile)
    part = parts_of(request.target).part()
    seen = sum(end - begin for begin, end in rows(len(request.target_ids)) or ((0, len(request.target_ids)),))
    return Drafter(ViewReader(request.target, part, rows), request.rules), step_bytes(part, seen)


def sparse_rows(request: ProposerRequest, tile: int = TILE) -> Callable[[int], Runs | None]:
    """Return what chooses, for a text of some length, the first rows, the last ones and those of retrieved passages.

    All of them are rounded to whole tiles, outwards.
    """
    wanted, own = request.self_drafting, request.target_ids
    spans: list[tuple[int, int]] = []
    if wanted.retrieved and list(request.drafter_ids) != list(own):
        spans = [(run.source, run.source + run.length) for run in common_runs(request.drafter_ids, own)]

    def rows(length: int) -> Runs | None:
        sinks, recent = (0, wanted.sinks), (max(0, length - wanted.recent), length)
        return _in_tiles([sinks, recent, *spans], length, tile)

    return rows


def _in_tiles(spans: Iterable[tuple[int, int]], length: int, tile: int) -> Runs | None:
    """Return ascending runs of whole tiles that cover spans, the last of which goes on; None if they cover all."""
    tiles = sorted({each for begin, end in spans for each in range(begin // tile, -(-min(end, length) // tile))})
    runs: list[tuple[int, int]] = []
    for each in tiles:
        if runs and runs[-1][1] == each * tile:
            runs[-1] = runs[-1][0], (each + 1) * tile
        else:
            runs.append((each * tile, (each + 1) * tile))
    return None if len(runs) == 1 and runs[0][0] == 0 and runs[0][1] >= length else runs
