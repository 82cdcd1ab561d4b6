from rapid_integrations.cache import indexed_texts
from rapid_integrations.cache.indexed_texts import IndexedTexts
from tests.toys.token_cache import text

DOCUMENT = text(1, 3000)


def test_a_document_is_indexed_once():
    texts = IndexedTexts()
    first, shared = texts.of(DOCUMENT + [1, 2, 3])
    assert shared == len(DOCUMENT) + 3
    again, shared = texts.of(DOCUMENT + [4, 5])
    assert again is first and shared == len(DOCUMENT)
    assert texts.of(DOCUMENT + [1, 2, 3]) == (first, len(DOCUMENT) + 3)


def test_another_document_and_a_long_rest_are_indexed_anew():
    texts = IndexedTexts()
    first, _ = texts.of(DOCUMENT)
    for other in (text(2, 3000), DOCUMENT + text(3, 2000)):
        found, shared = texts.of(other)
        assert found is not first and shared == found.index.size == len(other)
    assert texts.of(DOCUMENT)[0] is first
    assert texts.of(DOCUMENT[:100])[1] == 100


def test_the_least_recently_used_ones_are_forgotten(monkeypatch):
    monkeypatch.setattr(indexed_texts, "MOST_TOKENS", 7000)
    texts = IndexedTexts()
    first, second = texts.of(DOCUMENT)[0], texts.of(text(2, 3000))[0]
    assert texts.of(DOCUMENT)[0] is first
    texts.of(text(3, 3000))
    assert texts.of(DOCUMENT)[0] is first
    assert texts.of(text(2, 3000))[0] is not second
    texts.clear()
    assert texts.of(DOCUMENT)[0] is not first
