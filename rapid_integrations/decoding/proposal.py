"""The protocols between the decoding loop and proposers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.cache.growing_text import GrowingText
from rapid_integrations.cache.indexed_texts import IndexedTexts
from rapid_integrations.cache.suffix_index import SuffixIndex
from rapid_integrations.decoding.draft_length import RoundTimes
from rapid_integrations.decoding.draft_lengths import DraftLengths
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.sampling import ROOT, Constraint, Randomness, allowed_prefix
from rapid_integrations.sampling.trees import first_chain, path_to, renumbered, without

if TYPE_CHECKING:
    from rapid_integrations.decoding.drafter import Drafter
    from rapid_integrations.decoding.tree_shape import TreeShape


MOST_TOKENS = 31
"""Tokens of a tree at most: with the token before it, it fits into one pass of the kernels.

More rows would be computed as those of a prompt are, with other last bits. A reader's cache has room for so many behind
the longest answer."""


@dataclass(frozen=True)
class Proposal:
    """Guessed tokens: a chain, or a tree of several continuations.

    Attributes:
        token_ids: K tokens; K may be 0. `DeviceTokens` are a chain that the host does not know yet.
        probs: K times (V,), the distribution that each token was really drawn from, given its siblings before it. None
            is a point mass: the proposer was certain to propose this token. None in place of all is the same for all.
        source: the registered name of the proposer. Only observers read it.
        parents: K times the index of the token that a token follows, smaller than its own, or -1 for the text so far.
            Siblings are tried in their order. None is a chain.
        written: logits that the chain was written by, if the host has looked at none of them, so that there may be NaN.
    """

    token_ids: tuple[int, ...]
    probs: Sequence[Tensor | None] | None = None
    source: str = ""
    parents: tuple[int, ...] | None = None
    written: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the parents, as a model would read a wrong text without any error.

        Raises:
            ConfigurationError: a parent does not come before its child, or there are too many tokens.
        """
        if self.parents is None:
            return
        if len(self.token_ids) > MOST_TOKENS:
            raise ConfigurationError(
                f"proposer {self.source!r} gave a tree of {len(self.token_ids)} tokens; {MOST_TOKENS} are allowed"
            )
        if len(self.parents) != len(self.token_ids) or any(
            not ROOT <= parent < index for index, parent in enumerate(self.parents)
        ):
            raise ConfigurationError(
                f"proposer {self.source!r} gave parents={self.parents} for {len(self.token_ids)} tokens; each parent "
                "is the index of an earlier token, or -1 for the text so far"
            )

    def chain(self) -> Proposal:
        """Return the first continuation of a tree: each time the first child."""
        return self if self.parents is None else self._of(first_chain(self.parents), None)

    def allowed_by(self, constraint: Constraint) -> Proposal:
        """Return it without the tokens that a constraint forbids, and what follows them.

        Only tokens that were not drawn (point masses) may be left out: to discard a drawn token biases the output.
        """
        if self.parents is None:
            if self.probs is not None:
                return self
            return self._of(range(allowed_prefix(constraint, self.token_ids)), None)
        parents, probs = self.parents, self.probs
        never: set[int] = set()  # tokens that were drawn and are forbidden: they stay, and will be rejected

        def forbidden(token: int) -> bool:
            parent = parents[token]
            before = [self.token_ids[each] for each in path_to(parents, parent)]
            wrong = parent in never or not constraint.allowed(before)[self.token_ids[token]]
            drawn = probs is not None and probs[token] is not None
            if wrong and drawn:
                never.add(token)
            return wrong and not drawn

        left = without(parents, forbidden)
        return self._of(left, renumbered(parents, left))

    def _of(self, left: Sequence[int], parents: tuple[int, ...] | None) -> Proposal:
        probs = None if self.probs is None else [self.probs[token] for token in left]
        return Proposal(tuple(self.token_ids[token] for token in left), probs, self.source, parents)


class Committed(Protocol):
    """Follows the committed text. The loop reports its output to it."""

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make `token_ids` part of the text and discard the rest of the draft."""
        ...


class Scorer(Committed, Protocol):
    """Says how likely the drafter finds a proposal; the q in p_hat.

    Attributes:
        reader: the model and its own prompt. If the model is the target's, both read a draft in one pass.
        elsewhere: whether another process reads. There is no reader then.
        lost: whether that process is lost. The law is "target" from then on.
    """

    reader: Reader
    elsewhere: ClassVar[bool]
    lost: bool

    @property
    def members(self) -> Sequence[Scorer]:
        """The drafters that read the text, each with a reader of its own; q is their mean."""
        ...

    def begin(self, draft: Sequence[int]) -> None:
        """Start to read `draft` in another process, beside the target's pass; `score` waits for it."""
        ...

    def scores(self, positions: int) -> bool:
        """Whether the logits are known before the draft and after each of its first `positions` tokens."""
        ...

    def score(self, draft: Sequence[int], parents: Sequence[int] | None = None) -> Steps[None]:
        """Read what is still needed to know the logits behind every token of `draft`, which may be a tree."""
        ...

    def wants(self, draft: Sequence[int], parents: Sequence[int] | None = None) -> Rows | None:
        """Return what the drafter has to read to score all of `draft`, for a pass that it shares; None: nothing."""
        ...

    def scored(self, logits: Tensor) -> None:
        """Take the logits that `wants` asked for."""
        ...

    def logits(self, position: int) -> Tensor:
        """Return the drafter's logits (V,) after the first `position` draft tokens, which have been scored.

        Only rounds that are decided on a device ask for them; those of several drafters are not.
        """
        ...

    def penalised(self, position: int, before: Sequence[int]) -> Tensor:
        """Return the drafter's logits (V,) at a place of the draft, which has been scored, after penalties.

        `before` are the draft tokens before it.
        """
        ...


