"""What was retrieved elsewhere, found again in a context: nothing lost, nothing twice, scores kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rapid_integrations.compression.compressor as compressor_module
from rapid_integrations import CompressionConfig, ConfigurationError
from rapid_integrations.compression import Compressor, EmbeddingCache, Passage, PassageCompressor
from rapid_integrations.compression.passages import chunks_of_passages, coverage, cut_at, locate
from tests.toys.embedder import HashEmbedder
from tests.toys.models import words
from tests.toys.offsets import WordTokenizer

PARTS = [words(seed, 40) for seed in range(8)]
CONTEXT = "\n\n".join(PARTS)
SMALL = CompressionConfig(chunk_tokens=40, min_tokens=60, min_chunks=1)
TOKENIZER = WordTokenizer()


def passages(*scores):
    return [Passage(part, score) for part, score in zip(PARTS, scores, strict=True)]


def fallback():
    return Compressor(HashEmbedder(), TOKENIZER, EmbeddingCache())


@given(
    st.lists(st.text(alphabet="ab \n", min_size=1, max_size=8), min_size=1, max_size=6),
    st.text(alphabet="ab \n", max_size=60),
)
def test_chunks_tile_the_context_whatever_was_found(texts, context):
    located = locate(context, [Passage(text, float(rank)) for rank, text in enumerate(texts)])
    chunks = [chunk for chunk, _ in chunks_of_passages(context, located, TOKENIZER)]
    assert "".join(chunk.text for chunk in chunks) == context
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert all(context[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert sum(chunk.tokens for chunk in chunks) == len(TOKENIZER.offsets(context))
    assert 0 <= coverage(context, located) <= 1


def test_each_passage_has_its_score_and_the_rest_none():
    context = f"Heading of the report\n\n{CONTEXT}"
    scored = chunks_of_passages(context, locate(context, passages(*range(8))), TOKENIZER)
    assert [score for _, score in scored] == [None, *range(8)]
    assert scored[1][0].text == PARTS[0] + "\n\n"


def test_a_passage_that_was_cut_to_fit_keeps_its_score_in_both_pieces():
    first, second = CONTEXT[:500], CONTEXT[500:]
    scores = list(range(8))
    at = next(rank for rank, part in enumerate(PARTS) if CONTEXT.index(part) + len(part) > 500)
    for context in (first, second):
        located = locate(context, passages(*scores))
        assert coverage(context, located) > 0.99
        assert float(at) in {span.score for span in located}


def test_overlapping_passages_are_read_once():
    text = words(3, 60)
    half = len(text) // 2
    located = locate(text, [Passage(text[: half + 40], 1.0), Passage(text[half:], 2.0)])
    assert [(span.start, span.end) for span in located] == [(0, half + 40), (half + 40, len(text))]


def test_the_best_passages_come_back_in_document_order_and_nothing_is_embedded():
    embedder = HashEmbedder()
    otherwise = Compressor(embedder, TOKENIZER, EmbeddingCache())
    compressor = PassageCompressor(
        lambda _: passages(0.1, 0.9, 0.2, 0.3, 0.8, 0.4, 0.0, 0.5),
        TOKENIZER,
        otherwise,
        least_coverage=0.9,
        source="pipeline",
    )
    config = CompressionConfig(chunk_tokens=40, min_tokens=80, min_chunks=2)
    compression = compressor.compress([CONTEXT], "which?", config)
    assert [scored.chunk.text.strip() for scored in compression.selected[0]] == [PARTS[1], PARTS[4]]
    assert [scored.score for scored in compression.selected[0]] == [0.9, 0.8]
    assert compression.source == "pipeline" and compression.shortened and not embedder.embedded
    assert compression.texts[0].startswith(PARTS[1]) and PARTS[4] in compression.texts[0]


def test_scores_of_something_else_are_not_used():
    foreign = [Passage(words(seed, 40), 1.0) for seed in range(20, 24)]
    for least in (0.0, 0.9):
        compressor = PassageCompressor(lambda _: foreign, TOKENIZER, fallback(), least_coverage=least)
        assert compressor.compress([CONTEXT], PARTS[3], SMALL).source == "embedder"


def test_unscored_passages_are_not_used():
    compressor = PassageCompressor(lambda _: [Passage(part) for part in PARTS], TOKENIZER, fallback())
    assert compressor.compress([CONTEXT], PARTS[3], SMALL).source == "embedder"


# --- a framework's splitter and reranker in the compressor ----------------------------------------------------------


def test_pieces_with_overlap_and_dropped_space_still_tile():
    text = "  one two three\n\nfour five six\n\nseven eight"
    pieces = ["one two three", "three\n\nfour five", "five six", "seven eight"]
    chunks = cut_at(text, pieces, TOKENIZER)
    assert "".join(chunk.text for chunk in chunks) == text
    assert [chunk.text.strip() for chunk in chunks] == ["one two", "three\n\nfour", "five six", "seven eight"]


def test_repeated_pieces_are_found_in_turn():
    text = "same same same"
    assert [chunk.start for chunk in cut_at(text, ["same", "same", "same"], TOKENIZER)] == [0, 5, 10]


def test_a_splitter_that_rewrites_is_refused():
    compressor = Compressor(HashEmbedder(), TOKENIZER, split=lambda text: [text.upper()])
    with pytest.raises(ConfigurationError, match="rewrites what it cuts"):
        compressor.compress([CONTEXT], "which?", SMALL)


def test_the_splitter_decides_the_chunks():
    compressor = Compressor(HashEmbedder(), TOKENIZER, split=lambda text: text.split("\n\n"))
    compression = compressor.compress([CONTEXT], PARTS[5], SMALL)
    assert compression.selected[0][0].chunk.text.strip() == PARTS[5]


@pytest.mark.parametrize("search", ["vectors", "hybrid"])
def test_the_reranker_decides_among_what_was_found(search):
    seen = []

    def rerank(query, found):
        seen.append((query, [passage.text for passage in found]))
        return [Passage(found[-1].text, None, found[-1].chunk)]

    compressor = Compressor(HashEmbedder(threshold=-1.0), TOKENIZER, split=lambda t: t.split("\n\n"), rerank=rerank)
    compression = compressor.compress([CONTEXT], PARTS[5], SMALL.model_copy(update={"search": search}))
    query, found = seen[0]
    assert query == PARTS[5] and found[0].strip() == PARTS[5] and len(found) == 8
    assert compression.texts == (found[-1],) and compression.source == "reranker"


def test_a_reranker_chooses_beside_a_long_documents_beginning():
    text = "\n\n".join(f"part {number} says {number}" for number in range(40))
    config = CompressionConfig(chunk_tokens=16, search="vectors", neighbours=0.0, opening_tokens=16)
    best = Compressor(
        HashEmbedder(threshold=-1.0),
        TOKENIZER,
        split=lambda t: t.split("\n\n"),
        rerank=lambda query, found: [Passage(each.text, 7.0, each.chunk) for each in found if each.chunk == 30],
    )
    first, chosen = best.compress([text], "part 30", config).selected[0]
    assert (first.chunk.index, chosen.chunk.index) == (0, 30)
    assert (first.score, chosen.score) == (None, 7.0)  # a reranker's scores have a scale of their own


def test_a_reranker_may_rewrite_texts_and_may_find_nothing():
    def shorten(query, found):
        return [Passage("short", 1.0, found[0].chunk)]

    compressor = Compressor(HashEmbedder(), TOKENIZER, split=lambda t: t.split("\n\n"), rerank=shorten)
    compression = compressor.compress([CONTEXT], PARTS[5], SMALL)
    assert compression.texts == ("short",) and compression.kept_tokens == 1
    nothing = Compressor(HashEmbedder(), TOKENIZER, split=lambda t: t.split("\n\n"), rerank=lambda q, found: [])
    assert nothing.compress([CONTEXT], PARTS[5], SMALL).texts[0].strip() == PARTS[5]


def test_a_reranker_of_a_long_document_gets_the_best_chunks(monkeypatch):
    monkeypatch.setattr(compressor_module, "_RERANKED_TOKENS", 100)
    seen = []
    compressor = Compressor(
        HashEmbedder(), TOKENIZER, split=lambda t: t.split("\n\n"), rerank=lambda query, found: seen.extend(found)
    )
    compressor.compress([CONTEXT], PARTS[5], SMALL)
    assert seen[0].text.strip() == PARTS[5] and 1 < len(seen) < 8
