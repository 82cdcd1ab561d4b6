import subprocess
import sys
import threading

import numpy as np
import pytest

from rapid_integrations.compression import (
    Chunk,
    ChunkIndex,
    Compression,
    Compressor,
    EmbeddingCache,
    ScoredChunk,
    chunk_text,
)
from rapid_integrations.compression.joining import join_chunks
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import PromptError
from tests.toys.embedder import HashEmbedder
from tests.toys.errors import coded
from tests.toys.offsets import WordTokenizer

VECTORS = {"search": "vectors", "neighbours": 0.0}
CONFIG = CompressionConfig(chunk_tokens=16, ratio=0.25, min_chunks=1, **VECTORS)


def paragraph(subject, words=16):
    """Exactly one chunk of 16 words, about one subject."""
    return " ".join([subject] * words) + "\n\n"


def document(*subjects):
    return "".join(map(paragraph, subjects))


# Words that fall into different buckets of the toy embedder.
FRUIT = document(*"apple banana cherry damson elder fig grape hazel iris juniper kiwi nut".split())


def compressor(**options):
    return Compressor(HashEmbedder(**options), WordTokenizer())


def index_of(text, embedder, cache=None, on_progress=None):
    chunks = chunk_text(text, WordTokenizer(), 16)
    return ChunkIndex.build(chunks, embedder, cache or EmbeddingCache(), on_progress)


def test_the_chunk_about_the_question_is_kept():
    result = compressor().compress([FRUIT], "grape?", CONFIG)
    assert result.texts == (paragraph("grape"),)
    ((scored,),) = result.selected
    assert FRUIT[scored.chunk.start : scored.chunk.end] == paragraph("grape")
    assert scored.score > 0.3
    assert (result.context_tokens, result.kept_tokens, result.shortened) == (12 * 16, 16, True)


def test_chunks_come_in_document_order_and_only_gaps_are_marked():
    result = compressor().compress([FRUIT], "grape damson elder", CONFIG)
    assert result.texts == (paragraph("damson") + paragraph("elder") + paragraph("grape"),)


def test_the_budget_bounds_what_is_kept():
    config = CompressionConfig(chunk_tokens=16, min_chunks=1, largest_share=1 / 6, **VECTORS)
    result = compressor().compress([FRUIT], "grape grape damson elder elder elder", config)
    assert result.texts == (paragraph("elder") + paragraph("grape"),)
    assert result.kept_tokens == 32 == config.budget(result.context_tokens)


LONG = document(*f"apple banana cherry damson elder fig {'grape ' * 18}".split())  # its budget is six chunks


@pytest.mark.parametrize(("tokens", "opened"), [(0, 0), (15, 0), (16, 1), (128, 1)])
def test_a_long_documents_beginning_is_kept_in_whole_chunks(tokens, opened):
    config = CONFIG.model_copy(update={"opening_tokens": tokens})
    result = compressor().compress([LONG], "elder", config)
    assert [each.chunk.index for each in result.selected[0]] == ([0, 4] if opened else [4])
    assert compressor().compress([FRUIT], "grape?", config).texts == (paragraph("grape"),)  # too short a document


def test_the_beginning_is_that_of_the_first_context_with_text():
    contexts = ["", document("apple", "banana"), document("cherry", "damson", "elder", *["fig"] * 20)]
    config = CONFIG.model_copy(update={"opening_tokens": 20})
    result = compressor().compress(contexts, "elder", config)
    assert result.texts == ("", paragraph("apple"), paragraph("elder"))
    assert result.selected[1][0].score < result.selected[2][0].score


def test_the_threshold_is_the_embedders_unless_the_config_names_one():
    query = "grape grape grape grape damson"
    both = document("damson", "grape")
    assert compressor(threshold=0.2).compress([FRUIT], query, CONFIG).texts == (both,)
    assert compressor(threshold=0.9).compress([FRUIT], query, CONFIG).texts == (paragraph("grape"),)
    strict = CONFIG.model_copy(update={"threshold": 0.9})
    assert compressor(threshold=0.2).compress([FRUIT], query, strict).texts == (paragraph("grape"),)
    lax = CONFIG.model_copy(update={"threshold": 0.2})
    assert compressor(threshold=0.9).compress([FRUIT], query, lax).texts == (both,)


def test_relevance_is_that_of_the_best_chunk():
    found = compressor(threshold=0.2).compress([FRUIT], "grape?", CONFIG)
    best = max(scored.score for scored in found.selected[0])
    assert found.relevance == min(1.0, 2 * (best / 0.2 - 1)) == 1.0
    assert compressor(threshold=0.2).compress([FRUIT], "zebra", CONFIG).relevance == 0.0
    assert compressor(threshold=-1.0).compress([FRUIT], "zebra", CONFIG).relevance == 1.0
    whole = compressor(threshold=0.2).compress(["zebra"], "grape?", CONFIG)
    assert not whole.shortened and whole.relevance == 1.0


