"""The drafter is a language model that reads the compressed context. It writes drafts and scores them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.decoding.device_tokens import DeviceTokens
from rapid_integrations.decoding.passes import Steps, Wanted
from rapid_integrations.decoding.proposal import Proposal
from rapid_integrations.decoding.reader import Reader, first_columns
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.sampling import Randomness, mask
from rapid_integrations.sampling.sending import sent


class Drafter:
    """A model with the drafter's prompt. It writes drafts, and it scores any draft.

    It keeps the logits of the current round. So a token that it has written itself is scored without another forward
    pass, and another proposer's draft is scored in a single pass.

    Args:
        reader: the model and its own prompt, prefilled.
        rules: the request's rules. The drafter samples at the law's temperature, within its truncation and constraint,
            and stops at the end of an answer.

    Attributes:
        elsewhere: whether another process reads; there is no reader then (`decoding/elsewhere.py`).
        lost: whether that process is lost, and the request goes on without it.
    """

    elsewhere: ClassVar[bool] = False
    lost: bool = False

    def __init__(self, reader: Reader, rules: Rules) -> None:
        self.reader = reader
        self._rules = rules
        self._rows: list[Tensor] = []  # row i: logits behind draft token i - 1 of this round
        self._tree: tuple[tuple[int, ...], tuple[int, ...]] | None = None  # the tree that was read, and its parents

    @property
    def members(self) -> tuple[Drafter, ...]:
        """The drafters of which this one consists: itself, or several (`SeveralDrafters`)."""
        return (self,)

    def draft(self, tokens: int, rng: Randomness, source: str = "", behind: Sequence[int] = ()) -> Steps[Proposal]:
        """Write at most `tokens` tokens, one by one. Their q is known without another pass.

        Args:
            tokens: the number of tokens.
            rng: the request's randomness.
            source: the registered name of the proposer that calls this.
            behind: draft tokens of this round that come before them.
        """
        rules = self._rules
        if rules.on_device and tokens > 0 and not behind and not rules.penalty.depends_on_text:
            return (yield from self._draft_on_device(tokens, rng, source))
        written = list(behind)
        proposed: list[Tensor] = []
        while len(written) < len(behind) + tokens and not (written and written[-1] in rules.eos_token_ids):
            # A round on a device looks for NaN with its verdict; the host draws from these logits before.
            yield from self._read(written, check=True) if rules.on_device else self.score(written)
            if self.lost:
                break
            logits = self.penalised(len(written), written)
            allowed = None if rules.constraint is None else rules.constraint.allowed(written)
            if allowed is not None and bool(mask(logits, allowed).isneginf().all()):
                break  # q may be 0 for all that is allowed, if it was cut to a few tokens
            distribution = rules.law.propose(logits, allowed)
            if distribution is None:
                written.append(rules.law.ops.best(mask(logits, allowed)))
            else:
                written.append(rng.draw(distribution))
                proposed.append(distribution)
        return Proposal(tuple(written[len(behind) :]), proposed or None, source)

    def _draft_on_device(self, tokens: int, rng: Randomness, source: str) -> Steps[Proposal]:
        """Write `tokens` tokens without a wait for the device; see `draft`.

        Nobody knows where an answer ends. The tokens behind its end are left out by the verdict.
        """
        rules, rows = self._rules, self._rules.law.ops.rows
        assert rows is not None, "the rules say so"
        shares = torch.tensor(rng.ahead(tokens), dtype=torch.float64)
        ids = torch.empty(0, dtype=torch.int64, device=self.reader.model.device)
        proposed: list[Tensor] = []
        for place in range(tokens):
            yield from self._read(DeviceTokens(ids), check=False)
            logits = rules.penalty.apply(self.logits(place))
            if place == 0:  # a model on several devices takes ids on one of them, and may give logits on another
                ids, shares = ids.to(logits.device, non_blocking=True), sent(shares, logits.device)
            if rules.law.greedy:
                token = logits.argmax()
            else:
                proposed.append(rules.law.propose_rows(logits[None])[0])
                token = rows.draw(proposed[-1], shares[place : place + 1])
            ids = torch.cat([ids, token.view(1)])
        return Proposal(DeviceTokens(ids), proposed or None, source, written=torch.stack(self._rows))

    def scores(self, positions: int) -> bool:
        """Whether the logits after each of the first `positions` draft tokens are known, and those before the draft."""
        return len(self._rows) > positions

    def score(self, draft: Sequence[int], parents: Sequence[int] | None = None) -> Steps[None]:
        """Read what is still needed to know the logits behind every token of `draft`, which may be a tree."""
        yield from self._read(draft, parents, check=not self._rules.on_device)

    def _read(self, draft: Sequence[int], parents: Sequence[int] | None = None, *, check: bool) -> Steps[None]:
        if (rows := self.wants(draft, parents)) is not None:
            (logits,) = yield Wanted(self.reader.model, (replace(rows, check=check),))
            self.scored(logits)

    def begin(self, draft: Sequence[int]) -> None:
        """Do nothing: it reads in a pass of its own, or together with the target."""

    def wants(self, draft: Sequence[int], parents: Sequence[int] | None = None) -> Rows | None:
        """Return what it still has to read to score all positions of `draft`; None if it has.

        The pass has to follow, and `scored` has to be told of it. A tree is always read as a whole, also what this
        drafter has written of it itself.
        """
        if parents is not None:
            if self._tree == (tuple(draft), tuple(parents)):
                return None
            self._tree, self._rows = (tuple(draft), tuple(parents)), []
            return self.reader.wants(draft, len(draft) + 1, parents)
        have = len(self._rows)
        if have > len(draft):
            return None
        return self.reader.wants(draft[max(have - 1, 0) :], keep=len(draft) + 1 - have)

    def scored(self, logits: Tensor) -> None:
        """Take the logits (keep, at least V) that `wants` asked for."""
        self._rows += first_columns(logits, self._rules.vocab_size).unbind()

    def logits(self, position: int) -> Tensor:
        """Return the logits (V,) behind draft token `position` - 1 of this round, which `score` has made known."""
        return self._rows[position]

    def penalised(self, position: int, before: Sequence[int]) -> Tensor:
        """Return the logits (V,) at a place of the draft after penalties; `before` are the draft tokens before it."""
        return self._rules.penalty.apply(self.logits(position), before)

    def known_logits(self, position: int, before: Sequence[int]) -> Tensor | None:
        """Return the same, or None if they are not known. No model runs."""
        return self.penalised(position, before) if self.scores(position) else None

    def keep(self, tokens: int) -> None:
        """Forget all draft tokens of this round but the first `tokens`, and read on from there."""
        self.reader.keep(tokens)
        del self._rows[tokens + 1 :]

    def commit(self, token_ids: Sequence[int]) -> None:
        """Make `token_ids` part of the text. The cache keeps the accepted draft tokens."""
        self.reader.commit(token_ids)
        self._rows, self._tree = [], None
