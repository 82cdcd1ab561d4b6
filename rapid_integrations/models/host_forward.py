"""transformers' own forward pass over this package's cache: for families that nobody has described."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.cache import KVCache, RecurrentState, Rows
from rapid_integrations.cache.recurrent_state import MOST_REPLAYED
from rapid_integrations.errors import CacheError
from rapid_integrations.models import attention
from rapid_integrations.models.host_cache import HeldLayer, ModuleStates, host_cache_class, reads_one_by_one
from rapid_integrations.models.not_a_number import numbers
from rapid_integrations.sampling.sending import sent


class HostForward:
    """Reads texts one after another with a transformers model whose attention is this package's.

    Args:
        model: the model.
        held: what its layers hold between passes.
        name: for messages.
        device: where token ids lie.

    Attributes:
        with_state: some layers have a recurrent state.
        joins_segments: the model's layers lose the keys of shared segments, so that whole ones are passed. A pass finds
            this out.
        one_by_one: behind a state, tokens are read one by one.
    """

    def __init__(self, model: Any, held: list[HeldLayer], name: str, device: torch.device) -> None:
        self._model, self._held, self._name, self._device = model, held, name, device
        self._vocab_size: int = model.get_output_embeddings().weight.shape[0]
        self._host_cache = host_cache_class(model)
        self._module_states = ModuleStates(model)
        # transformers 5.24 renamed this argument; models with their own code may keep the old name.
        self._cache_argument = _cache_argument(model.base_model)
        self._cache_argument_of_head = _cache_argument(model) or self._cache_argument or "cache"
        self.with_state = any(each.states for each in held)
        self.one_by_one = reads_one_by_one(model)
        self.joins_segments = False

    def read_all(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Read further tokens of texts, one after another, and advance their caches; see `CausalLM.forward`."""
        lengths = [each.cache.length for each in rows]
        try:
            return [self._read(each) for each in rows]
        except BaseException as error:
            for each, length in zip(rows, lengths, strict=True):
                each.cache.rollback(length)
            if not isinstance(error, attention.PrefixLostError):
                raise
        self.joins_segments = True
        return self.read_all(rows)

    def _read(self, rows: Rows) -> Tensor:
        """Do `read_all` for one text."""
        if isinstance(rows.cache.state, RecurrentState):
            return self._read_with_state(rows, rows.cache.state)
        if self.with_state:
            raise CacheError(f"{self._name} has recurrent layers, but the cache holds no state: take `new_cache`")
        positions = rows.cache.length + sent(torch.tensor(rows.depths), self._device)
        with attention.tree_read(rows):
            logits = self._pass(rows.token_ids, positions, rows.cache, rows.keep, given=rows)
        rows.cache.advance(rows.count, of_prompt=rows.of_prompt)
        return logits

    def _read_with_state(self, rows: Rows, state: RecurrentState) -> Tensor:
        """Read a chain in pieces that end where a state is kept, behind the tokens that the state has not read."""
        cache, end = rows.cache, rows.cache.length + rows.count
        ids, logits = state.read(cache.length, rows.token_ids), []
        while (begin := state.position) < end:
            stop = self._stop(rows, state, end)
            keep = max(0, stop - max(begin, end - rows.keep))
            positions = torch.arange(begin, stop, device=self._device)
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
        if self.one_by_one:  # to read the first piece of a prompt anew is faster than to go on within it
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
        host = self._host_cache(cache, self._held, self.joins_segments, states, begin)
        inputs: dict[str, Any] = {"input_ids": token_ids[None], "position_ids": positions[None], "use_cache": True}
        inputs[(self._cache_argument_of_head if keep else self._cache_argument) or "cache"] = host
        logits = torch.empty(0, self._vocab_size, dtype=torch.float32, device=self._device)
        wanted = None if given is None else given.wanted_states
        if wanted is not None:
            inputs["output_hidden_states"] = True
        with attention.prefix_expected(bool(cache.shared) and not self.joins_segments):
            read = self._model(**inputs, logits_to_keep=keep) if keep else self._model.base_model(**inputs)
            if keep:
                logits = numbers(read.logits[0], check=given is None or given.check)  # (keep, V)
        if given is not None and wanted is not None:
            levels = [read.hidden_states[level][0].to(self._device, non_blocking=True) for level in wanted.levels]
            given.give(torch.cat(levels, dim=-1))  # layers may lie on several devices
        if states is not None:
            states.update(host.states() | self._module_states.held())
        return logits


def _cache_argument(module: Any) -> str | None:
    taken = inspect.signature(module.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in taken), None)