def test_a_minimum_of_chunks_is_kept_for_a_question_about_nothing():
    config = CONFIG.model_copy(update={"min_chunks": 3})
    result = compressor(threshold=0.99).compress([FRUIT], "zebra", config)
    assert len(result.selected[0]) == 3


def test_contexts_share_the_budget_and_keep_their_places():
    contexts = [document("apple", "banana"), document("cherry", "damson", "elder"), document(*["fig"] * 7)]
    result = compressor().compress(contexts, "elder apple", CONFIG)
    assert result.texts == (paragraph("apple"), paragraph("elder"), "")
    assert [len(of_context) for of_context in result.selected] == [1, 1, 0]
    assert result.selected[1][0].chunk == chunk_text(contexts[1], WordTokenizer(), 16)[2]
    assert result.context_tokens == 12 * 16


def test_repeats_are_dropped_across_contexts():
    contexts = [document("apple", "banana", "grape"), document("grape", "cherry", "grape"), document(*"defghi")]
    result = compressor().compress(contexts, "grape", CONFIG)
    assert result.texts == (paragraph("grape"), "", "")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (CompressionConfig(chunk_tokens=16, min_chunks=2), document("apple", "banana")),  # two chunks at least, of two
        (CompressionConfig(chunk_tokens=16, min_chunks=1, ratio=1.0), FRUIT),  # a budget as large as the text
    ],
)
def test_what_would_not_get_shorter_comes_back_unread(config, text):
    embedder = HashEmbedder()
    contexts = [text, " "]
    result = Compressor(embedder, WordTokenizer()).compress(contexts, "apple", config)
    assert result.texts == (text, " ")
    assert not result.shortened
    assert embedder.embedded == embedder.queries == []
    expected = tuple(ScoredChunk(chunk, None) for chunk in chunk_text(text, WordTokenizer(), 16))
    assert result.selected[0] == expected
    assert result.kept_tokens == result.context_tokens == sum(scored.chunk.tokens for scored in expected)


def test_one_token_more_than_the_minimum_of_chunks_is_shortened():
    config = CompressionConfig(chunk_tokens=16, min_chunks=2)
    assert compressor().compress([document("apple", "banana") + "cherry"], "apple", config).shortened


@pytest.mark.parametrize("query", ["", " \n"])
def test_an_empty_question_is_refused(query):
    with pytest.raises(PromptError, check=coded("prompt.empty_question")):
        compressor().compress([FRUIT], query, CONFIG)


@pytest.mark.parametrize("contexts", [[], [""], [" ", "\n"]])
def test_blank_contexts_are_refused(contexts):
    with pytest.raises(PromptError, match=f"{len(contexts)} contexts"):
        compressor().compress(contexts, "apple", CONFIG)


def test_a_second_question_embeds_only_the_question():
    embedder = HashEmbedder()
    tested = Compressor(embedder, WordTokenizer())
    tested.compress([FRUIT], "grape", CONFIG)
    assert len(embedder.embedded) == 12
    tested._cache = None  # neither is the cache asked
    assert tested.compress([FRUIT], "nut", CONFIG).texts == (paragraph("nut"),)
    assert (len(embedder.embedded), embedder.queries) == (12, ["grape", "nut"])


def test_what_was_indexed_ahead_is_only_searched():
    embedder = HashEmbedder()
    made = Compressor(embedder, WordTokenizer())
    reported = []
    assert made.index([FRUIT], CONFIG, lambda *at: reported.append(at))
    assert reported[-1][0] == "embed" and len(embedder.embedded) == 12
    assert made.compress([FRUIT], "grape?", CONFIG).texts == (paragraph("grape"),)
    assert len(embedder.embedded) == 12
    assert not made.index([paragraph("nut")], CONFIG) and not made.index([" "], CONFIG)
    words = CONFIG.model_copy(update={"search": "words"})
    assert Compressor(None, WordTokenizer()).index([FRUIT], words)
    assert len(embedder.embedded) == 12


def test_another_chunk_size_is_another_index():
    tested = compressor()
    tested.compress([FRUIT], "grape", CONFIG)
    longer = CONFIG.model_copy(update={"chunk_tokens": 32})
    assert tested.compress([FRUIT], "grape", longer).texts == (document("grape", "hazel"),)


def test_contexts_are_told_apart_by_their_boundaries():
    tested = compressor()
    half = document(*"abcdef")
    assert len(tested.compress([half, FRUIT], "grape", CONFIG).texts) == 2
    assert len(tested.compress([half + FRUIT], "grape", CONFIG).texts) == 1


def test_only_the_latest_documents_stay_indexed():
    tested = compressor()
    for number in range(20):
        tested.compress([FRUIT + str(number)], "grape", CONFIG)
    assert len(tested._documents) == 8


