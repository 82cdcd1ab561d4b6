"""A model without some of its layers, on the weights of the whole one and over views of its caches.

What it computes is a guess at what the whole model would: it only ever proposes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.cache.cache_view import CacheView
from rapid_integrations.errors import CacheError, SharedResource
from rapid_integrations.kernels.cpu import MAX_ROWS
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.not_a_number import nan_taught

_MOST_KEPT = 64  # parts of one model; each takes a few kilobytes


class PartOfModel(SharedResource):
    """Reads with some layers of a model.

    Args:
        whole: the model.
        fused: its decoder, with only the layers that are kept.
        kept: their numbers.
    """

    passes_together = True
    prompts_together = False
    reads_trees = False
    rows_together = MAX_ROWS

    def __init__(self, whole: CausalLM, fused: FusedDecoder, kept: Sequence[int]) -> None:
        self.name = f"{whole.name} with {len(kept)} layers"
        self.context_window, self.vocab_size = whole.context_window, whole.vocab_size
        self.device, self.dtype, self.num_parameters = whole.device, whole.dtype, whole.num_parameters
        self._fused, self._kept = fused, tuple(kept)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decode step reads."""
        return self._fused.weight_bytes

    @property
    def kernels(self) -> str:
        """Which kernels compute the decode steps; "none (reason)" if PyTorch's operators do."""
        return self._fused.kernels

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of one token's keys and values in the layers that are kept."""
        return self._fused.kv_bytes_per_token

    @property
    def sees_all_rows(self) -> bool:
        """Whether every layer attends to all rows: none has a sliding window or chunks."""
        return not any(self._fused.windows)

    def fingerprint(self) -> str:
        """Raise an error: nothing that a part has read is kept."""
        raise CacheError(f"{self.name} reads views alone, which are not kept", code="view")

    def close(self) -> None:
        """Do nothing: the weights are those of the whole model."""

    def new_cache(self, capacity: int) -> KVCache:
        """Return an empty cache with room for `capacity` tokens."""
        return KVCache(len(self._kept), capacity)

    def new_view(self, cache: KVCache, runs: Sequence[tuple[int, int]] | None = None) -> CacheView:
        """Return a view of the whole model's cache; see `PartOfLM`."""
        return CacheView(cache, runs, self._kept)

    def forward(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Read further tokens of one or several texts; see `CausalLM.forward`."""
        with nan_taught(self.name):
            logits = self._fused.forward(rows)
        for each in rows:
            each.cache.advance(each.count)
        return [own if each.keep else own.new_empty(0, self.vocab_size) for each, own in zip(rows, logits, strict=True)]


class Parts(SharedResource):
    """The parts of one model, each made on first use.

    Args:
        whole: the model. It is not held.
        fused: its decoder.
    """

    def __init__(self, whole: CausalLM, fused: FusedDecoder) -> None:
        self._whole = PartOfModel(whole, fused, range(fused.layers))
        self._whole.name = whole.name
        self._fused = fused
        self._made: dict[frozenset[int], PartOfModel] = {}

    def part(self, skipped: frozenset[int]) -> PartOfModel:
        """Return the model without some layers. At least one is left."""
        if (known := self._made.pop(skipped, None)) is None:
            kept = [each for each in range(self._fused.layers) if each not in skipped]
            known = PartOfModel(self._whole, self._fused.part(kept), kept)
        self._made[skipped] = known  # the most recently used one is the last
        if len(self._made) > _MOST_KEPT:
            del self._made[next(iter(self._made))]
        return known
