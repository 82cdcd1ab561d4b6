"""The claim of the decoding loop for trees: the output follows the law, and the caches hold the text alone."""

import pytest
import torch

from rapid_integrations.proposers.suite.table_model import SharedTableLM, TableLM
from rapid_integrations.sampling import Law
from tests.toys.checked_requests import LAWS, Setting
from tests.toys.constraint import hashed
from tests.toys.distributions import largest_difference
from tests.toys.enumerated_requests import AUGMENTED_LAW, SETTINGS, TARGET_LAW, TOLERANCE, deviation, outcomes, request
from tests.toys.models import VOCAB_SIZE
from tests.toys.requests import ToyRequest
from tests.toys.trees import Branching, shapes, without_replacement

PAIR, FORKED, BUSHY = (-1, -1), (-1, -1, 0), (-1, -1, 0, 1, 1, 3)
THREE = (-1, -1, -1, 0, 0, 1, 3, 4, 5)


def certain(text, siblings, rng):
    return (sum(text) + len(text) + len(siblings)) % 3, None


def drawn(text, siblings, rng):
    q = without_replacement(torch.tensor([0.5, 0.2, 0.3]), siblings)
    return rng.draw(q), q


def mixed(text, siblings, rng):
    return certain(text, siblings, rng) if siblings else drawn(text, siblings, rng)


def branching(draw, *parents):
    return lambda asked: Branching(draw, *parents)


CASES = [
    pytest.param(draw, parents, tokens, settings, marks=() if index in quick else pytest.mark.slow)
    for draw, parents, tokens, quick in [
        (certain, BUSHY, 4, (0, 2, 3, 5, 6)),
        (certain, THREE, 4, (1, 7)),
        (drawn, FORKED, 3, (4, 6)),
        (mixed, FORKED, 3, (2, 5)),
    ]
    for index, settings in enumerate(SETTINGS)
]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(("draw", "parents", "tokens", "settings"), CASES)
@pytest.mark.parametrize("kind", ["target", "augmented"])
def test_the_output_follows_the_law(kind, draw, parents, tokens, settings):
    toy = request(kind, settings, proposer=branching(draw, parents), draft_length=3, max_new_tokens=tokens)
    assert deviation(toy) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("law", [TARGET_LAW, AUGMENTED_LAW, Law("augmented", eta=5.0)], ids=repr)
def test_every_tree_of_three_tokens_on_three_levels(law):
    for parents in shapes(3, 3):
        toy = ToyRequest(law, branching(certain, parents), 3, max_new_tokens=4)
        assert deviation(toy) < TOLERANCE, parents


def test_trees_and_chains_take_turns():
    toy = ToyRequest(AUGMENTED_LAW, branching(certain, PAIR, (), (-1, 0), BUSHY), 3, max_new_tokens=4)
    assert deviation(toy) < TOLERANCE


@pytest.mark.parametrize("draw", [certain, drawn, mixed], ids=lambda draw: draw.__name__)
def test_within_a_constraint(draw):
    toy = ToyRequest(AUGMENTED_LAW, branching(draw, FORKED), 3, max_new_tokens=3, allowed_after=hashed(5, 3))
    assert deviation(toy) < TOLERANCE


@pytest.mark.parametrize("law", [TARGET_LAW, AUGMENTED_LAW], ids=lambda law: law.kind)
def test_target_and_drafter_read_a_tree_in_one_pass(law):
    model = SharedTableLM(7, 3)
    toy = ToyRequest(law, branching(certain, BUSHY), 3, max_new_tokens=4, target=model, drafter=model)
    assert deviation(toy) < TOLERANCE
    if law.needs_drafter:
        assert ((7, 7), (7, 7)) in [tuple(each) for each in model.passes]


class ChainLM(TableLM):
    reads_trees = False

    def read_tree(self, rows):
        raise AssertionError("a tree was read")


@pytest.mark.once
@pytest.mark.parametrize("reader", ["target", "drafter"])
@pytest.mark.parametrize("draw", [certain, drawn])
def test_a_model_that_reads_no_trees_gets_the_first_chain(draw, reader):
    toy = ToyRequest(AUGMENTED_LAW, branching(draw, FORKED), 3, **{reader: ChainLM(1, 3)})
    assert deviation(toy) < TOLERANCE


def test_the_same_output_as_one_token_at_a_time():
    for law in (TARGET_LAW, AUGMENTED_LAW):
        plain = outcomes(ToyRequest(law, "none", max_new_tokens=4))
        tree = outcomes(ToyRequest(law, branching(certain, THREE), 3, max_new_tokens=4))
        assert largest_difference(plain, tree) < TOLERANCE


# --- caches of real models ------------------------------------------------------------


def near(expected, goods):
    """Return a way to fill trees: one child of each right token is right, the others are not."""

    def draw(text, siblings, rng):
        known = expected[len(text)] if len(text) < len(expected) else 0
        place = goods[len(text) % len(goods)]
        return (known + len(siblings) - place) % VOCAB_SIZE, None

    return draw


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("law", sorted(set(LAWS) - {"paper"}))
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral"])
def test_after_every_round_each_cache_is_what_a_fresh_prefill_makes(kind, law):
    setting = Setting(kind, "llama", 37, LAWS[law])
    expected = list(setting.expected)
    proposer = Branching(near(expected, [1, 0, 2, 3, 1]), BUSHY, THREE, (-1, 0, 1, 2))
    output, rounds, *_ = setting.run(proposer, [5])
    if setting.law.greedy:
        assert output == expected and len(rounds) < 0.8 * len(expected)
