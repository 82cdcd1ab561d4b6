"""BGE-M3 through FlagEmbedding's real loading code, on a small random model of its architecture."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from rapid_integrations import Prompt, RapidEngine, SamplingParams
from rapid_integrations.compression import BgeM3Embedder, Compressor
from rapid_integrations.compression.bge_m3 import is_bge_m3
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import ConfigurationError, MissingExtraError, ModelLoadError
from tests.toys.bge_model import save_tiny_bge
from tests.toys.models import byte_tokenizer, tiny_model
from tests.toys.offsets import WordTokenizer


@pytest.fixture(scope="module", autouse=True)
def library():
    """Imported here, as it takes seconds, of every process that collects this module; what it warns of is its own."""
    return pytest.importorskip("FlagEmbedding", reason="needs the extra 'bge'")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "bge-m3"
    folder.mkdir()
    return folder, save_tiny_bge(folder)


@pytest.fixture(scope="module")
def embedder(published):
    return BgeM3Embedder(published[0], device="cpu")


def test_vectors_are_the_first_tokens_of_the_model_itself(published, embedder):
    _, model = published
    texts = ["the cat sat on a mat", "dog", "understand the dog far away"] * 7
    vectors = embedder.embed(texts)
    assert vectors.shape == (21, 16) and vectors.dtype == np.float32
    tokenizer = embedder.load().model._model.tokenizer
    for text, vector in zip(texts[:3], vectors[:3], strict=True):
        with torch.inference_mode():
            first = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0]
        assert np.allclose(vector, (first / first.norm()).numpy(), atol=1e-5)
    assert np.allclose(embedder.embed_query("dog"), vectors[1], atol=1e-5)  # it has no prompts
    assert not np.allclose(vectors[0], vectors[1], atol=1e-2)


def test_the_maximum_length_is_the_models_own_and_every_word_is_read(published, embedder):
    assert embedder.max_tokens == 64
    text = "the cat sat on a mat " * 60
    windows = embedder.split(text)
    assert "".join(windows) == text and len(windows) >= 6
    backend = embedder.load().windows._backend
    assert all(len(backend.encode(window).ids) <= 64 for window in windows)
    end = windows[0].rstrip().rsplit(" ", 1)[0]
    assert not np.allclose(embedder.embed([end + " dog"]), embedder.embed([end + " far"]), atol=1e-4)
    for wrong in (0, 9, 65):
        with pytest.raises(ConfigurationError, match=f"max_tokens={wrong}: .* takes 10 to 64 tokens"):
            BgeM3Embedder(published[0], device="cpu", max_tokens=wrong).load()


def test_the_fingerprint_is_the_contents(published, embedder, tmp_path):
    again = BgeM3Embedder(published[0], device="cpu")
    assert again.fingerprint == embedder.fingerprint
    assert BgeM3Embedder(published[0], device="cpu", max_tokens=32).fingerprint != embedder.fingerprint
    folder = tmp_path / "other"
    folder.mkdir()
    model = save_tiny_bge(folder)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[5, 5] += 1
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert BgeM3Embedder(folder, device="cpu").fingerprint != embedder.fingerprint


def test_it_says_nothing(embedder, capfd):
    embedder.embed(embedder.split("the cat sat on a mat " * 400))
    assert capfd.readouterr() == ("", "")


def test_an_engine_knows_it_by_its_folder(published):
    document = " ".join(f"the dog ran far away {word}." for word in ("the cat", "a mat") * 60)
    with RapidEngine.from_models(
        tiny_model("llama", 1),
        byte_tokenizer(),
        embedder=str(published[0]),
        compression=CompressionConfig(chunk_tokens=64, min_tokens=256),
    ) as engine:
        prompt = Prompt.from_context(document[:1500], "where is the cat?")
        answer = engine.generate(prompt, sampling=SamplingParams(max_new_tokens=3))
        assert answer.stats.retrieval == "embedder"
        assert answer.usage.drafter_prompt_tokens < answer.usage.prompt_tokens
        made = engine.compressor._made
        assert isinstance(made, Compressor) and isinstance(made._embedder, BgeM3Embedder)


def test_names_and_folders_that_are_it(published, tmp_path):
    assert is_bge_m3("BAAI/bge-m3") and is_bge_m3("baai/bge-m3") and is_bge_m3(published[0])
    assert not is_bge_m3("BAAI/bge-small-en") and not is_bge_m3(tmp_path)


def test_hostile_texts(embedder):
    for text in ("", " ", "\0", "\ud800", "🤗" * 500, "</s><s>" * 50, "a" * 3000):
        windows = embedder.split(text)
        assert "".join(windows) == text
        assert np.isfinite(embedder.embed(windows)).all()


def test_a_pickle_is_not_opened(published, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    for file in ("pytorch_model.bin", "colbert_linear.pt"):
        folder = tmp_path / file
        folder.mkdir()
        save_tiny_bge(folder)
        torch.save(Bomb(), folder / file)
        with pytest.raises(ModelLoadError, match="could not be loaded by FlagEmbedding"):
            BgeM3Embedder(folder, device="cpu").load()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_damaged_folder(tmp_path, damage):
    save_tiny_bge(tmp_path)
    weights = tmp_path / "pytorch_model.bin"
    weights.unlink() if damage == "missing" else weights.write_bytes(b"")
    with pytest.raises(ModelLoadError, match="could not be loaded by FlagEmbedding"):
        BgeM3Embedder(tmp_path, device="cpu").embed(["cat"])


def test_a_folder_that_does_not_exist():
    with pytest.raises(ModelLoadError, match="does not exist"):
        BgeM3Embedder("./nowhere")


def test_without_the_package_the_error_says_how_to_get_it(published, monkeypatch):
    monkeypatch.setitem(sys.modules, "FlagEmbedding", None)
    with pytest.raises(MissingExtraError, check=lambda error: error.extra == "bge"):
        BgeM3Embedder(published[0]).embed_query("cat")


@pytest.mark.process
def test_the_package_is_loaded_only_when_needed():
    code = "import sys, rapid_integrations.compression; print('FlagEmbedding' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_chunks_are_found_with_it(embedder):
    result = Compressor(embedder, WordTokenizer()).compress(
        ["the cat sat on a mat . " * 80 + "dog ran far away . " * 80],
        "the cat",
        CompressionConfig(min_tokens=64, chunk_tokens=32, min_chunks=1),
    )
    assert result.shortened and result.kept_tokens < result.context_tokens
