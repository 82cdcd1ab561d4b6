"""The claim of `verify_tree`: whatever a tree proposes, the output follows the law. Every outcome is enumerated."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.proposers.suite.every_outcome import EnumeratedRandomness, enumerate_outcomes
from rapid_integrations.proposers.suite.table_model import TableLM
from rapid_integrations.sampling import Law, TreeVerdict, verify, verify_tree
from rapid_integrations.sampling.trees import children_of, first_chain, path_to, renumbered, without
from tests.toys.budget import examples
from tests.toys.distributions import largest_difference, total_variation
from tests.toys.reference_law import joint_law, reference_law
from tests.toys.trees import filled, ranked, shapes, without_replacement
from tests.unit.sampling.strategies import distributions

V = 3
TARGET, DRAFTER = TableLM(1, V), TableLM(2, V)
PROMPT = (0, 2)

LAWS = [
    Law("target", temperature=1.0),
    Law("target", temperature=0.7, top_p=0.8),
    Law("augmented", temperature=1.0, eta=5.0),
    Law("augmented", temperature=0.7, eta=20.0, tail_rule="restore", top_k=2),
    Law("augmented", temperature=0.0, eta=10.0),
]


@functools.cache
def logits(model, text):
    return torch.tensor(model.logits_after((*PROMPT, *text)))


@functools.cache
def law_after(law, text):
    return law.form(logits(TARGET, text), logits(DRAFTER, text) if law.needs_drafter else None)


@functools.cache
def q_after(text):
    return torch.softmax(logits(DRAFTER, text), -1)


def best_first(text, siblings, rng):
    """Point masses: the drafter's best tokens."""
    return ranked(q_after(text).tolist())[len(siblings) % V], None


def worst_first(text, siblings, rng):
    return ranked(q_after(text).tolist())[-1 - len(siblings) % V], None


def the_same_again(text, siblings, rng):
    """Point masses of one token, which is the same for all siblings."""
    return (len(text) + sum(text)) % V, None


def from_the_drafter(text, siblings, rng):
    q = q_after(text)
    return rng.draw(q), q


def without_replacing(text, siblings, rng):
    q = without_replacement(q_after(text), siblings)
    return rng.draw(q), q


def from_few(text, siblings, rng):
    row = torch.tensor([0.75, 0.0, 0.25])
    return rng.draw(row), row


def drawn_then_certain(text, siblings, rng):
    """The first sibling is drawn; the next ones are certain, and depend on what was drawn."""
    if not siblings:
        return from_the_drafter(text, siblings, rng)
    return (siblings[-1] + 1) % V, None


def certain_then_drawn(text, siblings, rng):
    return from_the_drafter(text, siblings, rng) if siblings else best_first(text, siblings, rng)


def outcomes(law, parents, draw, length):
    def run(rng):
        tokens, rows = filled(parents, draw, rng)

        def law_at(place):
            return law_after(law, tuple(tokens[each] for each in path_to(parents, place - 1)))

        verdict = verify_tree(tokens, parents, rows, law_at, rng)
        text = tuple(tokens[each] for each in verdict.path)
        if verdict.correction is not None:
            text = (*text, verdict.correction)
        while len(text) < length:
            text = (*text, rng.draw(law_after(law, text)))
        return text

    return enumerate_outcomes(run)


@functools.cache
def expected(law, length):
    def after(text):
        return reference_law(*(model.logits_after((*PROMPT, *text)) for model in (TARGET, DRAFTER)), law)

    return joint_law(after, length)


def depth_of(parents):
    return max(len(path_to(parents, token)) for token in range(len(parents)))


