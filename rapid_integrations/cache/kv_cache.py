"""One model's keys and values for one text: preallocated, written in place, rolled back by setting a length.

A decode step must not copy the cache. So the whole capacity (prompt + output + draft) is allocated once, a forward pass
writes its T new rows after `length`, and attention reads views. Lowering `length` forgets a rejected draft; the rows
after it are dead until they are overwritten. Sliding-window layers keep all rows too, so that a rollback is exact for
them as well.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from rapid_integrations.cache.arena import Arena
from rapid_integrations.cache.snapshot import Snapshot
from rapid_integrations.errors import CacheError, OneOwner

CAPACITY_BUCKET = 512  # tokens; capacities are rounded up to it, so that requests of similar length use the same shapes


@dataclass(frozen=True, eq=False)
class Buffers:
    """Every layer's keys and values, each (1, H_kv, capacity, head_dim). Buffers that move get a new object."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class KVCache(OneOwner):
    """Keys and values of every layer for the first `length` tokens of one text.

    Buffers are allocated by the first forward pass, in the shape, dtype and device that each layer really produces:
    (1, H_kv, capacity, head_dim). A `device_map` over several devices thus needs no special case.

    Args:
        layers: number of attention layers.
        capacity: tokens that must fit. It is rounded up to a multiple of `CAPACITY_BUCKET`.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self.capacity = _in_buckets(capacity)
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers
        self._length = 0
        self._all: Buffers | None = None
        self._arena = Arena()
        self._snapshots: list[weakref.ref[Snapshot]] = []

    @property
    def length(self) -> int:
        """Number of tokens in the cache."""
        return self._length

    @property
    def layers(self) -> int:
        """Number of attention layers."""
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Number of allocated bytes, which does not depend on the length."""
        return sum(buffer.nbytes for buffer in (*self._keys, *self._values) if buffer is not None)

    @property
    def filled_layers(self) -> int:
        """Number of layers that have been written at least once."""
        # Every step of a model asks.
        return self.layers if self._all is not None else sum(keys is not None for keys in self._keys)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store T new rows after `length` and return views over all rows, including the new ones.

        `length` itself moves only in `advance`, after every layer has been written. So a forward pass that fails
        half-way leaves the cache unchanged.

        Args:
            layer: index of the layer.
            keys, values: (1, H_kv, T, head_dim).

        Returns:
            keys and values, (1, H_kv, length + T, head_dim), views into the buffers.

        Raises:
            CacheError: the rows do not fit.
        """
        self._check_room(keys.shape[2])
        end = self._length + keys.shape[2]
        key_buffer, value_buffer = self._keys[layer], self._values[layer]
        if key_buffer is None or value_buffer is None:
            key_buffer = self._keys[layer] = self._allocate(keys)
            value_buffer = self._values[layer] = self._allocate(values)
        key_buffer[:, :, self._length : end] = keys
        value_buffer[:, :, self._length : end] = values
        return key_buffer[:, :, :end], value_buffer[:, :, :end]

    def buffers(self, new: int) -> Buffers:
        """Return every layer's buffers, for a kernel that writes `new` rows itself.

        The rows go after `length`, which `advance` then moves.

        Raises:
            CacheError: the rows do not fit, or a layer has not been written yet.
        """
        self._check_room(new)
        if self._all is None:
            self._all = Buffers(*zip(*(self._buffers(index) for index in range(self.layers)), strict=True))
        return self._all

    def _check_room(self, new: int) -> None:
        if self._length + new > self.capacity:
            raise CacheError(
                f"a KV cache of {self.capacity:,} tokens cannot take {self._length + new:,}: allocate it larger",
                code="full",
            )

    def _allocate(self, rows: Tensor) -> Tensor:
        return _empty(rows, self.capacity, self._arena)

    def advance(self, tokens: int) -> None:
        """Count the `tokens` rows that every layer has just written."""
        self._length += tokens

    def rollback(self, to_length: int) -> None:
        """Forget every token after the first `to_length`, in O(1)."""
        if not 0 <= to_length <= self._length:
            raise CacheError(
                f"cannot roll back to {to_length:,} tokens: the cache holds {self._length:,}", code="rollback"
            )
        self._length = to_length
        for reference in self._snapshots:  # before anything can be written over the rows
            if (snapshot := reference()) is not None:
                snapshot.intact = min(snapshot.intact, to_length)

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` tokens, keeping those that are held.

        It copies once, layer by layer, so that little is held twice. Call it at the start of a request.
        """
        capacity = _in_buckets(capacity)
        if capacity <= self.capacity:
            return
        # A block is freed with its last tensor, so buffers move layer by layer, and larger ones get their own blocks.
        self._arena, self._all = Arena(), None
        for index in range(self.layers):
            for buffers in (self._keys, self._values):
                if (buffer := buffers[index]) is not None:
                    buffers[index] = _first_rows(buffer, self._length, capacity, self._arena)
        self.capacity = capacity

    def copy(self, length: int, capacity: int) -> KVCache:
        """Return a cache of its own with the first `length` tokens and room for `capacity`."""
        if not 0 <= length <= self._length:
            raise CacheError(f"cannot copy {length:,} tokens: the cache holds {self._length:,}", code="copy")
        other = KVCache(self.layers, capacity)
        for mine, theirs in ((self._keys, other._keys), (self._values, other._values)):
            theirs[:] = [
                None if rows is None else _first_rows(rows, length, other.capacity, other._arena) for rows in mine
            ]
        other._length = length
        return other

    @torch.inference_mode()  # like the forward passes, whose buffers refuse other writes
    def adopt(self, other: KVCache, length: int) -> bool:
        """Copy the rows that another cache of the same text has beyond those of this one, up to `length` tokens.

        Nobody may write to the other cache meanwhile. It may be rolled back, though. If it no longer holds that many
        tokens, nothing is copied, and the result is False.
        """
        rows = [
            other.layer(index) for index in range(other.layers)
        ]  # these views stay valid, whatever happens to the cache
        if any(keys.shape[2] < length for keys, _ in rows):
            return False
        for index, (keys, values) in enumerate(rows):
            self.write(index, keys[:, :, self._length : length], values[:, :, self._length : length])
        self.advance(length - self._length)
        return True

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return views of one layer's keys and values, each (1, H_kv, length, head_dim)."""
        keys, values = self._buffers(index)
        return keys[:, :, : self._length], values[:, :, : self._length]

    def _buffers(self, index: int) -> tuple[Tensor, Tensor]:
        keys, values = self._keys[index], self._values[index]
        if keys is None or values is None:
            raise CacheError(f"layer {index} has not been written yet", code="unwritten")
        return keys, values

    def snapshot(self) -> Snapshot:
        """Return the present rows, for another thread to read while this cache is used. Nothing is copied."""
        snapshot = Snapshot([self._buffers(index) for index in range(self.layers)], self._length)
        self._snapshots = [*(known for known in self._snapshots if known() is not None), weakref.ref(snapshot)]
        return snapshot


def _in_buckets(tokens: int) -> int:
    return -(-tokens // CAPACITY_BUCKET) * CAPACITY_BUCKET


def _first_rows(buffer: Tensor, length: int, capacity: int, arena: Arena) -> Tensor:
    """Return a new buffer (1, H_kv, capacity, head_dim) with the first `length` rows of another."""
    larger = _empty(buffer, capacity, arena)
    larger[:, :, :length] = buffer[:, :, :length]
    return larger


def _empty(like: Tensor, capacity: int, arena: Arena) -> Tensor:
    """Return a buffer (1, H_kv, capacity, head_dim)."""
    batch, heads, _, head_dim = like.shape
    if like.device.type != "cpu":
        return like.new_empty(batch, heads, capacity, head_dim)
    return arena.empty((batch, heads, capacity, head_dim), like.dtype)
