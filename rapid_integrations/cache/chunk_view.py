"""Some rows of another cache, read where they lie, with rows of the view's own behind them."""

from __future__ import annotations

from collections.abc import Sequence

from rapid_integrations.cache.kv_cache import KVCache
from rapid_integrations.cache.segments import TILE, Buffers, Segment
from rapid_integrations.errors import CacheError


class ChunkView(KVCache):
    """A cache whose first rows are some of those of another one, which may go on growing meanwhile.

    Unlike `CacheView`, it writes into buffers of its own. Keys stay rotated for the positions at which they were read,
    and the next token stands right behind the last row that is seen: `position` counts the rows that are left out, too.

    Args:
        base: the other cache. It cannot be rolled back to fewer tokens than are seen any more.
        runs: the positions (begin, end) whose rows are seen, ascending and in whole tiles; at least one.
        capacity: tokens that must fit, those that are seen included.

    Raises:
        CacheError: layers are recurrent or have freed rows, or a run is not in whole tiles or goes beyond the other
            cache's end.
    """

    def __init__(self, base: KVCache, runs: Sequence[tuple[int, int]], capacity: int) -> None:
        super().__init__(base.layers, 0, base.variant, kv_dtype=base.kv_dtype)
        last = runs[-1][1]
        if base.state is not None or last > base.length or any(at % TILE for run in runs for at in run):
            raise CacheError(
                f"a view of {last:,} tokens needs whole tiles of {TILE} rows of a cache that holds as many and has no "
                f"recurrent layers; this one holds {base.length:,}",
                code="view",
            )
        if base.freed:
            raise CacheError("a view of chunks needs rows that layers with a sliding window have freed", code="view")
        shared: list[Segment] = []
        for begin, end in runs:
            for segment in base.segments:
                first, stop = max(begin, segment.begin), min(end, segment.end)
                if first < stop:
                    seen = shared[-1].end if shared else 0
                    part = _part(segment.buffers, base.layers, first - segment.begin, stop - segment.begin)
                    shared.append(Segment(part, seen, seen + stop - first))
        self.shared = tuple(shared)
        self._begin = self._lent = self._length = shared[-1].end
        self._left_out = last - self._length
        self.capacity = self._begin + -(-(capacity - self._begin) // TILE) * TILE
        # The tail is there before the first pass, so that the same kernels compute each pass, as behind a fork.
        for layer in range(base.layers):
            self._tail.put(layer, *(self._allocate(each, layer) for each in base.segments[-1].buffers.layer(layer)))
        base._lent = max(base._lent, last)

    @property
    def position(self) -> int:
        """The number of tokens that come before the next one in the text."""
        return self._length + self._left_out


def _part(buffers: Buffers, layers: int, begin: int, end: int) -> Buffers:
    """Return views of the rows `begin` to `end` of every layer."""
    part = Buffers(layers, of=buffers)
    for layer in range(layers):
        keys, values = buffers.layer(layer)
        part.put(layer, keys[:, :, begin:end], values[:, :, begin:end])
    return part
