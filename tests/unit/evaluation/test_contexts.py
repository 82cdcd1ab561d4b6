"""What a drafter reads in place of what retrieval would give it."""

import pytest

from rapid_integrations.compression import Compressor
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.contexts import SinksAndRecent, UnrelatedPassages, middle_cut
from tests.toys.embedder import HashEmbedder
from tests.toys.offsets import WordTokenizer

TEXT = " ".join(f"w{n}" for n in range(100))
CONFIG = CompressionConfig(chunk_tokens=16, min_tokens=24, largest_share=1 / 6, ratio=0.0, min_chunks=1)


def test_the_middle_is_cut():
    cut = middle_cut(TEXT, 11, WordTokenizer())
    assert cut.split() == [f"w{n}" for n in (*range(5), *range(94, 100))]
    assert middle_cut(TEXT, 100, WordTokenizer()) == TEXT and middle_cut(TEXT, 1, WordTokenizer()).split() == ["w99"]


def test_sinks_and_recent():
    found = SinksAndRecent(WordTokenizer(), 4, 10).compress([TEXT], "q", CONFIG)
    assert found.texts[0].split() == [f"w{n}" for n in (0, 1, 2, 3, *range(90, 100))]
    assert (found.context_tokens, found.kept_tokens, found.shortened) == (100, 14, True)
    for scored in found.selected[0]:
        assert TEXT[scored.chunk.start : scored.chunk.end] == scored.chunk.text
    budget = SinksAndRecent(WordTokenizer(), 4, None).compress([TEXT], "q", CONFIG)
    assert budget.kept_tokens == CONFIG.budget(100) == 16  # as many as retrieval would keep
    whole = SinksAndRecent(WordTokenizer(), 4, 96).compress([TEXT], "q", CONFIG)
    assert whole.texts == (TEXT,) and not whole.shortened
    with pytest.raises(ConfigurationError, match="2 contexts"):
        SinksAndRecent(WordTokenizer(), 4, 4).compress([TEXT, TEXT], "q", CONFIG)


def test_unrelated_passages():
    other = " ".join(f"other{n}" for n in range(100))
    retriever = Compressor(HashEmbedder(), WordTokenizer())
    found = UnrelatedPassages(retriever, other).compress([TEXT, "more"], "other5 w5", CONFIG)
    assert found.shortened and found.texts[1] == ""
    assert found.texts[0] and set(found.texts[0].split()) <= set(other.split())
    assert len(found.selected) == 2 and found.source == "unrelated"
