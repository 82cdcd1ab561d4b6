"""One model's keys and values for one text: preallocated, written in place, rolled back by setting a length.

A decode step must not copy the cache. So the whole capacity (prompt + output + draft) is allocated once, a forward pass
writes its T new rows after `length`, and attention reads views. Lowering `length` forgets a rejected draft; the rows
after it are dead until they are overwritten. Layers with a sliding window free the rows that nothing can need any more
(`windows.py`). Those that stay keep their places.

A text that begins like another one refers to that cache's rows (`fork`) and holds only what comes behind them.

Rows may be stored in eight bits (`levels.py`), with half of the memory.

Layers with a recurrent state have no rows. Their state is kept beside them (`recurrent_state.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rapid_integrations.cache import freed_pages, windows
from rapid_integrations.cache.arena import Arena
from rapid_integrations.cache.levels import quantised
from rapid_integrations.cache.recorded_state import RecordedState
from rapid_integrations.cache.recurrent_state import RecurrentState
from rapid_integrations.cache.segments import TILE, Buffers, LayerRows, Segment, shared_part
from rapid_integrations.cache.windows import Range
from rapid_integrations.config import KVDtype
from rapid_integrations.errors import CacheError, OneOwner
from rapid_integrations.sampling.sending import sent

CAPACITY_BUCKET = 512
"""Tokens. The capacity of a cache without a shared prefix is rounded up to it, so that requests of similar length use
the same shapes. Behind a shared prefix it is `TILE`: there may be many such caches, and each has its own tail."""


class KVCache(OneOwner):
    """Keys and values of every layer for the first `length` tokens of one text.

    The first rows may lie in segments that other caches share. They are read-only. The others are the cache's own tail.
    Its buffers are allocated by the first forward pass, in the shape, dtype and device that each layer really produces:
    (1, H_kv, rows, head_dim). A `device_map` over several devices thus needs no special case.

    Args:
        layers: number of layers with keys and values of their own.
        capacity: tokens that must fit, those of shared segments included. It is rounded up (see `CAPACITY_BUCKET`).
        variant: see the attributes; forks inherit it.
        state: see the attributes.
        kv_dtype: see the attributes; forks inherit it.
        windows: see the attributes; forks inherit them.

    Attributes:
        capacity: tokens that fit.
        shared: the shared segments, in the order of their positions; empty if all rows are the cache's own.
        variant: which of its rotations the model chose for this text. Rows of one variant are of no use to another.
        state: of the layers that are recurrent; None if there are none. A `RecurrentState` may have read fewer tokens
            than the cache holds. The next pass reads those once more.
        kv_dtype: "int8" if rows are stored in eight bits: int8 (1, H_kv, rows, head_dim + 4), see `levels`. With None,
            they are stored as the layers produce them.
        sparse_rows: rows, from the first one on, that belong to whole blocks of `TILE` tokens of a prompt, if the model
            reads prompts sparsely. Only they may be used for other texts: how the others were read depends on where
            the prompt ended. None if prompts are read densely.
        windows: of each layer how many keys a query sees, its own included; None: all. Empty if no layer frees rows,
            because all see everything, or because the memory's system takes no rows back.
    """

    def __init__(
        self,
        layers: int,
        capacity: int,
        variant: int = 0,
        state: RecurrentState | RecordedState | None = None,
        kv_dtype: KVDtype | None = None,
        windows: Sequence[int | None] = (),
    ) -> None:
        self.capacity = allocated_tokens(capacity)
        self.layers = layers
        self.variant = variant
        self.state = state
        self.kv_dtype = kv_dtype
        self.sparse_rows: int | None = None
        self.shared: tuple[Segment, ...] = ()
        self.windows = tuple(windows) if freed_pages.serves() and any(windows) else ()
        self._window = max((each for each in self.windows if each is not None), default=0)  # 0: nothing is ever freed
        windowed = [layer for layer, window in enumerate(self.windows) if window is not None]
        self._tail = Buffers(layers, windowed=windowed)
        self._freed_to = 0  # what was to be freed before this position is freed
        self._prompt_end = 0
        self._begin = 0  # position of the tail's first row
        self._lent = 0  # rows before this position belong to other caches, too
        self._length = 0
        self._arena = Arena()
        self._small_pages = Arena(large_pages=False) if self._window else self._arena
        self._frozen = False
        self._written: dict[torch.device, torch.cuda.Event] = {}

    @property
    def length(self) -> int:
        """Number of tokens in the cache."""
        return self._length

    @property
    def position(self) -> int:
        """Number of tokens that come before the next one in the text; of a `CacheView`, more than are in it."""
        return self._length

    @property
    def nbytes(self) -> int:
        """Number of bytes of the own tail and of recurrent states.

        The tail's are allocated at once, whatever the length. Layers with a sliding window count the rows that they
        hold. See also `distinct_bytes`.
        """
        return self._tail.nbytes + (0 if self.state is None else sum(each.nbytes for each in self.state.tensors))

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's rows in all layers that have been written."""
        rows = self.capacity - self._begin
        return self._tail.allocated // rows if rows else 0

    @property
    def filled_layers(self) -> int:
        """Number of layers that have been written at least once."""
        return self.layers if self._tail.complete else sum(keys is not None for keys in self._tail.keys)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All rows: the shared segments and, as the last one, the own tail."""
        return *self.shared, Segment(self._tail, self._begin, self._length)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> list[LayerRows]:
        """Store T new rows after `length` and return views over all rows, including the new ones.

        `length` itself moves only in `advance`, after every layer has been written. So a forward pass that fails
        half-way leaves the cache unchanged.

        Args:
            layer: index of the layer.
            keys, values: (1, H_kv, T, head_dim), or rows of a cache with this `kv_dtype` as they are stored.

        Returns:
            for each shared segment and then for the tail its keys and values as they are stored, each
            (1, H_kv, rows, head_dim). Together they have length + T rows.

        Raises:
            CacheError: the rows do not fit, or the cache is frozen.
        """
        self._check_room(keys.shape[2])
        if self.kv_dtype == "int8" and keys.dtype != torch.int8:
            keys, values = quantised(keys), quantised(values)
        begin, end = self._length - self._begin, self._length - self._begin + keys.shape[2]
        if self._tail.keys[layer] is None:
            self._tail.put(layer, self._allocate(keys, layer), self._allocate(values, layer))
        key_buffer, value_buffer = self._tail.layer(layer)
        key_buffer[:, :, begin:end] = keys
        value_buffer[:, :, begin:end] = values
        own = key_buffer[:, :, :end], value_buffer[:, :, :end]
        return [*(segment.rows(layer) for segment in self.shared), own] if self.shared else [own]

    def restore(self, layer: int, ranges: Sequence[Range], keys: Tensor, values: Tensor) -> None:
        """Store the rows that a file has of a layer, those of some ranges of positions, one behind the other.

        Args:
            layer: index of the layer.
            ranges: ascending.
            keys, values: (1, H_kv, rows, head_dim), as they are stored.
        """
        self._check_room(ranges[-1][1] if ranges else 0)
        if self._tail.keys[layer] is None:
            self._tail.put(layer, self._allocate(keys, layer), self._allocate(values, layer))
        at = 0
        for begin, end in ranges:
            for buffer, rows in zip(self._tail.layer(layer), (keys, values), strict=True):
                buffer[:, :, begin:end] = rows[:, :, at : at + end - begin]
            at += end - begin

    def restored(self, length: int, freed: Sequence[Range]) -> None:
        """Count the rows of the first `length` tokens that `restore` has stored, but those that were freed."""
        self._check_room(length)
        self._length = self._tail.written = self._prompt_end = length
        self._tail.freed = tuple((begin, min(end, length)) for begin, end in freed if begin < length)
        self._freed_to = max((end for _, end in self._tail.freed), default=0)
        self._stays(length)

    def tail(self, new: int) -> Buffers:
        """Return the own tail's buffers, for a kernel that writes `new` rows itself.

        Their first row has the position `tail_begin`. The new rows go after `length`, which `advance` then moves.

        Raises:
            CacheError: the rows do not fit, a layer has not been written yet, or the cache is frozen.
        """
        self._check_room(new)
        if not self._tail.complete:
            self._tail.layer(self.filled_layers)  # this raises
        return self._tail

    @property
    def tail_begin(self) -> int:
        """Position of the own tail's first row."""
        return self._begin

    def _check_room(self, new: int) -> None:
        if self._frozen:
            raise CacheError("the KV cache is frozen: write to a fork of it", code="frozen")
        if self._length + new > self.capacity:
            raise CacheError(
                f"a KV cache of {self.capacity:,} tokens cannot take {self._length + new:,}: allocate it larger",
                code="full",
            )

    def _allocate(self, like: Tensor, layer: int) -> Tensor:
        """Return a buffer (1, H_kv, rows of the tail, head_dim).

        With a window it has zeros on GPUs, as files may lack rows. On the processor fresh pages have zeros.
        """
        batch, heads, _, head_dim = like.shape
        shape = batch, heads, self.capacity - self._begin, head_dim
        windowed = layer in self._tail.windowed
        if like.device.type != "cpu":
            return like.new_zeros(shape) if windowed else like.new_empty(shape)
        return (self._small_pages if windowed else self._arena).empty(shape, like.dtype)

    def advance(self, tokens: int, *, of_prompt: bool = False) -> None:
        """Count the `tokens` rows that every layer has just written, and free those that nothing can need any more.

        Args:
            tokens: number of rows.
            of_prompt: they belong to a prompt, behind which other texts may go on.
        """
        self._length += tokens
        self._tail.written = max(self._tail.written, self._length - self._begin)
        if self._window:
            self._prompt_end = self._length if of_prompt else self._prompt_end
            self._free_rows()

    def _free_rows(self) -> None:
        begin, end = max(self._freed_to, self._begin), self._length - self._window - windows.BRANCHES
        keys = self._tail.keys[0]
        if end - begin < windows.STEP or keys is None or keys.device.type != "cpu":
            return
        stay = windows.kept(self._window, self._length, self._prompt_end, self._tail.points)
        for first, last in windows.without((begin, end), stay):
            self._tail.free((first - self._begin, last - self._begin))
        self._freed_to = end

    @property
    def freed(self) -> list[Range]:
        """The ranges of positions whose rows the layers with a sliding window have freed, ascending."""
        return [
            (begin + segment.begin, min(end + segment.begin, segment.end))
            for segment in self.segments
            for begin, end in segment.buffers.freed
            if begin + segment.begin < segment.end
        ]

    def _stays(self, length: int) -> None:
        """Keep the rows that a text needs which goes on behind the first `length` tokens, whoever writes them."""
        for each in self.segments if self._window else ():
            each.buffers.owner.points.add(length)

    def rollback(self, to_length: int) -> None:
        """Forget every token after the first `to_length`, in O(1).

        Raises:
            CacheError: there are fewer tokens, other caches have some of the rows, too, rows before them were freed, or
                the cache is frozen.
        """
        if not 0 <= to_length <= self._length:
            raise CacheError(
                f"cannot roll back to {to_length:,} tokens: the cache holds {self._length:,}", code="rollback"
            )
        if to_length < self._length and (self._frozen or to_length < self._lent):
            raise CacheError(
                f"cannot roll back to {to_length:,} tokens: other caches may have the first "
                f"{self._length if self._frozen else self._lent:,} rows, too; take a fork of so many tokens",
                code="shared",
            )
        if not self.branches(to_length):
            raise CacheError(
                f"cannot roll back to {to_length:,} tokens: rows before them were freed, which layers with a sliding "
                f"window need there; {windows.reusable(to_length, self._window, self.freed):,} would do",
                code="window",
            )
        self._length = to_length
        if self._window:
            self._tail.write_again(max(0, to_length - self._begin))
            self._freed_to = min(self._freed_to, to_length)
        if self.state is not None:
            self.state.rollback(to_length)

    @torch.inference_mode()
    def keep(self, length: int, rows: Sequence[int]) -> None:
        """Keep the first `length` tokens and some of the rows behind them, which are moved together.

        What is left is part of the text for good.

        Args:
            length: tokens that stay where they are.
            rows: numbers of the rows behind them that are kept, ascending; 0 is the first one.

        Raises:
            CacheError: as `rollback` to `length` would, or rows would have to be moved that a recurrent state has read.
        """
        whole = self._length
        stay = next((at for at, row in enumerate(rows) if row != at), len(rows))
        self.rollback(length + stay)
        if self.state is not None:
            self.state.settle()
        if moved := rows[stay:]:
            if self.state is not None:
                raise CacheError("a recurrent state has read all rows in their order: they cannot be moved")
            if moved[-1] >= whole - length:
                raise CacheError(f"row {moved[-1]} of {whole - length} cannot be kept", code="rollback")
            begin = length - self._begin
            first, last = begin + stay, begin + len(rows)
            places = torch.tensor([begin + row for row in moved], dtype=torch.int64, device="cpu")
            there: dict[torch.device, Tensor] = {}
            for buffer in (each for layer in range(self.layers) for each in self._tail.layer(layer)):
                if buffer.device not in there:
                    there[buffer.device] = sent(places, buffer.device)
                buffer[:, :, first:last] = buffer.index_select(2, there[buffer.device])
            self._length = length + len(rows)

    def fork(self, length: int, capacity: int, *, tile: int = TILE) -> KVCache:
        """Return a cache of the first `length` tokens, with room for `capacity`, that refers to the rows of this one.

        Only the rows behind the last tile, and those of short segments, are copied. This cache may go on writing, but
        it cannot be rolled back to fewer tokens than are shared any more.

        Args:
            length: tokens to share.
            capacity: tokens that must fit into the new cache.
            tile: segments end at its multiples. Caches that the kernels read need the default.

        Raises:
            CacheError: the cache holds fewer tokens, rows before them were freed or a state was not kept (see
                `reusable`), or `capacity` is smaller than `length`.
        """
        if not 0 <= length <= self._length:
            raise CacheError(f"cannot fork {length:,} tokens: the cache holds {self._length:,}", code="fork")
        if capacity < length:
            raise CacheError(f"a KV cache of {capacity:,} tokens cannot take {length:,}: ask for more", code="full")
        freed = self.freed if self._window else []
        if not self.branches(length):
            raise CacheError(f"cannot fork {length:,} tokens: rows before them were freed", code="window")
        state = None if self.state is None else self.state.fork(length)
        other = KVCache(self.layers, capacity, self.variant, state, kv_dtype=self.kv_dtype, windows=self.windows)
        other.shared = shared_part(self.segments, length, tile)
        begin = other.shared[-1].end if other.shared else 0
        if begin:
            other._begin = other._lent = begin
            other.capacity = begin + _in_buckets(capacity - begin, tile)
        for layer in range(self.layers if self._tail.complete else 0):
            other._tail.put(layer, *(other._allocate(each, layer) for each in self._tail.layer(layer)))
            for segment in self.segments:
                whole = max(begin, segment.begin), min(length, segment.end)
                for first, last in windows.without(whole, freed if layer in other._tail.windowed else ()):
                    for held, copied in zip(segment.rows(layer), other._tail.layer(layer), strict=True):
                        rows = held[:, :, first - segment.begin : last - segment.begin]
                        copied[:, :, first - begin : last - begin] = rows
        other._length, other._tail.written = length, length - begin
        if self._window:
            self._stays(length)
            other._stays(length)
            inside = [(max(first, begin), min(last, length)) for first, last in freed]
            other._tail.freed = tuple((first - begin, last - begin) for first, last in inside if first < last)
            other._freed_to, other._prompt_end = min(self._freed_to, length), length
        other.sparse_rows = None if self.sparse_rows is None else self.reusable(length)
        self._lent = max(self._lent, begin)
        return other

    def reusable(self, length: int) -> int:
        """Return how many of the first `length` tokens a fork need not read again.

        These are all, if no layer is recurrent or has freed rows, and prompts are read densely.
        """
        if self._window:
            length = windows.reusable(length, self._window, self.freed)
        if self.sparse_rows is not None:
            return min(length, self.sparse_rows) // TILE * TILE
        return length if self.state is None else self.state.reusable(length)

    def branches(self, length: int) -> bool:
        """Whether layers with a sliding window hold what a text needs that goes on behind the first `length` tokens."""
        return not self._window or windows.reusable(length, self._window, self.freed) == length

    def mark(self, position: int) -> None:
        """Keep what a text needs that goes on behind the first `position` tokens, because another one has done so."""
        self._stays(position)
        if self.state is not None:
            self.state.mark(position)

    def freeze(self) -> None:
        """Refuse further writes and rollbacks. Another thread may read the rows from now on; safe to call again."""
        if self._frozen:
            return
        self._frozen = True
        for device in {keys.device for keys in self._tail.keys if keys is not None and keys.device.type == "cuda"}:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            self._written[device] = event

    def layer(self, index: int) -> LayerRows:
        """Return one layer's keys and values, each (1, H_kv, length, head_dim).

        They are views if all rows are the cache's own, and copies otherwise.
        """
        if not self.shared:
            return self.segments[0].rows(index)
        keys, values = zip(*(segment.rows(index) for segment in self.segments), strict=True)
        return torch.cat(keys, dim=2), torch.cat(values, dim=2)

    def rows(self, layer: int, begin: int, end: int) -> LayerRows:
        """Return the keys and values of the positions `begin` to `end`, each (1, H_kv, end - begin, head_dim).

        They are views if they lie in one segment, and copies otherwise.
        """
        parts = [
            tuple(held[:, :, max(begin - each.begin, 0) : end - each.begin] for held in each.rows(layer))
            for each in self.segments
            if each.begin < end and each.end > begin
        ]
        keys, values = zip(*parts, strict=True)
        return (keys[0], values[0]) if len(parts) == 1 else (torch.cat(keys, dim=2), torch.cat(values, dim=2))

    def fetched(self, rows: Tensor) -> Tensor:
        """Return rows of a frozen cache on the processor, without waiting for the passes of other texts."""
        if rows.device.type == "cpu":
            return rows
        if rows.device not in self._written:
            return rows.cpu()
        # A stream of its own: the copy must not queue up with the next answer's passes.
        stream = torch.cuda.Stream(rows.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            stream.wait_event(self._written[rows.device])
            return rows.cpu()


def distinct_bytes(caches: Iterable[KVCache]) -> int:
    """Return the bytes of all buffers that these caches refer to. A shared one counts once."""
    caches = list(caches)
    held: dict[int, Buffers | Tensor] = {}
    held |= {id(each.buffers.owner): each.buffers.owner for cache in caches for each in cache.segments}
    held |= {id(each): each for cache in caches if cache.state is not None for each in cache.state.tensors}
    return sum(each.nbytes for each in held.values())


def allocated_tokens(capacity: int) -> int:
    """Return for how many tokens a cache without a shared prefix allocates memory if `capacity` tokens must fit."""
    return _in_buckets(capacity, CAPACITY_BUCKET)


def _in_buckets(tokens: int, bucket: int) -> int:
    return -(-tokens // bucket) * bucket