def test_what_two_documents_share_is_embedded_once():
    embedder = HashEmbedder()
    cache = EmbeddingCache()
    Compressor(embedder, WordTokenizer(), cache).compress([FRUIT], "grape", CONFIG)
    Compressor(embedder, WordTokenizer(), cache).compress([document("mango") + FRUIT], "grape", CONFIG)
    assert len(embedder.embedded) == 13


def test_progress_counts_the_windows_to_embed():
    seen = []
    compressor(max_tokens=8).compress([FRUIT], "grape", CONFIG, on_progress=lambda *report: seen.append(report))
    assert seen == [("embed", done, 24) for done in range(1, 25)]


def test_threads_build_one_index():
    embedder = HashEmbedder()
    tested = Compressor(embedder, WordTokenizer())
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(tested.compress([FRUIT], "grape", CONFIG))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and len(set(results)) == 1
    assert len(embedder.embedded) == 12


def test_a_failed_build_can_be_repeated():
    tested = compressor()

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tested.compress([FRUIT], "grape", CONFIG, on_progress=interrupt)
    assert tested.compress([FRUIT], "grape", CONFIG).texts == (paragraph("grape"),)


def test_a_chunk_scores_as_its_best_window():
    embedder = HashEmbedder(max_tokens=4)
    text = "apple " * 12 + "grape " * 4
    index = index_of(text, embedder)
    (score,) = index.scores(embedder.embed_query("grape"))
    assert score == pytest.approx(1.0, abs=1e-6)
    assert len(embedder.embedded) == len(set(embedder.embedded))


def test_scores_belong_to_their_chunks():
    embedder = HashEmbedder()
    scores = index_of(FRUIT, embedder).scores(embedder.embed_query("grape nut"))
    assert scores.shape == (12,)
    chunks = chunk_text(FRUIT, WordTokenizer(), 16)
    expected = [embedder._vector(chunk.text) @ embedder._vector("grape nut") for chunk in chunks]
    assert np.allclose(scores, expected, atol=1e-6)


def test_blank_chunks_are_not_embedded_and_score_least():
    embedder = HashEmbedder()
    index = ChunkIndex.build([Chunk(0, 0, 2, " \n", 2), Chunk(1, 2, 3, "a", 1)], embedder, EmbeddingCache())
    assert index.scores(embedder.embed_query("a")).tolist() == [-1.0, 1.0]
    assert embedder.embedded == ["a"]
    index = ChunkIndex.build([Chunk(0, 0, 2, " \n", 2)], embedder, EmbeddingCache())
    assert index.scores(embedder.embed_query("a")).tolist() == [-1.0]


def test_an_interrupted_build_keeps_what_it_has_embedded():
    embedder, cache = HashEmbedder(), EmbeddingCache()
    text = document(*(f"subject{number}" for number in range(100)))

    def interrupt(done, total):
        if done == 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_of(text, embedder, cache, interrupt)
    embedder.embedded.clear()
    index_of(text, embedder, cache)
    assert len(embedder.embedded) == 100 - 64


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("left", "right", "left\n\nright"),
        ("left\n", "right", "left\n\nright"),
        ("left\n\n", "right", "left\n\nright"),
        ("left", "\n\n\nright", "left\n\n\nright"),
        ("left\n", "\nright", "left\n\nright"),
        ("left", " right", "left\n\n right"),
    ],
)
def test_a_gap_becomes_a_blank_line_once(left, right, expected):
    assert join_chunks([Chunk(0, 0, 0, left, 1), Chunk(2, 0, 0, right, 1)]) == expected


def test_neighbours_are_joined_as_they_were():
    assert join_chunks([Chunk(4, 0, 0, "a b", 1), Chunk(5, 0, 0, "c", 1), Chunk(6, 0, 0, " d", 1)]) == "a bc d"
    assert join_chunks([]) == ""


@pytest.mark.process
def test_importing_the_package_loads_no_heavy_library():
    code = (
        "import sys, rapid_integrations.compression as c; c.Compressor, c.SentenceTransformerEmbedder; "
        "print({'torch', 'faiss', 'sentence_transformers', 'transformers'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("set()", "")


def test_every_public_name_is_there():
    import rapid_integrations.compression as package

    assert all(hasattr(package, name) for name in package.__all__)
    assert package.__all__ == sorted(package.__all__)


def test_neighbours_among_what_was_kept_are_one_passage():
    def piece(context, index):
        return ScoredChunk(Chunk(index, 4 * index, 4 * index + 4, f"{context}{index}; ", 2), 0.5)

    selected = ((piece("a", 0), piece("a", 1), piece("a", 4)), (piece("b", 0),), ())
    found = Compression(("", "", ""), selected, context_tokens=20, kept_tokens=8, shortened=True)
    assert found.passages == ["a0; a1; ", "a4; ", "b0; "]
