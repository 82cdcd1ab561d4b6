"""A transformers model behind the `CausalLM` protocol."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rapid_integrations.cache import KVCache, RecurrentState, Rows, freed_pages
from rapid_integrations.cache.recurrent_state import spacing
from rapid_integrations.config import KVDtype, Quantization
from rapid_integrations.errors import (
    CacheError,
    SharedResource,
    UnsupportedModelError,
)
from rapid_integrations.kernels.cpu import MAX_ROWS, native_library
from rapid_integrations.models import attention
from rapid_integrations.models.advice import without_advice
from rapid_integrations.models.causal_lm import PartOfLM, cache_variant
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.eager_check import EagerCheck, refused_with_the_reason
from rapid_integrations.models.fingerprint import fingerprint
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.host_cache import (
    chooses_keys,
    held_layers,
    looks_back_without_end,
)
from rapid_integrations.models.host_forward import HostForward
from rapid_integrations.models.not_a_number import nan_taught
from rapid_integrations.models.part_of_model import Parts
from rapid_integrations.models.positions import UNBOUNDED, positions_of
from rapid_integrations.models.sparse_attention import sparse_prefill_taught
from rapid_integrations.models.unsupported import device_of_inputs, refuse_unsupported
from rapid_integrations.progress import OnProgress, ignore_progress


class HuggingFaceLM(SharedResource):
    """Runs a transformers causal LM on this package's KV cache and attention.

    The model's attention setting is switched to `ATTENTION_NAME`, and `close()` restores it. One short forward pass is
    compared with the model's own eager attention first. An architecture that computes something else is refused then,
    and does not give wrong answers.

    Args:
        model: a `...ForCausalLM` in evaluation mode.
        name: for messages; by default the config's name.
        take_over: nobody else uses the model, so its weights may be fused, packed and quantised (see `FusedDecoder`).
            If this is False, or the decoder does not know the architecture, the model's own forward pass runs.
        quantization: of the weights; needs `take_over`.
        longest: context window in tokens, if the configuration does not state it.
        on_progress: is told of the compilation of kernels.

    Raises:
        UnsupportedModelError: this engine cannot run a layer exactly; the message has the reason.
        ModelLoadError: the model computes NaN with these weights.
    """

    def __init__(
        self,
        model: Any,
        name: str | None = None,
        *,
        take_over: bool = False,
        quantization: Quantization | None = None,
        longest: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        # A model that is offloaded whole has one device, too, but no numbers that could be taken over.
        take_over = take_over and not any(parameter.is_meta for parameter in model.parameters())
        described = take_over and FusedDecoder.serves(model)
        refuse_unsupported(model, longest, described=described)
        if model.dtype == torch.bfloat16 and model.device.type == "cpu":
            native_library(on_progress or ignore_progress)  # loads the library now; attention only uses a loaded one
        attention.register()
        self.model = model
        shared = _SHARED.get(model)
        if shared is None or not shared.users:  # no other wrapper has changed it
            shared = _SHARED[model] = _Shared(model.config._attn_implementation)
        self._shared = shared
        config = model.config.get_text_config(decoder=True)
        self.name = name or config._name_or_path or type(model).__name__
        self._held = held_layers(config)
        self._with_keys = sum(each.slot is not None for each in self._held)
        window = positions_of(model) or longest or (None if looks_back_without_end(self._held) else UNBOUNDED)
        assert window is not None  # a model without a window was refused above
        self.context_window: int = window
        self.vocab_size: int = model.get_output_embeddings().weight.shape[0]
        self.num_parameters: int = model.num_parameters()
        self.device: torch.device = device_of_inputs(model)
        self.hidden_size: int = model.get_input_embeddings().weight.shape[1]
        self.num_layers: int = config.num_hidden_layers
        self.dtype: torch.dtype = model.dtype
        self._host = HostForward(model, self._held, self.name, self.device)
        self._fused: FusedDecoder | None = None
        self._parts: Parts | None = None
        self._kv_bytes_per_token = self._state_bytes = 0  # measured by the check
        self._windows: tuple[int | None, ...] = ()  # likewise
        self._windowed = 0, 0
        at_rest = attention.ATTENTION_NAME if self._shared.users else self.own_attention
        check = EagerCheck(self, model, self._host, at_rest)
        with refused_with_the_reason(self.name, model), without_advice() if described else nullcontext():
            if chooses_keys(config) or (described and not check.runs_host()):
                check.of_model()
            else:
                check.of_host()
            self._take_over(check, take_over, quantization)
        self._kv_bytes_per_token, self._state_bytes = check.kv_bytes_per_token, check.state_bytes
        self._reads_trees = check.reads_trees
        if self._fused is None and self.device.type == "cpu" and freed_pages.serves() and not self._host.with_state:
            self._windows, self._windowed = check.windows_of(self._held)
        self._shared.users += 1
        self._closed = False
        model.set_attn_implementation(attention.ATTENTION_NAME)

    @property
    def own_attention(self) -> str:
        """The attention setting that the model came with."""
        return self._shared.own_attention

    @property
    def has_parts(self) -> bool:
        """Whether layers may be left out: transformers' own forward does not allow it."""
        return self._parts is not None

    def part(self, skipped: frozenset[int] = frozenset()) -> PartOfLM:
        """Return the model without some layers; see `HasParts`."""
        assert self._parts is not None, "whoever asks has looked at `has_parts`"
        return self._parts.part(skipped)

    def fingerprint(self) -> str:
        """Return a digest that identifies this model with its present weights. This reads all weights.

        Raises:
            CacheError: transformers' own forward computes recurrent states, which files of caches do not hold.
        """
        if self._host.with_state and self._fused is None:
            raise CacheError("its layers have recurrent states, which the files of the prefix cache do not hold yet")
        return fingerprint(self.model, self._fused)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one decode step reads."""
        if self._fused is not None:
            return self._fused.weight_bytes
        return self.num_parameters * self.dtype.itemsize

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token takes in all layers: its keys and values, and its share of the states that are kept."""
        return self._kv_bytes_per_token + -(-self.state_bytes // spacing(self.state_bytes, self._kv_bytes_per_token))

    @property
    def windowed(self) -> tuple[int, int]:
        """The window of the layers that free rows, and their part of `kv_bytes_per_token`; zeros: none."""
        return self._windowed if self._fused is None else self._fused.windowed

    @property
    def state_bytes(self) -> int:
        """Bytes of the recurrent states of all layers behind one position."""
        return self._state_bytes if self._fused is None else self._fused.state_bytes

    @property
    def kernels(self) -> str:
        """Which kernels compute the decode steps, "none (reason)" if PyTorch's operators do."""
        if self._fused is not None:
            return self._fused.kernels
        return "none (the model runs transformers' own forward pass)"

    def transformers_copy(self, dtype: torch.dtype) -> Any:
        """Return a copy of the model that runs in transformers alone, with its own attention setting.

        The copy has the weights that are used here. Quantised weights are dequantised.
        """
        model = copy.deepcopy(self.model)
        if self._fused is not None:
            self._fused.give_back(model)
        model.set_attn_implementation(self.own_attention)
        return model.to(dtype)

    def new_cache(self, capacity: int) -> KVCache:
        """Return an empty cache with room for `capacity` tokens."""
        if self._fused is not None:
            return self._fused.new_cache(capacity, cache_variant(self, capacity))
        with_state = self._host.with_state
        state = RecurrentState(spacing(self._state_bytes, self._kv_bytes_per_token)) if with_state else None
        return KVCache(self._with_keys, capacity, cache_variant(self, capacity), state, windows=self._windows)

    @property
    def kv_dtype(self) -> KVDtype | None:
        """How keys and values are stored, None in the model's dtype."""
        return None if self._fused is None else self._fused.kv_dtype

    def store_in_eight_bits(self) -> None:
        """Store the keys and values of new caches in eight bits.

        Raises:
            UnsupportedModelError: transformers' own forward pass runs the model, or it does not run on a processor.
        """
        if self._fused is None or self.device.type != "cpu":
            reason = f"runs on {self.device}" if self._fused is not None else "runs transformers' own forward pass"
            raise UnsupportedModelError(
                f"{self.name}: kv_dtype='int8' serves described families (docs/models.md) that are loaded by name, on "
                f"the processor; this model {reason}. Leave it out"
            )
        self._fused.store_in_eight_bits()
        self._kv_bytes_per_token = self._fused.kv_bytes_per_token

    @property
    def sparse_prefill(self) -> float | None:
        """The threshold of the attention with which prompts are read, None if it is dense."""
        return None if self._fused is None else self._fused.sparse_prefill

    def read_prompts_sparsely(self, threshold: float) -> None:
        """Read prompts with sparse attention from now on; see `loader.load`.

        Raises:
            UnsupportedModelError: the model cannot do that.
        """
        with sparse_prefill_taught(self.name):
            if self._fused is None:
                raise NotDescribedError("it runs transformers' own forward pass")
            self._fused.read_prompts_sparsely(threshold)

    @property
    def switch(self) -> int | None:
        """Capacity in tokens above which a text has other rotations; None: all have the same."""
        return None if self._fused is None else self._fused.switch

    @property
    def rows_together(self) -> int:
        """Rows that a pass of several readers may have; more rows of one reader take a pass of their own."""
        return MAX_ROWS

    @property
    def passes_together(self) -> bool:
        """Whether several texts share a pass; transformers' own forward reads one after another."""
        return self._fused is not None

    @property
    def prompts_together(self) -> bool:
        """Whether pieces of several prompts share a pass: if the kernels compute what lies between its products."""
        return self._fused is not None and self._fused.prompts_together

    @property
    def reads_trees(self) -> bool:
        """Whether several continuations may be read at once, which the check has found out."""
        return self._reads_trees

    def forward(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Read further tokens of one or several texts; see `CausalLM.forward`."""
        with nan_taught(self.name):
            if self._fused is None:
                return self._host.read_all(rows)
            logits = self._fused.forward(rows)
        for each in rows:
            each.cache.advance(each.count, of_prompt=each.of_prompt)
        return [own if each.keep else own.new_empty(0, self.vocab_size) for each, own in zip(rows, logits, strict=True)]

    def embedded(self, token_ids: Tensor) -> Tensor:
        """Return tokens' rows of the embedding table; see `GivesStates`."""
        if self._fused is not None:
            return self._fused.embedded(token_ids)
        return torch.nn.functional.embedding(token_ids, self.model.get_input_embeddings().weight)

    @torch.inference_mode()
    def logits_of(self, states: Tensor) -> Tensor:
        """Return what the head makes of states; see `GivesStates`."""
        if self._fused is not None:
            return self._fused.logits_of(states.to(self.dtype)).float()
        logits: Tensor = self.model.get_output_embeddings()(states.to(self.dtype))
        return logits.float()

    def close(self) -> None:
        """Restore the model's own attention setting, unless another wrapper still uses it; safe to call again."""
        if not self._closed:
            self._closed = True
            self._shared.users -= 1
        if not self._shared.users:
            self.model.set_attn_implementation(self.own_attention)

    def _take_over(self, check: EagerCheck, take_over: bool, quantization: Quantization | None) -> None:
        if take_over and FusedDecoder.serves(self.model):
            fused = FusedDecoder(self.model, quantization)
            if [check.windows.get(layer) for layer in range(len(fused.windows))] != fused.windows:
                raise UnsupportedModelError(f"{self.name}: its layers' windows are not those that its masks have")
            self._fused = fused
            self._parts = Parts(self, fused) if fused.has_parts else None
            # `MovesKeys`: only what is known about a model can do it
            self.moves_keys, self.shifted = fused.moves_keys, fused.shifted
            check.of_decoder(fused, quantised=quantization is not None)
        elif quantization is not None:
            raise UnsupportedModelError(
                f"{self.name}: quantization={quantization!r} needs a family that is described (docs/models.md has "
                f"them), on one device, with weights that are not quantised yet; {type(self.model).__name__} is not "
                "such a model; leave it out"
            )


@dataclass
class _Shared:
    """State that all wrappers of one model share: the setting to restore, and the number of wrappers that need ours."""

    own_attention: str
    users: int = 0


_SHARED: WeakKeyDictionary[Any, _Shared] = WeakKeyDictionary()
