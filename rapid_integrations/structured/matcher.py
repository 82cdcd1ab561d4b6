"""The constraint that follows a grammar with llguidance's incremental parser."""

from __future__ import annotations

from collections.abc import Sequence
from time import thread_time
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.structured.deep_stack import on_a_deep_stack
from rapid_integrations.structured.grammar import Grammar
from rapid_integrations.structured.library import limits, llguidance_tokenizer, load_llguidance

MOST_SECONDS = 30.0
"""Processor time for following the grammar of one answer, in addition to `USUAL_SECONDS` for each step."""

USUAL_SECONDS = 0.05

_MOST_TOLD = 1_000  # characters of an error of llguidance, which may repeat the whole grammar
_NOTHING_FITS = "NoExtensionBias"  # llguidance's name for a place that no token continues


class GrammarConstraint:
    """Follows a grammar along the output. Drafts are tried and rolled back.

    Padding rows of a model and control tokens that the grammar does not name are never allowed. An eos token is
    allowed if the grammar accepts the text so far. Once the grammar is finished, nothing else is allowed.

    Args:
        vocabulary: the vocabulary of the tokens.
        vocab_size: V, the width of the masks.
        grammar: a grammar in llguidance's notation, or the result of `grammar_of`.
        feature: the feature that needs it, for error messages.

    Raises:
        MissingExtraError: llguidance is not installed.
        ConfigurationError: llguidance refuses the grammar, or no token can begin it.
    """

    def __init__(
        self, vocabulary: Vocabulary, vocab_size: int, grammar: Grammar | str, *, feature: str = "structured output"
    ) -> None:
        tokenizer = llguidance_tokenizer(vocabulary, feature)
        text = grammar if isinstance(grammar, str) else grammar.text
        matcher, bounds = load_llguidance(feature).LLMatcher, limits(feature)
        self._feature = feature
        self._matcher: Any = on_a_deep_stack(lambda: matcher(tokenizer, text, log_level=0, limits=bounds))
        self._check("cannot follow this grammar")
        self._vocab_size = vocab_size
        self._eos = frozenset(token for token in vocabulary.eos_token_ids if token < vocab_size)
        self._steps, self._seconds = 0, 0.0
        self._tried: list[int] = []  # draft tokens that the matcher has consumed
        self._ended = False
        self._masks: dict[tuple[int, ...], Tensor] = {}  # of this round, by draft
        self.allowed()

    def allowed(self, draft: Sequence[int] = ()) -> Tensor:
        """Return which tokens may follow the committed output and then `draft`. After an eos token, only eos may.

        Returns:
            (V,) bool on the CPU.

        Raises:
            ValueError: the draft holds a token that the grammar forbids.
            ConfigurationError: the grammar has become too complex to follow, or no token continues it.
        """
        key = tuple(draft)
        if key not in self._masks:
            began = thread_time()
            self._masks[key] = self._only_eos() if self._ended or not self._eos.isdisjoint(key) else self._mask(key)
            self._account(thread_time() - began)
        return self._masks[key]

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make `token_ids` part of the output and forget every draft."""
        if not self._ended:
            end = next((at for at, token in enumerate(token_ids) if token in self._eos), len(token_ids))
            self._walk(tuple(token_ids[:end]))
            self._tried = []
            self._ended = end < len(token_ids)
        after = self._masks.get(tuple(token_ids))
        self._masks = {} if after is None else {(): after}

    def _mask(self, draft: tuple[int, ...]) -> Tensor:
        self._walk(draft)
        # One byte per token of the tokenizer: 200 if the token is allowed, else 0.
        known = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) != 0
        self._check("stopped")
        forced = known.nonzero().flatten().tolist()
        at_the_end = self._matcher.is_accepting() and not self._eos.isdisjoint(forced)  # eos is never valid for it
        if len(forced) == 1 and not at_the_end and not self._matcher.validate_tokens(forced):
            # For forced text, llguidance allows only the canonical token. If the text spells a control token,
            # llguidance takes that token for the canonical one, but then refuses it. Ordinary tokens spell it, too.
            for token in range(known.shape[0]):
                known[token] = bool(self._matcher.validate_tokens([token]))
        mask = torch.zeros(self._vocab_size, dtype=torch.bool)
        width = min(self._vocab_size, known.shape[0])
        mask[:width] = known[:width]
        if not mask.any():
            raise ConfigurationError(
                f"{self._feature}: no token of this model continues the grammar here. It has no tokens for characters "
                "that the grammar requires; allow others"
            )
        return mask

    def _account(self, seconds: float) -> None:
        """Give up on a grammar that takes more and more time, as very ambiguous ones do."""
        self._steps += 1
        self._seconds += seconds
        if self._seconds > MOST_SECONDS + USUAL_SECONDS * self._steps:
            raise ConfigurationError(
                f"{self._feature}: the grammar took {self._seconds:.1f} seconds for {self._steps} steps, and "
                f"{MOST_SECONDS + USUAL_SECONDS * self._steps:.1f} are the most: it is too ambiguous. Simplify it"
            )

    def _walk(self, draft: tuple[int, ...]) -> None:
        """Move the matcher to the end of `draft` in as few steps as possible."""
        common = 0
        for tried, token in zip(self._tried, draft, strict=False):
            if tried != token:
                break
            common += 1
        if common < len(self._tried):
            self._matcher.rollback(len(self._tried) - common)
        new = list(draft[common:])
        taken = self._matcher.try_consume_tokens(new) if new else 0
        self._check("stopped")
        while taken < len(new):
            # Either a token is forbidden, or the fuel is used up that the library gives its lexer with each mask.
            self._matcher.compute_logit_bias()
            self._check("stopped")
            more = self._matcher.try_consume_tokens(new[taken:])
            self._check("stopped")
            if not more:
                break
            taken += more
        self._tried = [*draft[: common + taken]]
        if taken < len(new):
            raise ValueError(f"token {new[taken]} is not allowed after {self._tried} (and the committed output)")

    def _only_eos(self) -> Tensor:
        mask = torch.zeros(self._vocab_size, dtype=torch.bool)
        mask[list(self._eos)] = True
        return mask

    def _check(self, what: str) -> None:
        if self._matcher.is_error():
            error = self._matcher.get_error().strip()
            error = error.partition("<backtrace>")[0].removesuffix("<non-verbose/>").strip()[:_MOST_TOLD]
            if error == _NOTHING_FITS:
                error = "no text satisfies the grammar from here on. Allow at least one"
            raise ConfigurationError(f"{self._feature}: llguidance {what}: {error}")
