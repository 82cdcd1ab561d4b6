"""What a drafter reads in place of what retrieval would give it."""

from rapid_integrations.compression import Compressor
from rapid_integrations.config import CompressionConfig
from rapid_integrations.evaluation.contexts import UnrelatedPassages, middle_cut
from tests.toys.embedder import HashEmbedder
from tests.toys.offsets import WordTokenizer

TEXT = " ".join(f"w{n}" for n in range(100))
CONFIG = CompressionConfig(chunk_tokens=16, min_tokens=24, largest_share=1 / 6, ratio=0.0, min_chunks=1)


def test_the_middle_is_cut():
    cut = middle_cut(TEXT, 11, WordTokenizer())
    assert cut.split() == [f"w{n}" for n in (*range(5), *range(94, 100))]
    assert middle_cut(TEXT, 100, WordTokenizer()) == TEXT and middle_cut(TEXT, 1, WordTokenizer()).split() == ["w99"]


def test_unrelated_passages():
    other = " ".join(f"other{n}" for n in range(100))
    retriever = Compressor(HashEmbedder(), WordTokenizer())
    found = UnrelatedPassages(retriever, other).compress([TEXT, "more"], "other5 w5", CONFIG)
    assert found.shortened and found.texts[1] == ""
    assert found.texts[0] and set(found.texts[0].split()) <= set(other.split())
    assert len(found.selected) == 2 and found.source == "unrelated"
