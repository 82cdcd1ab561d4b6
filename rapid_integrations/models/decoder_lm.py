"""A Llama-family model behind the `CausalLM` protocol, computed by `FusedDecoder` without transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.cache.recurrent_state import spacing
from rapid_integrations.config import KVDtype, Quantization
from rapid_integrations.errors import SharedResource
from rapid_integrations.kernels.cpu import MAX_ROWS
from rapid_integrations.models.causal_lm import PartOfLM, cache_variant
from rapid_integrations.models.fingerprint import fingerprint
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.kept_model import KeptModel
from rapid_integrations.models.not_a_number import nan_taught
from rapid_integrations.models.part_of_model import Parts
from rapid_integrations.models.skeleton import Skeleton
from rapid_integrations.models.sparse_attention import sparse_prefill_taught


class DecoderLM(SharedResource):
    """Runs a `Skeleton` or `KeptModel`, whose matrices it takes over. `quick_start` says when that is allowed.

    Args:
        skeleton: the weights and numbers.
        name: for messages.
        folder: the model's files, which `transformers_copy` loads.
        longest: context window in tokens.
        quantization: of the weights.

    Attributes:
        model: the skeleton, with its weights under transformers' names, but for those that were packed.
    """

    def __init__(
        self, skeleton: Skeleton | KeptModel, name: str, folder: Path, longest: int, quantization: Quantization | None
    ) -> None:
        self.name = name
        self.context_window = longest
        self.vocab_size: int = skeleton.lm_head.out_features
        self.num_parameters = skeleton.num_parameters
        self.device = skeleton.device
        self.dtype = skeleton.dtype
        self._folder = folder
        self.num_layers: int = skeleton.config.num_hidden_layers
        self.hidden_size: int = skeleton.config.hidden_size
        self.model = skeleton
        self._fused = FusedDecoder(skeleton, quantization)
        self._parts = Parts(self, self._fused)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decode step reads."""
        return self._fused.weight_bytes

    @property
    def kernels(self) -> str:
        """Which kernels compute the decode steps, "none (reason)" if PyTorch's operators do."""
        return self._fused.kernels

    @property
    def rows_together(self) -> int:
        """Rows that a pass of several readers may have; more rows of one reader take a pass of their own."""
        return MAX_ROWS

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token takes in all layers: its keys and values, and its share of the states that are kept."""
        rows = self._fused.kv_bytes_per_token
        return rows + -(-self.state_bytes // spacing(self.state_bytes, rows))

    @property
    def state_bytes(self) -> int:
        """Bytes of the recurrent states of all layers behind one position."""
        return self._fused.state_bytes

    @property
    def windowed(self) -> tuple[int, int]:
        """The window of the layers that free rows, and their part of `kv_bytes_per_token`; zeros: none."""
        return self._fused.windowed

    @property
    def passes_together(self) -> bool:
        """Whether several texts share a pass: they always do."""
        return True

    @property
    def prompts_together(self) -> bool:
        """Whether pieces of several prompts share a pass: if the kernels compute what lies between its products."""
        return self._fused.prompts_together

    @property
    def reads_trees(self) -> bool:
        """Whether several continuations may be read at once: a recurrent state follows one."""
        return not self.state_bytes

    @property
    def has_parts(self) -> bool:
        """Whether layers may be left out."""
        return self._fused.has_parts

    def part(self, skipped: frozenset[int] = frozenset()) -> PartOfLM:
        """Return the model without some layers; see `HasParts`."""
        return self._parts.part(skipped)

    def fingerprint(self) -> str:
        """Return a digest that identifies this model with its present weights. This reads all weights."""
        return fingerprint(self.model, self._fused)

    def new_cache(self, capacity: int) -> KVCache:
        """Return an empty cache with room for `capacity` tokens."""
        return self._fused.new_cache(capacity, cache_variant(self, capacity))

    @property
    def switch(self) -> int | None:
        """Capacity in tokens above which a text has other rotations; None: all have the same."""
        return self._fused.switch

    @property
    def kv_dtype(self) -> KVDtype | None:
        """How keys and values are stored, None in the model's dtype."""
        return self._fused.kv_dtype

    def store_in_eight_bits(self) -> None:
        """Store the keys and values of new caches in eight bits."""
        self._fused.store_in_eight_bits()

    @property
    def sparse_prefill(self) -> float | None:
        """The threshold of the attention with which prompts are read, None if it is dense."""
        return self._fused.sparse_prefill

    def read_prompts_sparsely(self, threshold: float) -> None:
        """Read prompts with sparse attention from now on; see `loader.load`.

        Raises:
            UnsupportedModelError: the model cannot do that.
        """
        with sparse_prefill_taught(self.name):
            self._fused.read_prompts_sparsely(threshold)

    @property
    def moves_keys(self) -> bool:
        """Whether cached keys can be moved to other positions."""
        return self._fused.moves_keys

    def shifted(self, layer: int, keys: Tensor, by: int) -> Tensor:
        """Return keys as they are at other positions; see `MovesKeys`."""
        return self._fused.shifted(layer, keys, by)

    def forward(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Read further tokens of one or several texts; see `CausalLM.forward`."""
        with nan_taught(self.name):
            logits = self._fused.forward(rows)
        for each in rows:
            each.cache.advance(each.count, of_prompt=each.of_prompt)
        return [own if each.keep else own.new_empty(0, self.vocab_size) for each, own in zip(rows, logits, strict=True)]

    def embedded(self, token_ids: Tensor) -> Tensor:
        """Return tokens' rows of the embedding table; see `GivesStates`."""
        return self._fused.embedded(token_ids)

    def logits_of(self, states: Tensor) -> Tensor:
        """Return what the head makes of states; see `GivesStates`."""
        return self._fused.logits_of(states.to(self.dtype)).float()

    def transformers_copy(self, dtype: torch.dtype) -> Any:
        """Return the model as transformers runs it, with the weights that are used here, quantised ones dequantised."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            self._folder, dtype=self.dtype, use_safetensors=True, local_files_only=True
        )
        self._fused.give_back(model)
        return model.eval().to(dtype)

    def close(self) -> None:
        """Do nothing: no object of the caller was changed."""
