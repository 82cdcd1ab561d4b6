"""Some layers and some rows of another cache, read where they lie.

A model that drafts for itself reads on behind rows that it already has: without some of its layers, or without the rows
of most of a long text. Nothing is copied. New rows are written behind the other cache's own, which has forgotten them
when the next pass over it writes there.
"""

from __future__ import annotations

from collections.abc import Sequence

from rapid_integrations.cache.kv_cache import KVCache
from rapid_integrations.cache.segments import Buffers, Segment
from rapid_integrations.errors import CacheError


class CacheView(KVCache):
    """A cache whose rows are some of those of another one.

    `length` counts its rows, and `position` the tokens of the text before the next one. Keys stay rotated for the
    positions at which they were read.

    Args:
        base: the other cache. Nobody else may read on behind it between `renew` and the view's last pass.
        runs: the positions (begin, end) whose rows are seen, ascending; what is behind the last `begin` is seen to the
            end. None sees everything. The kernels need runs that begin and end at multiples of `TILE`.
        layers: numbers of the layers that are read; None: all.

    Raises:
        CacheError: the other cache is empty, some of its layers are recurrent, or there are gaps and layers have freed
            rows.
    """

    def __init__(
        self, base: KVCache, runs: Sequence[tuple[int, int]] | None = None, layers: Sequence[int] | None = None
    ) -> None:
        if base.state is not None or not base.filled_layers:
            raise CacheError("a view takes a cache with rows, and no layer of its model may be recurrent", code="view")
        if runs is not None and base.freed:
            raise CacheError("a view with gaps needs rows that layers with a sliding window have freed", code="view")
        kept = range(base.layers) if layers is None else layers
        super().__init__(len(kept), 0, base.variant, kv_dtype=base.kv_dtype)
        self._base = base
        wanted = [(0, base.length)] if runs is None else [*runs[:-1], (runs[-1][0], base.length)]
        parts: list[Segment] = []
        length = 0
        for segment in base.segments:
            own = segment is base.segments[-1] or segment.buffers is base.segments[-1].buffers
            for number, (begin, end) in enumerate(wanted):
                last = own and number == len(wanted) - 1
                first, stop = max(begin, segment.begin), min(end, segment.end)
                if first < stop or last:
                    first = max(first, segment.begin)
                    buffers = _part(segment.buffers, kept, first - segment.begin, None if last else stop - first)
                    parts.append(Segment(buffers, length, length + max(0, stop - first)))
                    length = parts[-1].end
        self.shared = tuple(each for each in parts[:-1] if each.end > each.begin)
        self._tail, self._begin = parts[-1].buffers, parts[-1].begin
        self._length = length
        self._left_out = base.length - length
        self.capacity = base.capacity - self._left_out

    @property
    def position(self) -> int:
        """The number of tokens that come before the next one in the text."""
        return self._length + self._left_out

    def renew(self) -> None:
        """Go back to where the other cache ends now, with the rows that it has gained since."""
        self._length = self._base.length - self._left_out


def _part(buffers: Buffers, layers: Sequence[int], begin: int, rows: int | None) -> Buffers:
    """Return views of `rows` rows of some layers, from row `begin` on; all further ones if `rows` is None."""
    part = Buffers(len(layers))
    for slot, layer in enumerate(layers):
        keys, values = buffers.layer(layer)
        end = None if rows is None else begin + rows
        if begin or (end is not None and end < keys.shape[2]):
            keys, values = keys[:, :, begin:end], values[:, :, begin:end]
        part.put(slot, keys, values)
    return part
