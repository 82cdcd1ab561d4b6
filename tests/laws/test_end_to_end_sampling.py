"""The real loop and the real randomness, sampled: the enumeration cannot see how numbers become decisions."""

from collections import Counter

import pytest

from rapid_integrations.sampling import Law, Randomness
from tests.toys.budget import examples
from tests.toys.distributions import chi_square_p_value
from tests.toys.requests import ToyRequest

RUNS = max(1000, examples(2000))  # a thousand tell eta 4 from 5 at 7e-9
ALPHA = 1e-4

LAW = Law("augmented", temperature=1.0, eta=5.0)


def sampled(request: ToyRequest) -> Counter[tuple[int, ...]]:
    return Counter(request.tokens(Randomness(seed)) for seed in range(RUNS))


@pytest.mark.parametrize(
    ("law", "proposer"),
    [(LAW, "drafter"), (Law("target", temperature=0.7, top_p=0.9), "drafter"), (LAW, "prompt_lookup")],
    ids=["augmented-drafter", "target-drafter", "augmented-prompt_lookup"],
)
def test_sampled_output_follows_the_law(law, proposer):
    toy = ToyRequest(law, proposer, eos=frozenset({2}), repetition_penalty=1.2)
    assert chi_square_p_value(sampled(toy), toy.expected()) > ALPHA


def test_the_test_can_tell_one_law_from_another():
    counts = sampled(ToyRequest(LAW))
    for other in (Law("target", temperature=1.0), Law("augmented", temperature=1.0, eta=4.0)):
        assert chi_square_p_value(counts, ToyRequest(LAW).expected(other)) < ALPHA


@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "none"])
def test_a_seed_repeats_the_output(proposer):
    toy = ToyRequest(LAW, proposer, max_new_tokens=30)
    outputs = [toy.tokens(Randomness(seed)) for seed in (1, 2, 1)]
    assert outputs[0] == outputs[2] != outputs[1]
