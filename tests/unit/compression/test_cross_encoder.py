import math

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from rapid_integrations.compression import Compressor, CrossEncoderReranker, Passage
from rapid_integrations.compression.default_compressor import DefaultCompressor
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import ConfigurationError, ModelLoadError
from tests.toys.embedder import HashEmbedder
from tests.toys.embedding_model import save_tiny_embedder
from tests.toys.offsets import WordTokenizer

CONFIG = CompressionConfig(chunk_tokens=16, min_chunks=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random cross-encoder that reads 32 tokens."""
    folder = tmp_path_factory.mktemp("cross-encoder")
    save_tiny_embedder(folder / "embedder")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "embedder")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save_pretrained(folder / "model")
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, num_labels=1, **sizes)
    model = BertForSequenceClassification(config)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(folder / "model")
    return folder / "model"


def test_the_best_passage_comes_first(folder):
    reranker = CrossEncoderReranker(folder)
    passages = [Passage(text, 0.0, number) for number, text in enumerate(["the cat", "a dog ran far", "un stand"])]
    found = reranker("find cat", passages)
    assert sorted(passage.chunk for passage in found) == [0, 1, 2]
    assert [passage.score for passage in found] == sorted((passage.score for passage in found), reverse=True)
    model = reranker._model
    expected = model.predict([("find cat", passage.text) for passage in found], show_progress_bar=False)
    assert np.allclose([passage.score for passage in found], expected, atol=1e-6)
    assert reranker("find cat", []) == []


def test_a_long_passage_is_scored_by_its_best_window(folder):
    reranker = CrossEncoderReranker(folder)
    parts = [" ".join([word] * 20) for word in ("cat", "dog", "mat")]
    (whole,) = reranker("find", [Passage(" ".join(parts), 0.0, 0)])
    windows = reranker._windows("find").split(" ".join(parts))
    assert len(windows) > 1 and "".join(windows) == " ".join(parts)
    scores = [reranker("find", [Passage(window, 0.0, 0)])[0].score for window in windows]
    assert whole.score == pytest.approx(max(scores), abs=1e-5)


def test_a_question_that_fills_the_model_is_refused(folder):
    with pytest.raises(ConfigurationError, match="leaves .* of the 32 tokens"):
        CrossEncoderReranker(folder)("cat " * 30, [Passage("dog", 0.0, 0)])


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ModelLoadError, match=r"missing.* could not be loaded"):
        CrossEncoderReranker(tmp_path / "missing")("cat", [Passage("dog", 0.0, 0)])


def test_nan_is_said(folder, monkeypatch):
    reranker = CrossEncoderReranker(folder)
    reranker("cat", [Passage("dog", 0.0, 0)])
    monkeypatch.setattr(reranker._model, "predict", lambda pairs, **_: [math.nan] * len(pairs))
    with pytest.raises(ModelLoadError, match="computed NaN"):
        reranker("cat", [Passage("dog", 0.0, 0)])


def test_compressors_take_it_by_object_and_by_folder(folder):
    text = "".join(" ".join([word] * 16) + "\n\n" for word in "cat dog mat far ran sat on un".split())
    by_object = Compressor(HashEmbedder(), WordTokenizer(), rerank=CrossEncoderReranker(folder))
    by_folder = DefaultCompressor(HashEmbedder(), WordTokenizer(), rerank=folder)
    found = by_object.compress([text], "cat dog", CONFIG)
    assert found.source == "reranker" and found.shortened
    assert by_folder.compress([text], "cat dog", CONFIG) == found
