"""Where the rows of a step lie, in device memory: what its kernels read instead of arguments.

A CUDA graph repeats its kernels with the arguments of its capture. So lengths, positions and addresses are no
arguments. They lie in a static block of integers, which the host fills and sends before each replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor

from rapid_integrations.cache import TILE, Buffers, KVCache, Rows
from rapid_integrations.errors import CacheError
from rapid_integrations.sampling.sending import sent

MAX_ROWS = 32
"""Every step has so many rows, used or not: products of one shape alone compute a token, whoever keeps it company."""

MAX_SEGMENTS = 64
"""Of one reader's keys. A fork has a few, and a view of the chunks that were retrieved one for each run of them."""

NEAR, NEAR_CHUNK, FAR_CHUNK = 8192, 256, 1024
"""Tokens. The boundaries of chunks of keys depend on nothing. The first keys, which are all that a short text has, lie
in short chunks, so that many programs share them. The others lie in long chunks, whose partial results are few."""

_BUFFERS = 1024  # at first; a graph is captured anew if there are more
_ALIGNED = 16  # bytes, of which the addresses of rows are multiples: the kernels read so many at once


def holds(cache: KVCache) -> bool:
    """Return whether a step's block can say where a cache's keys lie, and its kernels read them as they are stored."""
    segments = cache.segments
    in_tiles = all(each.begin % TILE == 0 for each in segments)
    return cache.kv_dtype is None and len(segments) <= MAX_SEGMENTS and in_tiles


