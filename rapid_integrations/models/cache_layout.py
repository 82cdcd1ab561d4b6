"""What a cache holds of a decoder's layers: which of its keys and values each layer reads, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from rapid_integrations.cache import KVCache, RecordedState, StateShape, freed_pages
from rapid_integrations.cache.levels import SCALE_BYTES
from rapid_integrations.cache.recurrent_state import spacing
from rapid_integrations.config import KVDtype
from rapid_integrations.models.decoder_layer import TakenLayer
from rapid_integrations.models.description import Decoder


@dataclass(frozen=True)
class CacheLayout:
    """What a cache holds of a decoder's layers.

    Attributes:
        described: the decoder.
        layers: those of its layers that are computed.
        dtype: of keys and values.
        state: the shape of recurrent states; None: no layer has one.
        kv_dtype: how keys and values are stored; None: in `dtype`.
    """

    described: Decoder
    layers: Sequence[TakenLayer]
    dtype: torch.dtype
    state: StateShape | None
    kv_dtype: KVDtype | None = None

    @cached_property
    def slots(self) -> list[int | None]:
        """Which of a cache's keys and values each layer reads; None: it reads none."""
        slots: list[int | None] = []
        own = 0
        for layer in self.layers:
            if not layer.attends:
                slots.append(None)
            elif layer.attention.keys_of is not None:
                slots.append(slots[layer.attention.keys_of])
            else:
                slots.append(own)
                own += 1
        return slots

    @cached_property
    def index_slots(self) -> list[int | None]:
        """In which of a cache's keys and values the keys of each layer's indexer lie: behind those of all layers."""
        own = sum(layer.slot for layer in self.layers)
        slots: list[int | None] = []
        for layer in self.layers:
            slots.append(None if layer.indexer is None else own)
            own += layer.indexer is not None
        return slots

    def shape(self, layer: TakenLayer) -> tuple[int, int]:
        """Return how many heads of keys a layer has, and how many numbers each has."""
        own = layer.attention
        return own.kv_heads or self.described.kv_heads, own.head_dim or self.described.head_dim

    @property
    def windows(self) -> list[int | None]:
        """The number of keys that a query sees in each layer, or of its chunk; None means all."""
        attentions = [layer.described.attends for layer in self.layers]
        return [None if each is None else each.window or each.kind.chunk for each in attentions]

    @property
    def kept_windows(self) -> tuple[int | None, ...]:
        """Through which windows the keys and values of a cache are seen; see `KVCache`. Empty: every row is kept."""
        if self.described.embedding.weight.device.type != "cpu" or not freed_pages.serves():
            return ()
        kept: list[int | None] = []
        for window, layer, slot in zip(self.windows, self.layers, self.slots, strict=True):
            if layer.slot:
                kept.append(window)
            elif slot is not None and (other := kept[slot]) is not None:  # the widest of those that read the same keys
                kept[slot] = None if window is None else max(window, other)
        return (*kept, *(None for _ in self.described.indexers))

    @property
    def windowed(self) -> tuple[int, int]:
        """The widest window of the layers that free rows, and the bytes of a token's rows in them; zeros: none."""
        windows = self.kept_windows
        own = [layer for layer in self.layers if layer.slot]
        freeing = [index for index, window in enumerate(windows) if window is not None]
        nbytes = sum(self._row_bytes(own[index]) for index in freeing)
        return max((windows[index] or 0 for index in freeing), default=0), nbytes

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one token's keys and values take in all layers, and the keys of indexers."""
        width, more = self._stored
        indexed = sum(each.dim * width + 2 * more for each in self.described.indexers)
        return sum(self._row_bytes(layer) for layer in self.layers if layer.slot) + indexed

    def empty(self, capacity: int, variant: int) -> KVCache:
        """Return an empty cache with room for `capacity` tokens."""
        own = sum(layer.slot for layer in self.layers) + len(self.described.indexers)
        state = None
        if self.state is not None:
            state = RecordedState(self.state, spacing(self.state.nbytes, self.bytes_per_token))
        return KVCache(own, capacity, variant, state, kv_dtype=self.kv_dtype, windows=self.kept_windows)

    @property
    def _stored(self) -> tuple[int, int]:
        """Bytes of a number, and those beside the numbers of a key or value."""
        return (1, SCALE_BYTES) if self.kv_dtype == "int8" else (self.dtype.itemsize, 0)

    def _row_bytes(self, layer: TakenLayer) -> int:
        width, more = self._stored
        kv_heads, head_dim = self.shape(layer)
        of_a_value = head_dim if layer.latent is None else layer.latent.described.rank
        return kv_heads * ((head_dim + of_a_value) * width + 2 * more)
