"""One model reading one text: its committed tokens, its KV cache and its tentative draft tokens."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from rapid_integrations.cache import TILE, KVCache, Rows
from rapid_integrations.cache.hidden_states import WantedStates
from rapid_integrations.cache.prefix_cache import MIN_REUSED_TOKENS, TokenIds, common_prefix
from rapid_integrations.decoding.device_tokens import UNKNOWN, DeviceTokens
from rapid_integrations.decoding.passes import Steps, Wanted
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.sampling.sending import sent

PREFILL_CHUNK = 1024  # tokens per forward pass: bounds the memory of a prefill, and the time that other requests wait
GPU_CHUNK = 4096  # a GPU's products need so many rows to reach its speed; gate and up of 8B take 235 MB of them
LARGE_GPU_CHUNK, LARGE_GPU = 8192, 32 << 30  # on a GPU with so many bytes


class Reader:
    """A text that a model reads token by token, with tentative (draft) tokens behind it.

    `tokens` is the committed text. The cache may lag behind it, because the last token is fed only when the logits
    after it are needed. The cache may also hold draft tokens beyond it, until `commit` says which of them are kept.

    Args:
        model: the reader's model.
        prompt_ids: at least one token.
        capacity: tokens that prompt, output and draft need together.
        cache: already holds the first tokens of the prompt, but not all, and has room for `capacity`.

    Attributes:
        reused: tokens of the prompt that were in `cache`, or that other readers prefilled meanwhile.
        exact: whether its rows are those of a prefill. Others, which were moved, are neither shared nor kept.
        others: readers of the same model in requests that began earlier and run. None of them waits for this one.
        left: returns a cache that an ended request has left and that holds more than so many tokens of the prompt, or
            None.
        states: the hidden states of its rows that somebody wants.
    """

    def __init__(self, model: CausalLM, prompt_ids: Sequence[int], capacity: int, cache: KVCache | None = None) -> None:
        self.model = model
        self.others: Callable[[], Iterable[Reader]] = tuple
        self.left: Callable[[int], KVCache | None] = _nothing
        self.states: WantedStates | None = None
        self._prompt = np.asarray(prompt_ids, dtype=np.int64)
        self.tokens = list(prompt_ids)
        self.cache = model.new_cache(capacity) if cache is None else cache
        self.reused = self.cache.length
        self.exact = True
        self._capacity = capacity
        self._on_processor = model.device.type == "cpu"
        self._tried: list[int] = []  # draft tokens that are in the cache or will be
        self._parents: list[int] = []  # of each the index of the one that it follows, or -1

    def prefill(
        self, report: Callable[[int, int], None] = lambda done, total: None, end: int | None = None
    ) -> Steps[None]:
        """Prefill all but the last token of the prompt, chunk by chunk; reports tokens read and tokens to read.

        With `end`, only the first `end` tokens are prefilled.

        The last token is left for the first decoding step, which needs the logits after it. What one of `others` has
        read of the same prompt, or is about to read, is waited for and taken over, also if its request ends meanwhile.
        """
        waited = False
        total = len(self.tokens) - 1
        stop = total if end is None else end
        while (done := self.cache.length) < stop:
            other, shared = self._most_shared()
            if other is not None:
                if other.cache.length < shared:
                    other.cache.mark(shared)  # layers with a sliding window keep what is needed there
                    waited = True
                    yield None
                    continue
                self._share(other, shared)
            elif waited and (left := self.left(done)) is not None:
                self.reused += left.length - done
                self.cache = left
            else:
                ids = self._ids(self.tokens[done : min(self._piece_end(done), stop)])
                yield Wanted(self.model, (Rows(ids, self.cache, 0, of_prompt=True, states=self.states),))
            report(self.cache.length, total)

    def _piece_end(self, begin: int) -> int:
        """Return where a piece of the prompt ends. Of a sparse prefill, only whole blocks can be used again."""
        end = begin + self._chunk
        whole = end // TILE * TILE
        return whole if self.cache.sparse_rows is not None and whole > begin else end

    @cached_property
    def _chunk(self) -> int:
        return prefill_chunk(self.model.device)

    def _most_shared(self) -> tuple[Reader | None, int]:
        """Return who reads the same prompt furthest, and how far; None if nobody does clearly further than this."""
        best, most = None, self.cache.length + MIN_REUSED_TOKENS - 1
        for other in (each for each in self.others() if each.cache.variant == self.cache.variant):
            shared = other.shared_with(self._prompt[:-1])
            if other.cache.length >= shared:  # it may have read more, but kept no recurrent state there
                shared = other.cache.reusable(shared)
            if shared > most:
                best, most = other, shared
        return best, most

    def shared_with(self, token_ids: TokenIds) -> int:
        """Return how many tokens (n,) of another text this one's prompt begins with, as far as it is prefilled."""
        return common_prefix(token_ids, self._prompt[:-1])

    def _share(self, other: Reader, length: int) -> None:
        """Go on behind the first `length` rows of another reader, in place of the rows that were read here."""
        self.reused += length - self.cache.length
        self.cache = other.cache.fork(length, self._capacity)

    def wants(self, draft: Sequence[int], keep: int, parents: Sequence[int] | None = None) -> Rows:
        """Return the rows of further draft tokens; a pass over them has to follow.

        Args:
            draft: tokens to append to those already tried; may be empty. They may be `DeviceTokens`.
            keep: the number of last tokens whose logits are wanted; at most one more than there are in `draft`.
            parents: `draft` is a tree; see `Proposal.parents`. It takes the place of what was already tried.
        """
        if parents is not None:
            self.forget_draft()
        pending = self.tokens[self.cache.length :]
        first = len(self._tried)
        self._parents += range(first - 1, first - 1 + len(draft)) if parents is None else parents
        self._tried += draft
        rows = None
        if parents is not None:
            before = len(pending)
            rows = (*range(-1, before - 1), *(parent + before for parent in parents))
        if isinstance(draft, DeviceTokens):
            ids = draft.ids.to(self.model.device, non_blocking=True)
            ids = torch.cat([self._ids(pending), ids]) if pending else ids
        else:
            ids = self._ids([*pending, *draft])
        return Rows(ids, self.cache, keep, parents=rows, states=self.states)

    def forget_draft(self) -> None:
        """Discard every draft token that was tried since the last commit.

        At least one committed token is left to be read.
        """
        self.cache.rollback(min(self.cache.length, len(self.tokens) - 1))
        self._tried, self._parents = [], []

    def keep(self, tokens: int) -> None:
        """Forget all draft tokens but the first `tokens`."""
        self._tried = self._tried[:tokens]
        self.cache.rollback(min(self.cache.length, len(self.tokens) + len(self._tried)))

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make `token_ids` part of the text, and discard every other draft token.

        The last of them never stays in the cache, even if it was tried. The next step needs the logits after it, and a
        correction may happen to be the very token that was rejected.
        """
        held = self.cache.length - len(self.tokens)  # of the tried tokens; below 0, committed ones are unread, too
        path: list[int] = []
        for token in token_ids[:-1]:
            at = path[-1] if path else -1
            # Of tokens that the host did not know, those that were accepted are committed before the last one.
            follows = (k for k in range(at + 1, held) if self._parents[k] == at and self._tried[k] in (token, UNKNOWN))
            if (found := next(follows, None)) is None:
                break
            path.append(found)
        if held >= 0:
            self.cache.keep(len(self.tokens), path)
        self.tokens += token_ids
        self._tried, self._parents = [], []

    def _ids(self, token_ids: list[int]) -> Tensor:
        # A step has just emptied the processor's caches: each call of torch takes 10 us there.
        ids = torch.frombuffer(array("q", token_ids), dtype=torch.int64)
        if self._on_processor:
            return ids
        self._require_known(token_ids)
        return sent(ids, self.model.device)

    def _require_known(self, token_ids: list[int]) -> None:
        """Refuse ids that the model does not have: a GPU that looks one up fails in all that the process does later.

        Raises:
            ConfigurationError: there is one.
        """
        if unknown := [each for each in token_ids if not 0 <= each < self.model.vocab_size]:
            raise ConfigurationError(
                f"token id {unknown[0]} was given to {self.model.name}, whose ids are 0 to "
                f"{self.model.vocab_size - 1:,}: a prompt, a proposer or another drafter has another vocabulary"
            )


def _nothing(_: int) -> None:
    return None


def prefill_chunk(device: torch.device) -> int:
    """Return how many tokens a pass over a prompt reads on a device."""
    if device.type != "cuda":
        return PREFILL_CHUNK
    return LARGE_GPU_CHUNK if torch.cuda.get_device_properties(device).total_memory >= LARGE_GPU else GPU_CHUNK


def first_columns(logits: Tensor, vocab_size: int) -> Tensor:
    """Return the first V columns, (keep, V), of logits (keep, at least V)."""
    return logits if logits.shape[1] == vocab_size else logits[:, :vocab_size]
