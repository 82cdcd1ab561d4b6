"""Prompt lookup against a search that is written down plainly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.decoding.draft_length import FixedDraftLength
from rapid_integrations.proposers.prompt_lookup import MAX_NGRAM, PromptLookup
from rapid_integrations.sampling import Randomness

ANY_LENGTH = FixedDraftLength(64)

TOKENS = st.lists(st.integers(0, 3), max_size=30)


def plain_search(sources, tail, max_tokens, min_ngram):
    for length in range(MAX_NGRAM, min_ngram - 1, -1):
        gram = tail[-length:]
        if len(gram) < length:
            continue
        for source in sources:
            ends = [end for end in range(length, len(source)) if source[end - length : end] == gram]
            if ends:
                return tuple(source[ends[-1] : ends[-1] + max_tokens])
    return ()


@given(TOKENS, TOKENS, TOKENS, TOKENS, st.integers(0, 6), st.integers(2, 4))
def test_the_longest_match_in_the_best_source(first, second, prompt, output, max_tokens, min_ngram):
    lookup = PromptLookup([first, second], prompt, frozenset(), ANY_LENGTH, min_ngram)
    for token in output:
        lookup.commit([token])
    tail = (prompt + output)[-MAX_NGRAM:]
    assert lookup.find(max_tokens) == plain_search([first, output, second], tail, max_tokens, min_ngram)[:max_tokens]


def test_a_proposal_ends_with_the_first_end_token():
    lookup = PromptLookup([[1, 2, 3, 9, 4]], [1, 2], frozenset({9}), ANY_LENGTH)
    proposal = lookup.propose(8, Randomness(0))
    assert proposal.token_ids == (3, 9) and proposal.probs is None


@pytest.mark.parametrize("source", [[], [1], [1, 2]])
def test_nothing_to_copy(source):
    assert PromptLookup([source], [1, 2], frozenset(), ANY_LENGTH).find(4) == ()
