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

from rapid_integrations.cache import Buffers, KVCache, Rows
from rapid_integrations.cache.segments import MOST_SEGMENTS
from rapid_integrations.errors import CacheError

MAX_ROWS = 32
"""Every step has so many rows, used or not: products of one shape alone compute a token, whoever keeps it company."""

MAX_SEGMENTS = MOST_SEGMENTS + 1  # and the tail
NEAR, NEAR_CHUNK, FAR_CHUNK = 8192, 256, 1024
"""Tokens. The boundaries of chunks of keys depend on nothing. The first keys, which are all that a short text has, lie
in short chunks, so that many programs share them. The others lie in long chunks, whose partial results are few."""

_BUFFERS = 64  # at first


def chunks_of(tokens: int) -> int:
    """Return in how many chunks so many keys lie."""
    near = -(-min(tokens, NEAR) // NEAR_CHUNK)
    return near + -(-max(0, tokens - NEAR) // FAR_CHUNK)


@dataclass(frozen=True)
class Parts:
    """The parts of the block, int64. There are R rows, and as many readers at most.

    Attributes:
        ids, positions, tails: (R,) of each row its token, its position, and its row in the tail of its cache.
        reader_of: (R,) of each row its reader; -1 if the row is not used.
        ancestors: (R,) of each row which of its reader's new rows it sees: bit i stands for the i-th.
        first, count, past: (R,) of each reader its first row, how many it has, and how many tokens it has read.
        variant: (R,) of each reader which tables of cosines and sines it uses.
        segment_count: (R,) of each reader in how many segments its keys lie.
        begins, ends, slots: (R * S,) of each segment its positions, and its row of `Places.addresses`.
        work: (R + 1,) of each reader how many pieces of attention come before its own; the last number is all of them.
        tables: (4,) the addresses of cosines and sines, of variant 0 and of variant 1.
    """

    ids: Tensor
    positions: Tensor
    tails: Tensor
    reader_of: Tensor
    ancestors: Tensor
    first: Tensor
    count: Tensor
    past: Tensor
    variant: Tensor
    segment_count: Tensor
    begins: Tensor
    ends: Tensor
    slots: Tensor
    work: Tensor
    tables: Tensor

    @staticmethod
    def sizes(rows: int) -> list[int]:
        """Return how many integers each part has."""
        special = dict.fromkeys(("begins", "ends", "slots"), rows * MAX_SEGMENTS)
        special |= {"work": rows + 1, "tables": 4}
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
        capacities: (slots,) int64, rows of these buffers.
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
        whole = sum(each.count for each in rows)
        if whole > self.rows:
            raise CacheError(f"{whole} rows are no step of at most {self.rows}: read them in several passes")
        host = self._host
        host["reader_of"][:] = -1
        first, work, longest, elsewhere = 0, 0, 0, []
        begins_of_work = []
        for reader, (each, own_tables) in enumerate(zip(rows, tables, strict=True)):
            count, past = each.count, each.cache.length
            if not 0 <= each.keep <= count:
                raise CacheError(f"keep={each.keep} of {count} rows")
            self._place(reader, each.cache, count)
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
            host["variant"][reader] = long
            begins_of_work.append(work)
            work += chunks_of(past + count) * -(-count * self._group // self._tile_rows)
            longest = max(longest, past + count)
            first += count
        host["work"][: len(rows)] = begins_of_work
        host["work"][len(rows) :] = work
        self.longest = longest
        # Pinned memory is a copy that stays as it is until the device has read it: the next step overwrites `_sent`.
        sent = self._sent.pin_memory() if self._block.device.type == "cuda" else self._sent
        self._block.copy_(sent, non_blocking=True)
        for own, token_ids in elsewhere:
            self.parts.ids[own] = token_ids

    def _place(self, reader: int, cache: KVCache, new: int) -> None:
        """Fill in the segments of a reader's keys."""
        cache.tail(new)  # it has room for them
        host, begin = self._host, reader * MAX_SEGMENTS
        segments = cache.segments
        if len(segments) > MAX_SEGMENTS:
            raise CacheError(f"{len(segments)} segments are more than {MAX_SEGMENTS}: take a fork of this cache")
        host["segment_count"][reader] = len(segments)
        for at, segment in enumerate(segments, begin):
            own = at == begin + len(segments) - 1
            host["begins"][at], host["ends"][at] = segment.begin, segment.end + (new if own else 0)
            host["slots"][at] = self._slot_of(segment.buffers)

    def _slot_of(self, buffers: Buffers) -> int:
        """Return the row of `addresses` of some buffers, which is sent when they are first met."""
        if (known := self._slots.get(buffers)) is not None:
            return known
        layers = [buffers.layer(index) for index in range(self._layers)]
        capacity = layers[0][0].shape[2]
        shape = (1, self._kv_heads, capacity, self._head_dim)
        for buffer in (each for layer in layers for each in layer):
            same = buffer.dtype == self._like.dtype and buffer.device == self._like.device
            if buffer.shape != shape or not same or not buffer.is_contiguous():
                raise CacheError(
                    f"the cache holds {tuple(buffer.shape)} in {buffer.dtype} on {buffer.device}, not {shape} in "
                    f"{self._like.dtype} on {self._like.device}: it is another model's"
                )
        if not self._free:
            self._grow(2 * len(self.capacities))
        slot = self._free.pop()
        self.addresses[slot] = torch.tensor([[each.data_ptr() for each in layer] for layer in layers])
        self.capacities[slot] = capacity
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