def chunks_of(tokens: int) -> int:
    """Return in how many chunks so many keys lie."""
    near = -(-min(tokens, NEAR) // NEAR_CHUNK)
    return near + -(-max(0, tokens - NEAR) // FAR_CHUNK)


@dataclass(frozen=True)
class Parts:
    """The parts of the block, int64. There are R rows, and as many readers at most.

    Attributes:
        ids, positions, tails: (R,) of each row its token, its place among its reader's keys, and its row in the tail of
            its cache.
        reader_of: (R,) of each row its reader; -1 if the row is not used.
        ancestors: (R,) of each row which of its reader's new rows it sees: bit i stands for the i-th.
        first, count, past: (R,) of each reader its first row, how many it has, and how many keys there are before them.
        ahead: (R,) of each reader how much further on in the text its rows are than among its keys: a view leaves out
            keys, and not their positions.
        variant: (R,) of each reader which tables of cosines and sines it uses.
        segment_count, first_segment: (R,) of each reader in how many segments its keys lie, and the first one's number.
        work: (R + 1,) of each reader how many pieces of attention come before its own; the last number is all of them.
        tables: (4,) the addresses of cosines and sines, of variant 0 and of variant 1.
        segments: (R * S * 3,) of each segment the places of its first key and behind its last one, and its row of
            `Places.addresses`.
    """

    ids: Tensor
    positions: Tensor
    tails: Tensor
    reader_of: Tensor
    ancestors: Tensor
    first: Tensor
    count: Tensor
    past: Tensor
    ahead: Tensor
    variant: Tensor
    segment_count: Tensor
    first_segment: Tensor
    work: Tensor
    tables: Tensor
    segments: Tensor

    @staticmethod
    def sizes(rows: int) -> list[int]:
        """Return how many integers each part has."""
        special = {"work": rows + 1, "tables": 4, "segments": 3 * rows * MAX_SEGMENTS}
        return [special.get(field.name, rows) for field in fields(Parts)]

    @classmethod
    def of(cls, block: Tensor, rows: int) -> Parts:
        """Return views of the parts of a block."""
        return cls(*torch.split(block, cls.sizes(rows)))


class Places:
    """The static block, and the addresses of every cache that steps have met.

    Args:
        layers, kv_heads, head_dim: of the caches.
        group: query heads that share a key/value head.
        tile_rows: rows of queries, `group` for each token, that a program of the attention takes at once.
        like: has the dtype and device of the caches.
        rows: R, a power of two.

    Attributes:
        rows: R.
        parts: of the block, on the device.
        addresses: (slots, layers, 2) int64, of the keys and values of a cache's own rows.
        capacities: (slots,) int64, rows from one head's first row to the next one's in these buffers.
        longest: tokens of the longest text of the step that was filled in last, the new ones included.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        group: int,
        tile_rows: int,
        like: Tensor,
        rows: int = MAX_ROWS,
    ) -> None:
        self.rows = rows
        self._layers, self._kv_heads, self._head_dim = layers, kv_heads, head_dim
        self._group, self._tile_rows, self._like = group, tile_rows, like
        whole = sum(Parts.sizes(rows))
        self._sent = torch.zeros(whole, dtype=torch.int64, device="cpu")
        # NumPy's assignments take a third of the time of PyTorch's.
        self._host = {name: part.numpy() for name, part in vars(Parts.of(self._sent, rows)).items()}
        self._block = torch.zeros(whole, dtype=torch.int64, device=like.device)
        self.parts = Parts.of(self._block, rows)
        self.longest = 0
        self._slots: WeakKeyDictionary[Buffers, int] = WeakKeyDictionary()
        self._free: list[int] = []
        self.addresses = torch.zeros(0, layers, 2, dtype=torch.int64, device=like.device)
        self.capacities = torch.zeros(0, dtype=torch.int64, device=like.device)
        self._grow(_BUFFERS)

    def fill(self, rows: Sequence[Rows], tables: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Send where a step's rows lie. Steps before it may still run.

        Args:
            rows: of one or several readers; every cache has been filled by an earlier forward pass.
            tables: cosines and sines of each reader, (positions, pairs) float32.

        Raises:
            CacheError: there are too many rows, they do not fit into a cache, or a cache is another model's.
            IndexError: an id that lies on the processor is negative.
        """
        if (count := sum(each.count for each in rows)) > self.rows:
            raise CacheError(f"{count} rows are no step of at most {self.rows}: read them in several passes")
        host = self._host
        host["reader_of"][:] = -1
        first, work, longest, held, elsewhere = 0, 0, 0, 0, []
        begins_of_work = []
        for reader, (each, own_tables) in enumerate(zip(rows, tables, strict=True)):
            count, past = each.count, each.cache.length
            if not 0 <= each.keep <= count:
                raise CacheError(f"keep={each.keep} of {count} rows")
            held = self._place(reader, each.cache, count, held)
            own = slice(first, first + count)
            if each.token_ids.device.type == "cpu":
                host["ids"][own] = each.token_ids.numpy()
            else:
                elsewhere.append((own, each.token_ids))
            skipped = past - each.cache.tail_begin
            host["positions"][own] = [past + depth for depth in each.depths]
            host["tails"][own] = range(skipped, skipped + count)
            host["reader_of"][own] = reader
            host["ancestors"][own] = ancestors_of(each)
            long = int(each.cache.variant == 1)
            host["tables"][2 * long : 2 * long + 2] = [table.data_ptr() for table in own_tables]
            host["first"][reader], host["count"][reader], host["past"][reader] = first, count, past
            host["ahead"][reader] = each.cache.position - past
            host["variant"][reader] = long
            begins_of_work.append(work)
            work += chunks_of(past + count) * -(-count * self._group // self._tile_rows)
            longest = max(longest, past + count)
            first += count
        host["work"][: len(rows)] = begins_of_work
        host["work"][len(rows) :] = work
        self.longest = longest
        # Pinned memory is a copy that stays as it is until the device has read it: the next step overwrites `_sent`. Of
        # the segments, which are the last part, only those are sent that there are.
        used = self._sent[: len(self._sent) - len(host["segments"]) + 3 * held]
        whole = used.pin_memory() if self._block.device.type == "cuda" else used
        self._block[: len(used)].copy_(whole, non_blocking=True)
        for own, token_ids in elsewhere:
            self.parts.ids[own] = token_ids

    def _place(self, reader: int, cache: KVCache, new: int, first: int) -> int:
        """Fill in the segments of a reader's keys, from number `first` on; return the number of the next one."""
        cache.tail(new)  # it has room for them
        host, segments = self._host, cache.segments
        if len(segments) > MAX_SEGMENTS:
            raise CacheError(f"{len(segments)} segments are more than {MAX_SEGMENTS}: take a fork of this cache")
        host["segment_count"][reader], host["first_segment"][reader] = len(segments), first
        for number, segment in enumerate(segments, start=1):
            end = segment.end + (new if number == len(segments) else 0)
            host["segments"][3 * first : 3 * first + 3] = segment.begin, end, self._slot_of(segment.buffers)
            first += 1
        return first

    def _slot_of(self, buffers: Buffers) -> int:
        """Return the row of `addresses` of some buffers, which is sent when they are first met."""
        if (known := self._slots.get(buffers)) is not None:
            return known
        layers = [buffers.layer(index) for index in range(self._layers)]
        whole = layers[0][0]
        shape = (1, self._kv_heads, whole.shape[2], self._head_dim)
        strides = (whole.stride(1), self._head_dim, 1)
        for buffer in (each for layer in layers for each in layer):
            same = buffer.dtype == self._like.dtype and buffer.device == self._like.device
            if buffer.shape != shape or not same or buffer.stride()[1:] != strides or buffer.data_ptr() % _ALIGNED:
                raise CacheError(
                    f"the cache holds {tuple(buffer.shape)} in {buffer.dtype} on {buffer.device}, not {shape} in "
                    f"{self._like.dtype} on {self._like.device}, one row behind the other: it is another model's"
                )
        if not self._free:
            self._grow(2 * len(self.capacities))
        slot = self._free.pop()
        addresses = torch.tensor([[each.data_ptr() for each in layer] for layer in layers], device="cpu")
        self.addresses[slot] = sent(addresses, self.addresses.device)
        self.capacities[slot] = whole.stride(1) // self._head_dim
        self._slots[buffers] = slot
        finalize(buffers, self._free.append, slot)
        return slot

    def _grow(self, slots: int) -> None:
        before = len(self.capacities)
        addresses = self.addresses.new_zeros(slots, self._layers, 2)
        capacities = self.capacities.new_zeros(slots)
        addresses[:before], capacities[:before] = self.addresses, self.capacities
        self.addresses, self.capacities = addresses, capacities
        self._free += range(before, slots)


def ancestors_of(rows: Rows) -> list[int]:
    """Return for each new row which new rows it sees: bit i stands for the i-th.

    Raises:
        CacheError: a row comes before the one that it follows.
    """
    if rows.parents is None:
        return [(2 << row) - 1 for row in range(rows.count)]
    seen: list[int] = []
    for row, parent in enumerate(rows.parents):
        if not -1 <= parent < row:
            raise CacheError(f"parents={rows.parents}: each has to come before its child")
        seen.append((seen[parent] if parent >= 0 else 0) | 1 << row)
    return seen
