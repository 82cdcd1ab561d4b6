"""A transformers model behind the `CausalLM` protocol."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rapid_integrations.cache import KVCache, RecurrentState, Rows
from rapid_integrations.cache.out_of_memory import is_out_of_memory
from rapid_integrations.cache.recurrent_state import MOST_REPLAYED, spacing
from rapid_integrations.config import KVDtype, Quantization
from rapid_integrations.errors import (
    CacheError,
    ModelLoadError,
    NotANumberError,
    RapidError,
    SharedResource,
    UnsupportedModelError,
)
from rapid_integrations.kernels.cpu import MAX_ROWS, native_library
from rapid_integrations.models import attention
from rapid_integrations.models.causal_lm import PartOfLM, cache_variant
from rapid_integrations.models.config_bounds import has_experts
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.fingerprint import fingerprint
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.host_cache import (
    KNOWN_LAYERS,
    ModuleStates,
    held_layers,
    host_cache_class,
    looks_back_without_end,
    reads_one_by_one,
)
from rapid_integrations.models.not_a_number import nan_taught, numbers
from rapid_integrations.models.part_of_model import Parts
from rapid_integrations.models.positions import positions_of
from rapid_integrations.models.sparse_attention import sparse_prefill_taught
from rapid_integrations.progress import OnProgress, ignore_progress
from rapid_integrations.sampling.sending import sent

UNBOUNDED = 2**20  # tokens: the window of a model none of whose layers sees the whole text, if nobody says another
CHECK_TOKENS = 24
CHECK_SHARED = 17  # tokens of the check that a second cache takes over from the first: a segment of 16, and one more
_CHECK_PARENTS = (-1, -1, 0, 0, 3, 2)  # a tree; a chain in it is the check's last tokens
_CHECK_CHAIN = (0, 3, 4)
_CHECK_DEPTHS = (0, 2, 0, 1, 2, 1)  # of the tokens that lie there, in the check's last ones; others are out of place
CHECK_WINDOW = 7  # sliding windows are set to this during the comparison, so that CHECK_TOKENS exceed them


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
        refuse_unsupported(model, longest, chosen_once=take_over and FusedDecoder.serves(model))
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
        self._host_cache = host_cache_class(model)
        self._module_states = ModuleStates(model)
        self._with_state = any(each.states for each in self._held)
        # transformers 5.24 renamed this argument; models with their own code may keep the old name.
        self._cache_argument = _cache_argument(model.base_model)
        self._cache_argument_of_head = _cache_argument(model) or self._cache_argument or "cache"
        self._fused: FusedDecoder | None = None
        self._parts: Parts | None = None
        self._kv_bytes_per_token = 0  # measured by the check
        self._state_bytes = 0  # likewise
        self._one_by_one = reads_one_by_one(model)
        self._reads_trees = False
        self._joins_segments = False  # whether the model's attention loses the keys of shared segments
        with self._refused_with_the_reason():
            self._compare()
            self._take_over(take_over, quantization)
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
            CacheError: its layers have recurrent states, which files of caches do not hold.
        """
        if self._with_state:
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
        return self._kv_bytes_per_token + -(-self._state_bytes // spacing(self._state_bytes, self._kv_bytes_per_token))

    @property
    def state_bytes(self) -> int:
        """Bytes of the recurrent states of all layers behind one position."""
        return self._state_bytes

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
        state = RecurrentState(spacing(self._state_bytes, self._kv_bytes_per_token)) if self._with_state else None
        return KVCache(self._with_keys, capacity, cache_variant(self, capacity), state)

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
                return self._one_after_another(rows)
            logits = self._fused.forward(rows)
        for each in rows:
            each.cache.advance(each.count)
        return [own if each.keep else own.new_empty(0, self.vocab_size) for each, own in zip(rows, logits, strict=True)]

    def _one_after_another(self, rows: Sequence[Rows]) -> list[Tensor]:
        lengths = [each.cache.length for each in rows]
        try:
            return [self._read(each) for each in rows]
        except BaseException as error:
            for each, length in zip(rows, lengths, strict=True):
                each.cache.rollback(length)
            if not isinstance(error, attention.PrefixLostError):
                raise
        self._joins_segments = True
        return self._one_after_another(rows)

    def _read(self, rows: Rows) -> Tensor:
        """Do what `FusedDecoder.forward` does for one text, by the model's own forward pass, and advance its cache."""
        if rows.cache.state is not None:
            return self._read_with_state(rows, rows.cache.state)
        if self._with_state:
            raise CacheError(f"{self.name} has recurrent layers, but the cache holds no state: take `new_cache`")
        positions = rows.cache.length + sent(torch.tensor(rows.depths), self.device)
        with attention.tree_read(rows):
            logits = self._pass(rows.token_ids, positions, rows.cache, rows.keep, given=rows)
        rows.cache.advance(rows.count)
        return logits

    def _read_with_state(self, rows: Rows, state: RecurrentState) -> Tensor:
        """Read a chain in pieces that end where a state is kept, behind the tokens that the state has not read."""
        cache, end = rows.cache, rows.cache.length + rows.count
        ids, logits = state.read(cache.length, rows.token_ids), []
        while (begin := state.position) < end:
            stop = self._stop(rows, state, end)
            keep = max(0, stop - max(begin, end - rows.keep))
            positions = torch.arange(begin, stop, device=self.device)
            tensors = state.begin()
            try:
                logits.append(self._pass(ids[: stop - begin], positions, cache, keep, tensors))
            except BaseException:
                state.restore(cache.length)
                raise
            state.end(stop - begin, tensors)
            if stop == cache.length or rows.of_prompt:
                state.settle()
            cache.advance(max(0, stop - cache.length))
            ids = ids[stop - begin :]
        return torch.cat(logits)

    def _stop(self, rows: Rows, state: RecurrentState, end: int) -> int:
        """Return up to which position the next piece goes."""
        behind = rows.cache.length - state.position
        if self._one_by_one:  # to read the first piece of a prompt anew is faster than to go on within it
            return state.position + 1 if state.position else end
        if behind > MOST_REPLAYED:
            return state.stop(rows.cache.length)
        return state.stop(end) if rows.of_prompt and not behind else end

    @torch.inference_mode()
    def _pass(
        self,
        token_ids: Tensor,
        positions: Tensor,
        cache: KVCache,
        keep: int,
        states: dict[str, Tensor] | None = None,
        given: Rows | None = None,
    ) -> Tensor:
        """Let the model read tokens (T,) at positions (T,). Return (keep, V), and change `states` to those behind them.

        Without `states`, the model has none. `given` are the rows that get the hidden states that are wanted of them.
        """
        begin = None if states is None else int(positions[0])
        self._module_states.load(states or {})
        host = self._host_cache(cache, self._held, self._joins_segments, states, begin)
        inputs: dict[str, Any] = {"input_ids": token_ids[None], "position_ids": positions[None], "use_cache": True}
        inputs[(self._cache_argument_of_head if keep else self._cache_argument) or "cache"] = host
        logits = torch.empty(0, self.vocab_size, dtype=torch.float32, device=self.device)
        wanted = None if given is None else given.wanted_states
        if wanted is not None:
            inputs["output_hidden_states"] = True
        with attention.prefix_expected(bool(cache.shared) and not self._joins_segments):
            read = self.model(**inputs, logits_to_keep=keep) if keep else self.model.base_model(**inputs)
            if keep:
                logits = numbers(read.logits[0], check=given is None or given.check)  # (keep, V)
        if given is not None and wanted is not None:
            given.give(torch.cat([read.hidden_states[level][0] for level in wanted.levels], dim=-1))
        if states is not None:
            states.update(host.states() | self._module_states.held())
        return logits

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

    def _compare(self) -> None:
        """Compare passes of this engine with the model's own, once as it is and once with narrow sliding windows.

        The windows are narrowed so that the check's few tokens exceed them.

        Raises:
            UnsupportedModelError: they differ.
        """
        self._expected = self._eager_logits()
        with attention.windows_observed() as windows:
            self._check(self._expected)
        self._windows = windows
        if any(window is not None for window in windows.values()):
            with self._narrow_windows(), attention.windows_observed() as narrow:
                self._check(self._eager_logits())
            wide = {layer for layer, window in narrow.items() if window not in (None, CHECK_WINDOW)}
            if wide:
                raise UnsupportedModelError(
                    f"{self.name}: {len(wide)} of its layers have sliding windows that its configuration does not set, "
                    "so that they cannot be compared with the model's own"
                )

    def _take_over(self, take_over: bool, quantization: Quantization | None) -> None:
        if take_over and FusedDecoder.serves(self.model):
            fused = FusedDecoder(self.model, quantization)
            if [self._windows.get(layer) for layer in range(len(fused.windows))] != fused.windows:
                raise UnsupportedModelError(f"{self.name}: its layers' windows are not those that its masks have")
            self._fused = fused
            self._parts = Parts(self, fused) if fused.has_parts else None
            # `MovesKeys`: only what is known about a model can do it
            self.moves_keys, self.shifted = fused.moves_keys, fused.shifted
            if quantization is not None:  # what is lost by it is no fault of ours
                with fused.lend(self.model):
                    self._expected = self._eager_logits()
            self._check(self._expected)
        elif quantization is not None:
            raise UnsupportedModelError(
                f"{self.name}: quantization={quantization!r} needs a family that is described (docs/models.md has "
                f"them), on one device, with weights that are not quantised yet; {type(self.model).__name__} is not "
                "such a model; leave it out"
            )
        del self._expected

    @contextmanager
    def _refused_with_the_reason(self) -> Iterator[None]:
        """Turn any error of the model's own code on this cache and attention into `UnsupportedModelError`."""
        try:
            yield
        except UnsupportedModelError as error:  # attention and masks do not know the model's name
            if str(error).startswith(self.name):
                raise
            raise UnsupportedModelError(f"{self.name}: {error}") from error
        except RapidError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            raise UnsupportedModelError(
                f"{self.name} cannot be run: {type(self.model).__name__}'s own code fails on this engine's cache and "
                f"attention ({type(error).__name__}: {reason}); this architecture is not supported"
            ) from error

    @contextmanager
    def _narrow_windows(self) -> Iterator[None]:
        config = self.model.config.get_text_config(decoder=True)
        names = [name for name in ("sliding_window", "attention_chunk_size") if getattr(config, name, None) is not None]
        own = {name: getattr(config, name) for name in names}
        try:
            for name in names:
                setattr(config, name, CHECK_WINDOW)
            yield
        finally:
            for name, value in own.items():
                setattr(config, name, value)

    @torch.inference_mode()
    def _eager_logits(self) -> Tensor:
        """Return the logits (CHECK_TOKENS, V) of a short text, by the model's own eager attention."""
        self.model.set_attn_implementation("eager")
        try:
            logits: Tensor = self.model(input_ids=self._check_ids()[None], use_cache=False).logits[0].float()
            return logits
        finally:
            self._reset_attention()

    def _check_ids(self) -> Tensor:
        """Return tokens spread over the vocabulary.

        Consecutive first ids would be control tokens. No model expects several of those in a row, so rounding errors
        would explode.
        """
        return 7919 * torch.arange(1, CHECK_TOKENS + 1, device=self.device) % self.vocab_size

    def _reset_attention(self) -> None:
        self.model.set_attn_implementation(attention.ATTENTION_NAME if self._shared.users else self.own_attention)

    @torch.inference_mode()
    def _check(self, expected: Tensor) -> None:
        """Compare a short pass of this engine (a chunk, a few tokens, single ones) with the model's own logits."""
        parts = torch.split(self._check_ids(), [CHECK_TOKENS - 5, 3, 1, 1])
        self.model.set_attn_implementation(attention.ATTENTION_NAME)
        try:
            if self.model.config._attn_implementation != attention.ATTENTION_NAME:
                raise UnsupportedModelError(
                    f"{self.name}: its attention cannot be replaced: {type(self.model).__name__} computes it in code "
                    "of its own. Take a model that follows transformers' attention interface, as nearly all do"
                )
            cache = self.new_cache(CHECK_TOKENS)
            logits = [self.forward([Rows(part, cache, len(part))])[0] for part in parts]
            self._kv_bytes_per_token = cache.bytes_per_token
            self._state_bytes = 0 if cache.state is None else max(each.nbytes for each in cache.state.states)
            if cache.filled_layers != cache.layers:
                raise UnsupportedModelError(
                    f"{self.name}: {cache.layers - cache.filled_layers} of its {cache.layers} layers keep no keys and "
                    "values in the cache; only models whose layers are all full or sliding-window attention can be run"
                )
            if self._fused is None:
                logits += self._behind_shared(cache)
                expected = torch.cat([expected, expected[CHECK_SHARED:]])
            computed = torch.cat(logits)
            expected_in_tree = expected[CHECK_TOKENS - len(_CHECK_CHAIN) : CHECK_TOKENS]
            in_tree = None if cache.state is not None else self._in_tree(cache)
        except NotANumberError as found:
            raise ModelLoadError(str(found)) from None
        finally:
            self._reset_attention()
        # Low precision rounds differently in each kernel; a wrong mask, scale or head order is far beyond this.
        tolerance = 1e-3 if self.dtype == torch.float32 else 0.1
        error = (computed - expected).norm() / expected.norm()
        self._reads_trees = in_tree is not None and bool(
            (in_tree - expected_in_tree).norm() / expected_in_tree.norm() <= tolerance
        )
        if self.dtype != torch.float32 and has_experts(self.model.config):
            # Rounding may send a token to another expert. So single tokens may differ, but not half of them.
            error = ((computed - expected).norm(dim=1) / expected.norm(dim=1)).median()
        if not error <= tolerance and self._with_state and not self._one_by_one:
            self._one_by_one = True
            return self._check(expected[:CHECK_TOKENS])
        if not error <= tolerance:
            raise UnsupportedModelError(
                f"{self.name}: this engine's attention differs from the model's own by {error:.2%} (allowed "
                f"{tolerance:.1%}); this architecture is not supported"
            )

    def _in_tree(self, cache: KVCache) -> Tensor:
        """Read the check's last tokens again, with other tokens between them that they do not follow."""
        cache.rollback(CHECK_TOKENS - len(_CHECK_CHAIN))
        tokens = self._check_ids()[[cache.length + depth for depth in _CHECK_DEPTHS]]
        (logits,) = self.forward([Rows(tokens, cache, len(tokens), parents=_CHECK_PARENTS)])
        return logits[list(_CHECK_CHAIN)]

    def _behind_shared(self, cache: KVCache) -> list[Tensor]:
        """Read the check's last tokens behind rows that another cache holds; return their logits."""
        # So short a segment serves transformers' own forward, but no kernel.
        forked = cache.fork(CHECK_SHARED, CHECK_TOKENS, tile=CHECK_SHARED // 4)
        parts = torch.split(self._check_ids()[CHECK_SHARED:], [CHECK_TOKENS - CHECK_SHARED - 1, 1])
        return [self.forward([Rows(part, forked, len(part))])[0] for part in parts]


def device_of_inputs(model: Any) -> torch.device:
    """Return where token ids must lie: where the embedding is, or where it is put for each pass if it is offloaded."""
    table = model.get_input_embeddings()
    if table.weight.device.type != "meta":
        return torch.device(table.weight.device)
    hook = getattr(table, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    if device is None:
        raise ModelLoadError(
            f"{model.config._name_or_path or type(model).__name__}: its embedding has no numbers (device 'meta') and "
            "nothing that fetches them; load the model with device_map='auto', or on one device"
        )
    return torch.device(device)


def _cache_argument(module: Any) -> str | None:
    taken = inspect.signature(module.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in taken), None)


def refuse_unsupported(model: Any, longest: int | None = None, *, chosen_once: bool = False) -> None:
    """Raise UnsupportedModelError, with the reason, for a model that cannot be run exactly.

    `longest`: see `HuggingFaceLM`. `chosen_once`: `FusedDecoder` runs the model, which chooses between short and long
    rotations ("longrope") once for a text, by its capacity.
    """
    config = model.config.get_text_config(decoder=True)
    name = config._name_or_path or type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModelError(f"{name} is an encoder-decoder model; a decoder-only causal LM is needed")
    others = sorted(set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS)
    # Hybrids are marked as stateful even if all their layers attend. So a list of layer kinds decides.
    stateful = getattr(model, "_is_stateful", False) and not getattr(config, "layer_types", None)
    if others or stateful:
        kinds = ", ".join(others) or "recurrent state"
        raise UnsupportedModelError(
            f"{name} has layers of kind {kinds}; this engine's cache does not know what they hold, so a rejected draft "
            f"could not be undone. It knows {', '.join(sorted(KNOWN_LAYERS))}"
        )
    inner = getattr(config, "attn_config", None)
    if getattr(config, "alibi", False) or getattr(inner, "alibi", False) or config.model_type in ("bloom", "mpt"):
        raise UnsupportedModelError(
            f"{name} ({config.model_type}) has no rotary or learned positions but ALiBi, a bias that grows with the "
            "distance, which this engine's attention does not compute; take a model with rotary positions"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    kinds_of_rope = {str(r.get("rope_type")) for r in (rope, *rope.values()) if isinstance(r, dict)}
    if moving := sorted(kinds_of_rope & ({"dynamic"} if chosen_once else {"dynamic", "longrope"})):
        raise UnsupportedModelError(
            f"{name} has rotary frequencies that follow the length read so far ({', '.join(moving)}); keys that are "
            "cached would have to change with them"
        )
    if model.get_output_embeddings() is None:
        raise UnsupportedModelError(f"{name} ({type(model).__name__}) has no language-model head: it writes no text")
    if positions_of(model) is None and longest is None and looks_back_without_end(held_layers(config)):
        raise UnsupportedModelError(
            f"{name} has no maximum length in its configuration (max_position_embeddings or the like)"
        )


@dataclass
class _Shared:
    """State that all wrappers of one model share: the setting to restore, and the number of wrappers that need ours."""

    own_attention: str
    users: int = 0


_SHARED: WeakKeyDictionary[Any, _Shared] = WeakKeyDictionary()
