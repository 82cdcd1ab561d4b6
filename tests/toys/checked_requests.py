"""Requests over real models whose caches are compared with a fresh prefill after every round."""

import functools
from dataclasses import dataclass, field

import torch

from rapid_integrations.cache import Rows
from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.loop import decode
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.proposal import NoProposer
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.decoding.stopping import Stopping
from rapid_integrations.decoding.text_stream import TextStream
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.proposers.drafter import DrafterProposer
from rapid_integrations.sampling import Law, Penalties, Randomness
from tests.toys.models import VOCAB_SIZE, tiny_model
from tests.toys.requests import AsLongAs

TOLERANCE = 1e-4  # on keys and values of size 1 to 10, float32
NEW = 20


@functools.cache
def lm(kind, seed):
    return HuggingFaceLM(tiny_model(kind, seed))


def random_ids(seed, count):
    return torch.randint(0, VOCAB_SIZE, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def letters(token_ids):
    """A detokeniser with a character of its own for each token."""
    return "".join(chr(0x4E00 + token) for token in token_ids)


def assert_fresh(sequence):
    """Compare the cache with a prefill, in one piece, of as many committed tokens as it holds."""
    held = sequence.cache.length
    assert held < len(sequence.tokens)
    if held == 0:  # a prompt of one token, not read yet
        return
    fresh = sequence.model.new_cache(held)
    sequence.model.forward([Rows(torch.tensor(sequence.tokens[:held]), fresh, 0)])
    for layer in range(fresh.layers):
        for rows, wanted in zip(sequence.cache.layer(layer), fresh.layer(layer), strict=True):
            torch.testing.assert_close(rows, wanted, rtol=0, atol=TOLERANCE)


class Lengths:
    """A draft length for each round."""

    def __init__(self, lengths):
        self.lengths, self.round = lengths, 0

    speed = None

    def next(self):
        self.round += 1
        return self.lengths[(self.round - 1) % len(self.lengths)]

    def observe(self, costs):
        pass


@dataclass
class Setting:
    """A request: two models, their prompts and the law."""

    kind: str = "llama"
    drafter: str = "llama"
    prompt: int = 40
    law: Law = field(default_factory=lambda: Law("target"))
    new: int = NEW
    eos: frozenset = frozenset()
    stop: tuple = ()

    def run(self, proposer, lengths, seed=0):
        """Decode, checking both caches after every round; return the output, the rounds and the two sequences."""
        prompts = random_ids(self.prompt, self.prompt), random_ids(self.prompt + 1, 1 + self.prompt // 3)
        models = lm(self.kind, 1), lm(self.drafter, 2)
        target, drafter = (Reader(model, ids, len(ids) + self.new) for model, ids in zip(models, prompts, strict=True))
        for reader in (target, drafter):
            run_alone(reader.prefill())
        penalty = Penalties(1.0, prompts[0], VOCAB_SIZE)
        rules = Rules(self.law, VOCAB_SIZE, penalty, self.eos)
        scorer = Drafter(drafter, rules)
        if proposer is None:
            guessing = DrafterProposer(scorer, Lengths(lengths))
        else:
            guessing = AsLongAs(proposer, Lengths(lengths))
        rounds = []
        output = []

        def look(taken):
            output.extend(taken.token_ids)
            rounds.append(taken)
            assert target.tokens == prompts[0] + output
            assert target.cache.length == len(target.tokens) - 1  # the next round needs the logits behind the last
            used = proposer is None or self.law.needs_drafter
            assert drafter.tokens == prompts[1] + (output if used else [])
            assert_fresh(target)
            assert_fresh(drafter)

        run_alone(
            decode(
                target=target,
                proposer=guessing,
                scorer=scorer if self.law.needs_drafter else None,
                rules=rules,
                stopping=Stopping(self.eos, self.new, TextStream(letters, self.stop)),
                rng=Randomness(seed),
                recorder=Recorder(torch.device("cpu")),
                emit=look,
            )
        )
        return output, rounds, target, drafter

    @functools.cached_property
    def expected(self):
        """The greedy output, one token at a time."""
        return self.run(NoProposer(), [1])[0]


LAWS = {
    "target": Law("target"),
    "augmented": Law("augmented", eta=20.0),
    "sampled target": Law("target", temperature=0.9, top_k=50),
    "sampled augmented": Law("augmented", temperature=0.7, eta=5.0, tail_rule="restore"),
    "paper": Law("paper", temperature=1.0),
}
