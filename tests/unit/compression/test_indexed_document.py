"""Words and vectors together, in the compressor."""

import pytest

from rapid_integrations.compression import Compressor, chunk_text
from rapid_integrations.compression.default_compressor import DefaultCompressor
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import ConfigurationError
from tests.toys.embedder import HashEmbedder
from tests.toys.offsets import CharacterTokenizer, WordTokenizer

CONFIG = CompressionConfig(chunk_tokens=16, ratio=0.0, min_tokens=10_000, largest_share=0.25, min_chunks=1)
SUBJECTS = "apple banana cherry damson elder fig grape hazel iris juniper kiwi nut".split()
FRUIT = "".join(" ".join([subject] * 16) + "\n\n" for subject in SUBJECTS)


class Deaf(HashEmbedder):
    """Finds every text equally similar."""

    def _vector(self, text):
        return super()._vector("same")


def kept(found):
    return [scored.chunk.text.split()[0] for of_context in found.selected for scored in of_context]


def test_words_find_what_vectors_do_not():
    found = Compressor(Deaf(), WordTokenizer()).compress([FRUIT], "Which grape?", CONFIG)
    assert kept(found) == ["fig", "grape", "hazel"]  # with its neighbours


def test_vectors_find_what_words_do_not():
    class Synonyms(HashEmbedder):
        def _vector(self, text):
            return super()._vector(text.replace("raisin", "grape"))

    found = Compressor(Synonyms(), WordTokenizer()).compress([FRUIT], "raisin", CONFIG)
    assert "grape" in kept(found)


def test_words_alone_need_no_embedder(tmp_path):
    config = CONFIG.model_copy(update={"search": "words", "neighbours": 0.0})
    found = Compressor(None, WordTokenizer()).compress([FRUIT], "grape kiwi", config)
    assert DefaultCompressor(tmp_path / "missing", WordTokenizer()).compress([FRUIT], "grape kiwi", config) == found
    with pytest.raises(ConfigurationError, match='search="hybrid" needs an embedder'):
        Compressor(None, WordTokenizer()).compress([FRUIT], "grape kiwi", CONFIG)
    assert {"grape", "kiwi"} <= set(kept(found)) and found.source == "words" and found.relevance == 1.0
    scores = {scored.chunk.text.split()[0]: scored.score for scored in found.selected[0]}
    assert scores["grape"] > 0 and scores["kiwi"] > 0


def test_the_budget_alone_decides_unless_a_threshold_is_set():
    tested = Compressor(HashEmbedder(threshold=0.9), WordTokenizer())
    assert len(kept(tested.compress([FRUIT], "grape", CONFIG))) == 3
    strict = CONFIG.model_copy(update={"threshold": 0.9})
    assert kept(tested.compress([FRUIT], "grape", strict)) == ["grape"]


def test_neighbours_do_not_cross_contexts():
    contexts = [FRUIT, "grape " * 16 + "\n\n" + FRUIT.replace("grape", "lime")]
    found = Compressor(Deaf(), WordTokenizer()).compress(
        contexts, "grape", CONFIG.model_copy(update={"largest_share": 0.16})
    )
    assert [len(of_context) for of_context in found.selected] == [3, 1] or kept(found)[:3] == ["fig", "grape", "hazel"]


def test_a_second_round_follows_names():
    text = "".join(
        f"{paragraph}\n\n"
        for paragraph in [
            "the journal zeta is published by the omega society " + "of a town " * 2,
            *(f"filler number{number} about nothing of any kind " * 2 for number in range(20)),
            "omega society was founded by hugo in the year of the flood " + "x",
            *(f"padding number{number} with nothing in it at all " * 2 for number in range(20)),
        ]
    )
    one = CompressionConfig(chunk_tokens=16, largest_share=0.06, neighbours=0.0, search="words", min_chunks=1)
    two = one.model_copy(update={"rounds": 2})
    tested = Compressor(HashEmbedder(), WordTokenizer())
    question = "zeta journal?"
    assert "hugo" not in tested.compress([text], question, one).texts[0]
    assert "hugo" in tested.compress([text], question, two).texts[0]


def test_the_same_question_gives_the_same_text():
    results = {Compressor(HashEmbedder(), WordTokenizer()).compress([FRUIT], "grape nut fig", CONFIG) for _ in range(3)}
    assert len(results) == 1


def test_a_heading_stands_for_its_section():
    filler = "It was agreed by both of them on the day that all which follows holds for the whole of the term.\n" * 4
    sections = {"Fees": filler, "Notices": filler.replace("agreed", "settled"), "Law": filler.replace("day", "eve")}
    text = "\n".join(f"# {heading}\n\n{section}" for heading, section in sections.items())
    found = Compressor(Deaf(), WordTokenizer()).compress([text], "notices", CONFIG)
    assert "settled" in found.texts[0] and "agreed" not in found.texts[0]


def test_text_without_spaces_is_found_by_words():
    sentences = [
        "东京是日本的首都。",
        "北京是中国的首都。",
        "巴黎是法国的首都。",
        "苹果是一种水果。",
        "他住在山上的小屋里。",
    ]
    text = "".join(sentence * 2 for sentence in sentences)
    config = CONFIG.model_copy(update={"neighbours": 0.0})
    found = Compressor(Deaf(), CharacterTokenizer()).compress([text], "北京在哪里？", config)
    assert "北京" in found.texts[0]


@pytest.mark.parametrize("text", ["?! " * 500, "\ud800 " * 500, "x" * 3000, "a\u0301 " * 400, "\n" * 2000 + "word"])
def test_hostile_documents(text):
    found = Compressor(HashEmbedder(), CharacterTokenizer()).compress([text, "", " "], "what is x?", CONFIG)
    assert len(found.texts) == 3
    for scored in found.selected[0]:
        assert text[scored.chunk.start : scored.chunk.end] == scored.chunk.text
    assert "".join(chunk.text for chunk in chunk_text(text, CharacterTokenizer(), 16)) == text
    assert found.kept_tokens <= max(16, found.context_tokens // 4)


def test_a_question_without_words():
    found = Compressor(HashEmbedder(), WordTokenizer()).compress([FRUIT], "???", CONFIG)
    assert found.shortened and len(kept(found)) == 3