ALL = list(shapes(3, 3))


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("draw", [best_first, worst_first, the_same_again], ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_a_tree_of_certain_tokens_follows_the_law(law, draw):
    for parents in ALL[::17]:
        length = depth_of(parents) + 1
        assert largest_difference(outcomes(law, parents, draw, length), expected(law, length)) < 1e-6, parents


@pytest.mark.slow
@pytest.mark.parametrize("draw", [best_first, worst_first, the_same_again], ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_every_tree_of_three_tokens_on_three_levels_follows_the_law(law, draw):
    for parents in ALL:
        length = depth_of(parents) + 1
        assert largest_difference(outcomes(law, parents, draw, length), expected(law, length)) < 1e-6, parents


DRAWN = [from_the_drafter, without_replacing, from_few, drawn_then_certain, certain_then_drawn]
SMALL = [(-1,), (-1, -1), (-1, -1, -1), (-1, 0), (-1, -1, 0), (-1, -1, 1), (-1, -1, 0, 1)]
LARGER = [(-1, -1, 0, 0, 1), (-1, 0, 0, 1, 2), (-1, -1, -1, 0, 0, 1)]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("draw", DRAWN, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_a_tree_of_drawn_tokens_follows_the_law(law, draw):
    for parents in SMALL:
        length = depth_of(parents) + 1
        assert largest_difference(outcomes(law, parents, draw, length), expected(law, length)) < 1e-6, parents


@pytest.mark.slow
@pytest.mark.parametrize("parents", LARGER, ids=str)
@pytest.mark.parametrize("draw", DRAWN, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_a_larger_tree_of_drawn_tokens_follows_the_law(law, draw, parents):
    length = depth_of(parents) + 1
    assert largest_difference(outcomes(law, parents, draw, length), expected(law, length)) < 1e-6


def test_the_enumeration_rejects_siblings_that_are_tried_against_the_whole_law():
    """Without the residual, a second try makes what is proposed too likely."""
    law = law_after(LAWS[0], ())

    def run(rng):
        for token in (0, 1):
            if verify((token,), None, lambda at: law, rng).accepted:
                return (token,)
        return (rng.draw(law),)

    assert total_variation(enumerate_outcomes(run), {(x,): float(law[x]) for x in range(V)}) > 0.01


def test_more_siblings_are_accepted_more_often():
    law = LAWS[0]

    def accepted(count):
        def run(rng):
            tokens, rows = filled((-1,) * count, best_first, rng)
            return bool(verify_tree(tokens, (-1,) * count, rows, lambda at: law_after(law, ()), rng).path)

        return enumerate_outcomes(run).get(True, 0.0)

    found = [accepted(count) for count in (1, 2, 3)]
    assert found[0] < found[1] < found[2] == pytest.approx(1.0)


def test_a_greedy_tree_leaves_nothing_to_chance():
    # 0 -> 2 is the best continuation of two tokens; it is proposed in the second branch.
    tokens, parents = (1, 0, 1, 2), (-1, -1, 1, 1)
    best = {0: 0, 2: 2, 4: 1}
    asked = []

    def law_at(place):
        asked.append(place)
        return torch.eye(V)[best[place]]

    rng = EnumeratedRandomness()
    assert verify_tree(tokens, parents, None, law_at, rng) == TreeVerdict((1, 3), None)
    assert rng.probability == 1.0 and asked == [0, 2]  # no law is formed where nothing was proposed
    best[2] = 0
    assert verify_tree(tokens, parents, None, law_at, rng) == TreeVerdict((1,), 0)


@settings(max_examples=examples(50))
@given(law=distributions(), rows=st.lists(distributions(), min_size=1, max_size=3))
def test_siblings_from_any_distributions(law, rows):
    def run(rng):
        tokens = [rng.draw(row) for row in rows]
        verdict = verify_tree(tokens, (-1,) * len(rows), rows, lambda at: law, rng)
        return tokens[verdict.path[0]] if verdict.path else verdict.correction

    found = enumerate_outcomes(run)
    assert largest_difference(found, dict(enumerate(law.tolist()))) < 1e-5


def test_parts_of_a_tree():
    parents = (-1, 0, 0, -1, 2, 4)
    assert path_to(parents, 5) == [0, 2, 4, 5] and path_to(parents, -1) == []
    assert children_of(parents, -1) == [0, 3] and children_of(parents, 5) == []
    assert first_chain(parents) == [0, 1] and first_chain(()) == []
    left = without(parents, lambda token: token == 2)
    assert left == [0, 1, 3] and renumbered(parents, left) == (-1, 0, -1)
