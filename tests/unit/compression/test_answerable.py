"""The probability that the documents answer a question: its signs, and a compressor that measures one of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations import CompressionConfig
from rapid_integrations.compression import Compressor, answerable
from tests.toys.embedder import HashEmbedder
from tests.toys.models import words

SHARES = st.floats(0.0, 1.0)
SMALL = CompressionConfig(chunk_tokens=16, min_tokens=16, min_chunks=1)


class Letters:
    def offsets(self, text):
        return [(at, at + 1) for at in range(len(text))]


@given(SHARES, SHARES, st.none() | st.floats(-3.0, 3.0))
def test_it_is_a_probability_and_rises_with_each_sign(presence, other, similarity):
    low, high = sorted((presence, other))
    assert 0.0 <= answerable(low, similarity) <= answerable(high, similarity) <= 1.0
    if similarity is not None:
        assert answerable(low, similarity) <= answerable(low, similarity + 0.5)


def test_a_document_that_has_neither_words_nor_passages_is_clearly_told_from_one_that_has_both():
    assert answerable(1.0, 2.0) > 0.75 and answerable(0.2, 0.8) < 0.05
    assert answerable(1.0, None) > 0.8 and answerable(0.0, None) < 0.1


def compressor(embedder):
    return Compressor(embedder, Letters())


def test_similarity_is_that_of_the_best_chunk_over_the_threshold():
    embedder = HashEmbedder()
    text = words(1, 60)
    made = compressor(embedder)
    whole = made.compress([text], text[:16], CompressionConfig(chunk_tokens=512, min_tokens=10_000))
    assert not whole.shortened and whole.similarity is None
    short = made.compress([text], text[:16], SMALL)
    assert short.shortened
    if embedder.threshold > 0:
        best = max(each.score for of_context in short.selected for each in of_context)
        assert short.similarity == pytest.approx(best / embedder.threshold)
    assert made.similarity([text], text[:16], SMALL) == short.similarity


def test_without_vectors_it_is_unknown():
    words_only = SMALL.model_copy(update={"search": "words"})
    assert compressor(None).similarity(["a text"], "text", words_only) is None
    assert compressor(HashEmbedder()).similarity([" "], "text", SMALL) is None
