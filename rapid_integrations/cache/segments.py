"""The parts that a KV cache consists of: read-only segments that several caches share, and each cache's own tail.

Rows that were committed (a prompt's rows) never change. So a cache of the same beginning does not copy them: it refers
to the buffers in which another cache holds them, even while that one writes further rows behind them. Python frees a
buffer with the last cache that refers to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from rapid_integrations.cache import freed_pages
from rapid_integrations.cache.windows import Range
from rapid_integrations.errors import CacheError

TILE = 64
"""Segments begin at multiples of this many tokens. The kernels' attention reads tiles of as many keys at absolute
positions, so each tile lies in one segment, and a result does not depend on where segments end."""
LEAST_TILES = 4  # fewer shared tiles are copied: a further segment costs each pass more than such a copy
MOST_COPIED = (LEAST_TILES + 1) * TILE
"""Tokens. A fork of a cache with one segment copies fewer of them than this, and refers to the others."""
MOST_SEGMENTS = 8  # a longer chain is cut down to half of it, so that a long chat's passes do not become slower

LayerRows: TypeAlias = "tuple[Tensor, Tensor]"  # keys and values, each (1, H_kv, rows, head_dim)


class Buffers:
    """Every layer's keys and values, each (1, H_kv, capacity, head_dim), or None until a layer is first written.

    They never move, so their addresses may be kept as long as this object lives.

    Args:
        layers: number of layers.
        of: the buffers whose memory these are views of; None if the memory is their own.
        windowed: layers whose rows are freed (`windows`).

    Attributes:
        allocated: number of bytes that would be held if every row was. It is counted once: each request asks for all
            caches' bytes.
        windowed: see the arguments.
        freed: ranges of rows that are freed in the windowed layers, ascending. It is replaced, never changed.
        points: positions behind which other texts go on, whose rows therefore stay.
        written: rows, from the first one on, that have been written at some time. Memory is taken by writing.
    """

    def __init__(self, layers: int, of: Buffers | None = None, windowed: Collection[int] = ()) -> None:
        self._owner = None if of is None else of.owner  # not this object itself: a cycle would keep its memory for long
        self.windowed = frozenset(windowed)
        self.freed: tuple[Range, ...] = ()
        self.points: set[int] = set()
        self.written = 0
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers
        self.complete = not layers  # every layer has buffers; each step of a model asks
        self.allocated = 0
        self._freeable, self._row_bytes = 0, 0  # the windowed layers' part of it, and of each row

    @property
    def owner(self) -> Buffers:
        """The buffers that hold the memory."""
        return self if self._owner is None else self._owner

    @property
    def nbytes(self) -> int:
        """Number of bytes: the allocated ones, but of windowed layers those of the rows that they hold."""
        held = self.written - sum(end - begin for begin, end in self.freed)
        return self.allocated - self._freeable + held * self._row_bytes

    def free(self, rows: Range) -> None:
        """Free the windowed layers' rows from the first to the second number; nobody may need them any more."""
        begin, end = rows
        for layer in self.windowed:
            for each in self.layer(layer):
                for head in each[0]:
                    freed_pages.free(head[begin:end])
        self.freed = tuple(sorted((*self.freed, rows)))

    def write_again(self, begin: int) -> None:
        """Note that rows from `begin` on will be written again, whether they were freed or not."""
        if self.freed and self.freed[-1][1] > begin:
            self.freed = tuple((first, min(last, begin)) for first, last in self.freed if first < begin)

    def put(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Set the buffers of a layer that has none yet."""
        self.keys[layer], self.values[layer] = keys, values
        self.allocated += (nbytes := keys.nbytes + values.nbytes)
        if layer in self.windowed:
            self._freeable += nbytes
            self._row_bytes += nbytes // keys.shape[2]
        self.complete = all(each is not None for each in self.keys)

    def layer(self, index: int) -> LayerRows:
        """Return one layer's buffers.

        Raises:
            CacheError: the layer has not been written yet.
        """
        keys, values = self.keys[index], self.values[index]
        if keys is None or values is None:
            raise CacheError(f"layer {index} has not been written yet", code="unwritten")
        return keys, values


@dataclass(frozen=True)
class Segment:
    """The rows of the positions `begin` to `end`. They are the first `end - begin` rows of `buffers`."""

    buffers: Buffers
    begin: int
    end: int

    def rows(self, layer: int) -> LayerRows:
        """Return views of a layer's keys and values, each (1, H_kv, end - begin, head_dim)."""
        keys, values = self.buffers.layer(layer)
        return keys[:, :, : self.end - self.begin], values[:, :, : self.end - self.begin]


def shared_part(segments: Iterable[Segment], length: int, tile: int = TILE) -> tuple[Segment, ...]:
    """Return what a new cache may refer to of the first `length` rows; it has to copy the others.

    Each returned segment ends at a multiple of `tile`. The last ones are left out if they hold few rows, or if there
    are many: so a chat, each of whose turns adds a segment, has a short chain.
    """
    end = length // tile * tile
    taken = [Segment(each.buffers, each.begin, min(each.end, end)) for each in segments if each.begin < end]
    if len(taken) > MOST_SEGMENTS:
        del taken[MOST_SEGMENTS // 2 :]
    while taken and taken[-1].end - taken[-1].begin < LEAST_TILES * tile:
        taken.pop()
    return tuple(taken)