class Proposer(Committed, Protocol):
    """Proposes the next tokens and chooses how many. Subclass it: two members have a default.

    A proposer may draw from any distribution, as long as `Proposal.probs` reports it. It may stop early only before a
    token is drawn, because discarding a drawn token would bias the output.
    """

    def propose(self, limit: int, rng: Randomness) -> Proposal | Steps[Proposal]:
        """Return at most `limit` tokens that may follow the committed text; `limit` may be 0.

        A tree may have more tokens, up to `MOST_TOKENS`, if no path in it is longer than `limit`.

        A proposer that runs a model is a generator here: it yields the rows that it wants, and returns the proposal.
        """
        ...

    def observe(self, times: RoundTimes) -> None:
        """Learn from a finished round how many tokens pay. By default this does nothing."""

    @property
    def parts(self) -> tuple[Committed, ...]:
        """The parts that follow the committed text on its behalf; by default the proposer itself.

        A part may also be the request's scorer. It is then told only once.
        """
        return (self,)


class HeadWriter(Committed, Protocol):
    """A trained head at work: it drafts from the target's hidden states, which it takes from the target's passes.

    Attributes:
        step_bytes: what a token of a draft costs, in bytes that could be read meanwhile.
    """

    step_bytes: float

    def draft(self, tokens: int, rng: Randomness, source: str = "") -> Steps[Proposal]:
        """Write a chain of at most `tokens` tokens; see `Drafter.draft`."""
        ...

    def tree(self, limit: int, shape: TreeShape, source: str = "") -> Proposal:
        """Return the likeliest continuations, with paths of at most `limit` tokens."""
        ...


@dataclass(frozen=True)
class SelfDrafting:
    """How the target drafts for itself.

    Attributes:
        skip_layers: the layers that the proposer "skipped_layers" leaves out; None: it chooses them.
        sinks, recent: the first and the last tokens of the text that the proposers "magicdec" and "triforce" see.
        retrieved: whether they also see the passages that were retrieved.
    """

    skip_layers: frozenset[int] | None = None
    sinks: int = 64
    recent: int = 256
    retrieved: bool = True


@dataclass(frozen=True)
class ProposerRequest:
    """The inputs that a proposer can be made from.

    Attributes:
        target_ids: the target's prompt.
        drafter_ids: the drafter's prompt (compressed context).
        rules: the rules of the output. A proposal that breaks them is wasted.
        lengths: makes the choosers of K.
        drafter: the drafter, if the request has one.
        draft_lm: a language model that proposes only, if the request has one.
        texts: the suffix indexes of earlier prompts.
        datastore: the index of the user's own texts, if the request names one.
        draft_head: a trained head, if the request has one.
        target: the target's reader. A proposer leaves its cache as it is, but may read on behind it (`ViewReader`).
        self_drafting: how the target drafts for itself.
        stored_answers: earlier answers that the datastore has gained, to be searched like it.
    """

    target_ids: Sequence[int]
    drafter_ids: Sequence[int]
    rules: Rules
    lengths: DraftLengths
    drafter: Drafter | None = None
    draft_lm: Drafter | None = None
    texts: IndexedTexts = field(default_factory=IndexedTexts)
    datastore: SuffixIndex | None = None
    draft_head: HeadWriter | None = None
    target: Reader | None = None
    self_drafting: SelfDrafting = SelfDrafting()
    stored_answers: Sequence[SuffixIndex | GrowingText] = ()


class NoProposer(Proposer):
    """Proposes nothing: one token per forward pass."""

    @classmethod
    def from_request(cls, request: ProposerRequest) -> NoProposer:
        """Return a new proposer. It needs nothing of the request."""
        return cls()

    def propose(self, limit: int, rng: Randomness) -> Proposal:
        """Return an empty proposal."""
        return Proposal(())

    def observe(self, times: RoundTimes) -> None:
        """Do nothing, because there is nothing to choose."""

    def commit(self, token_ids: Sequence[int]) -> None:
        """Do nothing."""
