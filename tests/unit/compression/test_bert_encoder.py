import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from rapid_integrations import packaged
from rapid_integrations.compression import SentenceTransformerEmbedder, embedding_model
from rapid_integrations.compression.bert_encoder import BertEncoder, load_bert
from tests.toys.embedding_model import save_tiny_embedder

TEXTS = ["the cat sat on a mat", "", "dog ran far " * 30, "understand : say", "[CLS] far [PAD] \0 🤗"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny_embedder(folder)
    return folder


def changed(folder, copy, file, **settings):
    shutil.copytree(folder, copy)
    path = copy / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return copy


def by_sentence_transformers(folder, monkeypatch):
    monkeypatch.setattr(embedding_model, "load_bert", lambda source, device: None)
    embedder = SentenceTransformerEmbedder(folder, device="cpu")
    assert not isinstance(embedder.load().model, BertEncoder)
    return embedder


@pytest.mark.parametrize("pooling", ["pooling_mode_mean_tokens", "pooling_mode_cls_token"])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.long
def test_the_vectors_are_those_of_sentence_transformers(folder, tmp_path, monkeypatch, pooling, normalized):
    modes = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False} | {pooling: True}
    copy = changed(folder, tmp_path / "copy", "1_Pooling/config.json", **modes)
    if normalized:
        modules = json.loads((copy / "modules.json").read_text())
        modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
        (copy / "modules.json").write_text(json.dumps(modules))
        (copy / "2_Normalize").mkdir()
    ours = SentenceTransformerEmbedder(copy, device="cpu")
    assert isinstance(ours.load().model, BertEncoder)
    theirs = by_sentence_transformers(copy, monkeypatch)
    assert np.allclose(ours.embed(TEXTS), theirs.embed(TEXTS), atol=1e-6)
    assert np.allclose(ours.embed_query("dog ran " * 40), theirs.embed_query("dog ran " * 40), atol=1e-6)
    assert np.allclose(ours.load().model.encode(TEXTS), theirs.load().model.encode(TEXTS), atol=1e-6)
    assert ours.max_tokens == theirs.max_tokens
    assert [ours.split(text) for text in TEXTS] == [theirs.split(text) for text in TEXTS]


@pytest.mark.long
def test_a_default_prompt_is_used_as_sentence_transformers_uses_it(folder, tmp_path, monkeypatch):
    named = {"prompts": {"passage": "say : ", "other": "find : "}, "default_prompt_name": "other"}
    copy = changed(folder, tmp_path / "copy", "config_sentence_transformers.json", **named)
    ours, theirs = SentenceTransformerEmbedder(copy, device="cpu"), by_sentence_transformers(copy, monkeypatch)
    assert ours.load().model is not None
    assert np.allclose(ours.embed(["mat"]), theirs.embed(["mat"]), atol=1e-6)
    assert np.allclose(ours.embed_query("mat"), theirs.embed_query("mat"), atol=1e-6)


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("config.json", {"model_type": "roberta"}),
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"position_embedding_type": "relative_key"}),
        ("config.json", {"dtype": "float16"}),
        ("config.json", {"num_hidden_layers": 2}),
        ("config.json", {"auto_map": {"AutoModel": "own.Model"}}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
        ("sentence_bert_config.json", {"something_new": 1}),
        ("config_sentence_transformers.json", {"truncate_dim": 8}),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}),
        ("1_Pooling/config.json", {"include_prompt": False}),
        ("1_Pooling/config.json", {"pooling_mode": "lasttoken"}),
    ],
)
@pytest.mark.long
def test_another_setting_is_left_to_sentence_transformers(folder, tmp_path, file, settings):
    assert load_bert(str(folder), "cpu") is not None
    assert load_bert(str(changed(folder, tmp_path / "copy", file, **settings)), "cpu") is None


@pytest.mark.parametrize("file", ["modules.json", "config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.long
def test_damaged_and_missing_files_are_left_to_sentence_transformers(folder, tmp_path, file):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / file).write_bytes((copy / file).read_bytes()[:100])
    assert load_bert(str(copy), "cpu") is None
    (copy / file).unlink()
    assert load_bert(str(copy), "cpu") is None


@pytest.mark.long
def test_a_name_on_a_hub_is_left_to_sentence_transformers():
    assert load_bert("sentence-transformers/all-MiniLM-L6-v2", None) is None


@pytest.mark.skipif(not packaged.is_pulled("all-minilm-l6-v2"), reason="the packaged embedder is not on this machine")
@pytest.mark.long
def test_the_packaged_embedder_has_the_vectors_of_sentence_transformers(monkeypatch):
    folder = packaged.path_of("all-minilm-l6-v2")
    ours = SentenceTransformerEmbedder(folder, device="cpu")
    assert isinstance(ours.load().model, BertEncoder)
    theirs = by_sentence_transformers(folder, monkeypatch)
    texts = ["Customer results are kept for thirty days.", "Ünïcödé 東京 naïve", "word " * 400, " "]
    assert np.abs(ours.embed(texts) - theirs.embed(texts)).max() < 1e-3
    assert np.abs(ours.embed_query("How long?") - theirs.embed_query("How long?")).max() < 1e-3
    assert [ours.split(text) for text in texts] == [theirs.split(text) for text in texts]


def test_a_torch_that_was_built_for_gpus_runs_where_there_is_none(folder, monkeypatch):
    def built_for_cuda(check_available=False):
        return None if check_available else torch.device("cuda")

    monkeypatch.setattr(torch.accelerator, "current_accelerator", built_for_cuda)
    assert load_bert(str(folder), None).encode(["the cat"]).shape[0] == 1


@pytest.mark.process
def test_a_plain_bert_needs_no_other_library(folder):
    code = (
        "import sys\n"
        "from rapid_integrations.compression import SentenceTransformerEmbedder\n"
        f"embedder = SentenceTransformerEmbedder({str(folder)!r}, device='cpu')\n"
        "embedder.embed_query('the cat')\n"
        "heavy = ('sentence_transformers', 'transformers', 'sklearn', 'scipy', 'pandas', 'torch._dynamo')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
