"""What a tree of copies proposes, and that the output follows the law with it."""

import pytest

from rapid_integrations.cache.growing_text import GrowingText
from rapid_integrations.cache.indexed_texts import IndexedTexts
from rapid_integrations.cache.suffix_index import SuffixIndex
from rapid_integrations.decoding.draft_lengths import DraftLengths
from rapid_integrations.decoding.proposal import ProposerRequest
from rapid_integrations.decoding.rules import Rules
from rapid_integrations.decoding.tree_shape import FixedShape
from rapid_integrations.proposers.retrieval_tree import IndexedSource, RetrievalTree
from rapid_integrations.proposers.suite.table_model import TableLM
from rapid_integrations.sampling import Law, Penalties, Randomness
from tests.toys.enumerated_requests import AUGMENTED_LAW, TARGET_LAW, TOLERANCE, deviation
from tests.toys.requests import ToyRequest

#           the same two words (1, 2) go on in three ways, one of them twice
DOCUMENT = [1, 2, 3, 4, 0, 1, 2, 3, 5, 0, 1, 2, 6, 7, 0, 9, 1, 2, 8]


def over(document, tail, length=3, eos=frozenset()):
    return RetrievalTree([IndexedSource(SuffixIndex.build(document))], GrowingText(), tail, eos, FixedShape(length))


def paths(proposal):
    found = []
    for index in range(len(proposal.token_ids)):
        path, at = [], index
        while at >= 0:
            path.insert(0, proposal.token_ids[at])
            at = proposal.parents[at]
        found.append(tuple(path))
    return found


def test_several_continuations_the_likeliest_first():
    proposal = over(DOCUMENT, [5, 1, 2]).propose(2, Randomness(0))
    assert paths(proposal)[0] == (3,)
    assert set(paths(proposal)) == {(3,), (3, 4), (3, 5), (6,), (6, 7), (8,)}
    assert proposal.probs is None and proposal.source == "retrieval_tree"


def test_no_path_is_longer_than_what_is_wanted_and_nothing_follows_the_end():
    assert set(paths(over(DOCUMENT, [1, 2]).propose(1, Randomness(0)))) == {(3,), (6,), (8,)}
    assert over(DOCUMENT, [1, 2]).propose(0, Randomness(0)).token_ids == ()
    assert over(DOCUMENT, [7, 7]).propose(4, Randomness(0)).token_ids == ()
    ended = over(DOCUMENT, [1, 2], eos=frozenset({3})).propose(3, Randomness(0))
    assert (3,) in paths(ended) and not any(each[:1] == (3,) and len(each) > 1 for each in paths(ended))


def asked(prompt, texts, retrieved=(1, 2, 6)):
    rules = Rules(Law("target"), 10, Penalties(1.0, (), 10))
    return ProposerRequest(prompt, list(retrieved), rules, DraftLengths.fixed(4), texts=texts)


def test_the_answer_and_earlier_answers_are_copied_from():
    texts = IndexedTexts()
    document = [each % 97 for each in range(300)] + DOCUMENT
    first = RetrievalTree.from_request(asked(document + [7, 7], texts))
    first.commit([40, 80, 41])
    first.commit([40, 80])
    assert (41,) in paths(first.propose(4, Randomness(0)))
    second = RetrievalTree.from_request(asked(document + [5, 5], texts))
    second.commit([40, 80])
    assert (41,) in paths(second.propose(4, Randomness(0)))
    # What the first question said is no part of the second prompt.
    third = RetrievalTree.from_request(asked(document + [3, 3, 8, 9], texts))
    third.commit([7, 7])
    assert not third.propose(4, Randomness(0)).token_ids


def test_the_retrieved_text_counts_more():
    texts = IndexedTexts()
    prompt = [0, 50, 51, 60, 0, 50, 51, 61, 0]
    for retrieved, first in (([0, 50, 51, 60], 60), ([0, 50, 51, 61], 61)):
        proposer = RetrievalTree.from_request(asked(prompt, texts, retrieved))
        proposer.commit([50, 51])
        assert proposer.propose(1, Randomness(0)).token_ids[0] == first


@pytest.mark.parametrize("proposer", ["retrieval_tree", "tree_hybrid"])
@pytest.mark.parametrize("law", [TARGET_LAW, AUGMENTED_LAW, Law("augmented", eta=3.0)], ids=repr)
def test_the_output_follows_the_law(law, proposer):
    toy = ToyRequest(
        law,
        proposer,
        2,
        max_new_tokens=4,
        repetition_penalty=1.2,
        eos=frozenset({2}),
        target_prompt=(0, 1, 0, 0, 1, 2, 0, 1, 1, 0, 1),
        target=TableLM(1, 3, padding=1),
    )
    assert deviation(toy) < TOLERANCE
