"""With several drafters the output follows p_hat whose q is the weighted mean of theirs, whoever proposes."""

import math
from dataclasses import dataclass

import pytest

from rapid_integrations.decoding.drafter import Drafter
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.decoding.several_drafters import SeveralDrafters
from rapid_integrations.proposers.suite.table_model import SharedTableLM, TableLM
from rapid_integrations.sampling import Law
from tests.toys.distributions import largest_difference
from tests.toys.enumerated_requests import TOLERANCE, outcomes
from tests.toys.reference_law import penalised, reference_law, softmax
from tests.toys.requests import ToyRequest
from tests.toys.trees import Branching


@dataclass
class Several(ToyRequest):
    """A request with further drafters, whose law is computed slowly from the texts."""

    more: tuple[TableLM, ...] = ()
    weights: tuple[float, ...] = (0.5, 0.5)

    def scorer(self, reader, rules):
        members = [Drafter(reader, rules)]
        for model in self.more:
            other = Reader(model, self.drafter_prompt, len(self.drafter_prompt) + self.max_new_tokens)
            run_alone(other.prefill())
            members.append(Drafter(other, rules))
        return SeveralDrafters(members, self.weights, rules)

    def law_after(self, output, law=None):
        law = law or self.law
        temperature = law.temperature or 1.0
        seen = {*self.target_prompt, *output}

        def logits(model, prompt):
            found = model.logits_after((*prompt, *output))[: self.vocab_size]
            return penalised(found, seen, self.repetition_penalty)

        qs = [
            softmax([x / temperature for x in logits(model, self.drafter_prompt)])
            for model in (self.drafter, *self.more)
        ]
        mean = [sum(w * q[token] for w, q in zip(self.weights, qs, strict=True)) for token in range(self.vocab_size)]
        z = logits(self.target, self.target_prompt)
        return reference_law(z, [temperature * math.log(x) for x in mean], law, None)


def certain(text, siblings, rng):
    return (sum(text) + len(text) + len(siblings)) % 3, None


def tree(asked):
    return Branching(certain, (-1, -1, 0, 1))


@pytest.mark.pairs
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("proposer", ["none", "drafter", "hybrid", tree])
@pytest.mark.parametrize(
    ("law", "weights", "penalty"),
    [
        (Law("augmented", temperature=1.0, eta=5.0), (0.7, 0.3), 1.4),
        (Law("augmented", temperature=0.7, eta="auto", top_p=0.8, tail_rule="restore"), (0.2, 0.5, 0.3), 1.0),
    ],
)
def test_the_output_follows_the_law(law, weights, penalty, proposer, shared):
    target = SharedTableLM(1, 3) if shared else TableLM(1, 3, padding=2)
    drafters = [TableLM(2, 3, padding=1), target if shared else TableLM(4, 3), TableLM(5, 3)][: len(weights)]
    asked = Several(
        law,
        proposer,
        max_new_tokens=3,
        repetition_penalty=penalty,
        target=target,
        drafter=drafters[0],
        more=tuple(drafters[1:]),
        weights=weights,
    )
    assert largest_difference(outcomes(asked), asked.expected()) < TOLERANCE


@pytest.mark.parametrize("proposer", ["none", "drafter", "prompt_lookup", tree])
def test_greedy_answers(proposer):
    for seed in range(8):
        models = [TableLM(10 * seed + number, 3) for number in range(3)]
        law = Law("augmented", eta=5.0)
        asked = Several(law, proposer, 3, 10, target=models[0], drafter=models[1], more=(models[2], models[0]))
        asked.weights = (0.5, 0.3, 0.2)
        assert list(outcomes(asked)) == [asked.best()]


def test_a_drafter_with_the_targets_weights_reads_in_its_pass():
    target, other = SharedTableLM(1, 3), TableLM(2, 3)
    asked = Several(Law("augmented", eta=5.0), "prompt_lookup", 2, 6, target=target, drafter=other, more=(target,))
    list(outcomes(asked))
    decoding = [each for each in target.passes if isinstance(each[0], tuple)]
    assert decoding and all(len(each) == 2 for each in decoding)
    assert len(other.passes) == 1 + len(decoding)  # its prompt, and one pass for each of the target's
