"""A request over toy models, decoded by the real loop or computed by the reference."""

import string
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from rapid_integrations.decoding.draft_length import DraftLength, RoundTimes
from rapid_integrations.decoding.draft_lengths import DraftLengths
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.loop import decode
from rapid_integrations.decoding.observer import Observer
from rapid_integrations.decoding.passes import Steps, run_alone
from rapid_integrations.decoding.proposal import Proposal, Proposer, ProposerRequest
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.decoding.stopping import Stopping, Taken
from rapid_integrations.decoding.text_stream import TextStream
from rapid_integrations.proposers import proposer_class
from rapid_integrations.proposers.suite.table_model import TableLM
from rapid_integrations.sampling import Law, Penalties, Randomness
from tests.toys.constraint import ScriptedConstraint
from tests.toys.reference_law import joint_law, lowered, penalised, reference_law, without

LETTERS = string.ascii_letters


def read(reader: Reader, draft: Sequence[int], keep: int) -> Tensor:
    """Have a reader read further draft tokens in a pass of its own; return the last logits (keep, V)."""
    return reader.model.forward([reader.wants(draft, keep)])[0]


class AsLongAs(Proposer):
    """Has a proposer guess as many tokens as a draft length says."""

    def __init__(self, proposer: Proposer, length: DraftLength) -> None:
        self._proposer, self._length = proposer, length

    def propose(self, limit: int, rng: Randomness) -> Proposal | Steps[Proposal]:
        return self._proposer.propose(min(self._length.next(), limit), rng)

    def observe(self, times: RoundTimes) -> None:
        self._proposer.observe(times)
        self._length.observe(times)

    def commit(self, token_ids) -> None:
        self._proposer.commit(token_ids)


@dataclass
class ToyRun:
    """What became of a request, and what its parts looked like afterwards."""

    tokens: tuple[int, ...]
    text: str
    finish_reason: str | None
    recorder: Recorder
    target: Reader
    drafter: Reader


@dataclass
class ToyRequest:
    """Two table models, two prompts, a law; token i is the i-th letter.

    `proposer` is a registered name or makes one; `draft_length` is K or makes a `DraftLength` for it.
    """

    law: Law
    proposer: str | Callable[[ProposerRequest], Proposer] = "drafter"
    draft_length: int | Callable[[], DraftLength] = 2
    max_new_tokens: int = 3
    eos: frozenset[int] = frozenset()
    min_new_tokens: int = 0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    target: TableLM = field(default_factory=lambda: TableLM(1, 3))
    drafter: TableLM = field(default_factory=lambda: TableLM(2, 3))
    target_prompt: tuple[int, ...] = (0, 1, 0, 0, 1)  # repeats itself; token 2 is unseen (for the penalty)
    drafter_prompt: tuple[int, ...] = (2, 0, 1)
    draft_lm: TableLM | None = None  # proposer "draft_lm" has one of its own
    vocab_size: int = 3
    allowed_after: Callable[[tuple[int, ...]], Collection[int]] | None = None
    observer: Callable[[Law, Penalties, Drafter], Observer] | None = None

    def run(self, rng: Randomness) -> ToyRun:
        """Decode with the real parts, put together as the engine does it."""
        penalty = Penalties(
            self.repetition_penalty,
            self.target_prompt,
            self.vocab_size,
            self.target.device,
            frequency=self.frequency_penalty,
            presence=self.presence_penalty,
            ends=self.eos,
            least=self.min_new_tokens,
        )
        target = Reader(self.target, self.target_prompt, len(self.target_prompt) + self.max_new_tokens)
        drafter = Reader(self.drafter, self.drafter_prompt, len(self.drafter_prompt) + self.max_new_tokens)
        for reader in (target, drafter):
            run_alone(reader.prefill())
        constraint = None if self.allowed_after is None else ScriptedConstraint(self.allowed_after, self.vocab_size)
        rules = Rules(self.law, self.vocab_size, penalty, self.eos, constraint)
        scorer = self.scorer(drafter, rules)
        small = self.draft_lm or (TableLM(3, self.vocab_size) if self.proposer == "draft_lm" else None)
        draft_lm = None
        if small is not None:
            reader = Reader(small, self.drafter_prompt, len(self.drafter_prompt) + self.max_new_tokens)
            draft_lm = Drafter(reader, rules)
        length = self.draft_length
        lengths = DraftLengths(length, length) if callable(length) else DraftLengths.fixed(length)
        asked = ProposerRequest(
            self.target_prompt, self.drafter_prompt, rules, lengths, scorer, draft_lm, target=target
        )
        if isinstance(self.proposer, str):
            proposer: Proposer = proposer_class(self.proposer).from_request(asked)
        else:
            proposer = AsLongAs(self.proposer(asked), lengths.of_drafts())
        recorder = Recorder(self.target.device)
        taken: list[Taken] = []
        run_alone(
            decode(
                target=target,
                proposer=proposer,
                scorer=scorer if self.law.needs_drafter else None,
                rules=rules,
                stopping=Stopping(self.eos, self.max_new_tokens, TextStream(self._decode, self.stop)),
                rng=rng,
                recorder=recorder,
                emit=taken.append,
                observer=None if self.observer is None else self.observer(self.law, penalty, scorer),
            )
        )
        tokens = tuple(token for part in taken for token in part.token_ids)
        return ToyRun(tokens, "".join(part.text for part in taken), taken[-1].finish_reason, recorder, target, drafter)

    def scorer(self, reader: Reader, rules: Rules) -> Drafter:
        """Return the drafter; a subclass may have one of another kind."""
        return Drafter(reader, rules)

    def tokens(self, rng: Randomness) -> tuple[int, ...]:
        """Decode and return the output only."""
        return self.run(rng).tokens

    def law_after(self, output: tuple[int, ...], law: Law | None = None) -> list[float]:
        """Return the law behind `output`, recomputed from both whole texts."""
        seen = {*self.target_prompt, *output}
        z, drafter_logits = (
            lowered(
                penalised(model.logits_after((*prompt, *output))[: self.vocab_size], seen, self.repetition_penalty),
                output,
                self.frequency_penalty,
                self.presence_penalty,
            )
            for model, prompt in ((self.target, self.target_prompt), (self.drafter, self.drafter_prompt))
        )
        if len(output) < self.min_new_tokens:
            z, drafter_logits = (without(logits, self.eos) for logits in (z, drafter_logits))
        allowed = None if self.allowed_after is None else self.allowed_after(output)
        return reference_law(z, drafter_logits, law or self.law, allowed)

    def expected(self, law: Law | None = None) -> dict[tuple[int, ...], float]:
        """Return the law of the whole output (of `law` in place of the request's own)."""
        return joint_law(lambda output: self.law_after(output, law), self.max_new_tokens, self.eos)

    def best(self) -> tuple[int, ...]:
        """Return the greedy output."""
        output: tuple[int, ...] = ()
        while len(output) < self.max_new_tokens and not (output and output[-1] in self.eos):
            law = self.law_after(output)
            output = (*output, law.index(max(law)))
        return output

    @staticmethod
    def _decode(token_ids) -> str:
        return "".join(LETTERS[token] for token in token_ids)
