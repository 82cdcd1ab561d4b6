"""Folders and files that are no causal LM to run: each is called what it is, and says what to do instead."""

import json
import os

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.models.loader import load
from tests.toys.model_folder import change
from tests.toys.models import byte_tokenizer, tiny_model

pytestmark = pytest.mark.usefixtures("home")


def refused(name, *words, kind=ModelLoadError):
    with pytest.raises(kind) as caught:
        load(name)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"
    assert "damaged or incomplete" not in str(caught.value)


# --- without a config.json --------------------------------------------------------------------------------------------

LORA = {"peft_type": "LORA", "base_model_name_or_path": "acme/base-7b"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["it is empty", "Download the model into it"]),
        ({"adapter_config.json": json.dumps(LORA), "adapter_model.safetensors": ""}, ["LoRA", "acme/base-7b", "Merge"]),
        ({"modules.json": "[]", "model.safetensors": ""}, ["sentence-transformers", "embedder"]),
        ({"model_index.json": "{}"}, ["diffusers pipeline", "pictures"]),
        ({"params.json": "{}", "consolidated.00.pth": ""}, ["first authors' layout", "transformers version"]),
        ({"openvino_model.xml": "", "openvino_model.bin": ""}, ["OpenVINO"]),
        ({"model.onnx": ""}, ["ONNX export"]),
        ({"pytorch_model.bin": ""}, ["pickled PyTorch weights", "save_pretrained", "safetensors"]),
        ({"weights.npz": ""}, ["MLX"]),
        ({"tf_model.h5": ""}, ["TensorFlow"]),
        ({"flax_model.msgpack": ""}, ["Flax"]),
        ({"model.nemo": ""}, ["NeMo"]),
        ({"model.safetensors": ""}, ["weights, but no config.json"]),
        ({"tokenizer.json": "{}", "tokenizer_config.json": "{}"}, ["a tokenizer only"]),
        ({"notes.txt": "hello"}, ["neither a config.json nor a GGUF file, but notes.txt"]),
        ({"snapshots/abc/config.json": "{}"}, ["folders inside it are", "snapshots/abc"]),
        ({"inner/config.json": "{}"}, ["folders inside it are", "inner"]),
    ],
)
def test_a_folder_without_a_configuration(tmp_path, files, words):
    folder = tmp_path / "it"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    refused(
        folder,
        "it is not a model folder" if "adapter" not in str(files) and "modules" not in str(files) else "",
        *words,
    )


# --- weights of another kind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 8}}, "AWQ"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "GPTQ"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"load_in_8bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "fp8", "fmt": "e5m2"}}, "FP8"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"quant_method": "exl2"}}, "ExLlamaV2"),
        ({"quantization_config": {"quant_method": "brand-new"}}, "brand-new"),
        ({"text_config": {"quantization_config": {"quant_method": "awq", "version": "gemv"}}}, "AWQ"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
    ],
)
def test_quantised_weights_are_called_by_their_kind(folder, settings, kind):
    change(folder, **settings)
    refused(folder, f"quantised with {kind}", "unquantised safetensors", "GGUF", kind=UnsupportedModelError)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pytorch_model.bin", ["pickled PyTorch weights", "Convert them to safetensors", "save_pretrained"]),
        ("pytorch_model-00001-of-00002.bin", ["pickled PyTorch weights"]),
        ("consolidated.safetensors", ["Mistral's own layout"]),
        ("weights.safetensors", ["name the file model.safetensors"]),
        ("model-00001-of-00002.safetensors", ["index", "Fetch it"]),
        ("tf_model.h5", ["TensorFlow"]),
        ("model.onnx", ["ONNX"]),
        ("weights.npz", ["MLX"]),
        (None, ["there are no weights"]),
    ],
)
def test_weights_in_other_files(folder, name, words):
    (folder / "model.safetensors").unlink()
    if name:
        (folder / name).write_bytes(b"x" * 100)
    refused(folder, "has no model.safetensors", *words)


def test_an_adapter_with_a_configuration_of_its_base(folder):
    (folder / "model.safetensors").unlink()
    (folder / "adapter_config.json").write_text(json.dumps(LORA))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    refused(folder, "LoRA/PEFT", "acme/base-7b", "merge_and_unload")


def test_a_configuration_beside_a_gguf_file_does_no_harm(folder, tmp_path):
    """As on hubs: the weights are in the GGUF file only."""
    from tests.toys.gguf_file import write_gguf

    merges = (("t", "h"),)
    tokenizer = byte_tokenizer(merges=merges)
    (folder / "model.safetensors").unlink()
    write_gguf(folder / "tiny.gguf", tiny_model("qwen2", 1, vocab_size=len(tokenizer)), tokenizer, merges)
    assert load(folder, dtype="float32").lm.num_parameters > 0


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_pointers_of_git_lfs(folder, file):
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 123\n")
    refused(folder, "Git LFS pointer", "git lfs")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_pages_saved_in_place_of_files(folder, file):
    (folder / file).write_text("<!DOCTYPE html>\n<html><body>Sign in to download</body></html>")
    refused(folder, "HTML page")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, ["fills gaps"]),
        ({"architectures": ["BertModel"], "model_type": "bert"}, ["gives vectors"]),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, ["classifies"]),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, ["encoder-decoder"]),
        ({"architectures": ["WhisperModel"], "model_type": "vit"}, ["WhisperModel"]),
    ],
)
def test_models_for_another_task(folder, changes, words):
    change(folder, **changes)
    refused(folder, *words, kind=UnsupportedModelError)


def test_a_sentence_transformers_folder_with_a_causal_model_in_it(folder):
    (folder / "modules.json").write_text("[]")
    refused(folder, "sentence-transformers", "embedder", kind=UnsupportedModelError)


# --- shards -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sharded(folder):
    tiny_model("llama", 1).save_pretrained(folder, max_shard_size="50KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    return folder


def test_a_missing_shard_is_named(sharded):
    first = sorted(sharded.glob("*-of-*.safetensors"))[0]
    first.unlink()
    refused(sharded, "1 of them is missing", first.name)


def test_an_index_that_names_what_no_shard_holds(sharded):
    first = sorted(sharded.glob("*-of-*.safetensors"))[0]
    tensors = load_file(first)
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors or {"other": torch.zeros(1)}, first, metadata={"format": "pt"})
    refused(sharded, lost, "index and files belong to different models")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "", 5, None])
def test_an_index_that_leads_out_of_the_folder(sharded, name):
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = name
    path.write_text(json.dumps(index))
    refused(sharded, "which is not a file of the folder")


def test_weights_that_no_model_has_are_said(folder):
    tensors = load_file(folder / "model.safetensors") | {"model.extra.weight": torch.zeros(3)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.warns(UserWarning, match="1 weights .* do not belong to LlamaForCausalLM.*model.extra.weight"):
        load(folder)


# --- GGUF files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "keys", "words"),
    [
        ("llama", {"general.type": "adapter", "adapter.type": "lora"}, ["LoRA", "Merge"]),
        ("clip", {}, ["mmproj", "language model"]),
        ("bert", {}, ["embedding model", "gives vectors"]),
        ("nomic-bert", {}, ["embedding model"]),
        ("qwen3", {"qwen3.pooling_type": 3}, ["embedding model or reranker"]),
        ("flux", {}, ["makes pictures"]),
        ("whisper", {}, ["speech"]),
        ("llada", {}, ["diffusion language model"]),
        ("mamba2", {}, ["recurrent state", "only those of mamba, lfm2, qwen3next", "Take the model's safetensors"]),
        ("gemma4", {"gemma4.expert_count": 128}, ["'gemma4' model", "not known here", "Take the model's safetensors"]),
        ("t5", {}, ["encoder-decoder"]),
        ("imatrix", {}, ["not a model"]),
        ("brandnew", {}, ["'brandnew' model", "GGUF files are read of"]),
    ],
)
def test_gguf_files_that_are_no_causal_model(tmp_path, architecture, keys, words):
    writer = gguf.GGUFWriter(str(tmp_path / "it.gguf"), architecture)
    for key, value in keys.items():
        (writer.add_uint32 if isinstance(value, int) else writer.add_string)(key, value)
    writer.add_tensor("token_embd.weight", torch.zeros(4, 32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    refused(tmp_path / "it.gguf", *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS pointer"]),
        (b"<!doctype html><html>", ["HTML page"]),
        (b"tjgg" + bytes(100), ["before GGUF"]),
        (b"PK\x03\x04" + bytes(100), ["zip archive"]),
        (b"GGUF\x01\0\0\0" + bytes(100), ["version 1"]),
        (b"GGUF\0\0\0\x03" + bytes(100), ["other byte order"]),
    ],
)
def test_files_that_only_end_like_gguf(tmp_path, content, words):
    (tmp_path / "it.gguf").write_bytes(content)
    refused(tmp_path / "it.gguf", *words)


# --- folders that are nearly right ------------------------------------------------------------------------------------


def test_a_configuration_with_a_byte_order_mark(folder):
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + (folder / "config.json").read_bytes())
    refused(folder, "config.json", "byte order mark", "Save it as UTF-8 without a mark")


def test_a_family_that_transformers_does_not_know(folder):
    change(folder, model_type="brand_new")
    refused(folder, "'brand_new' model", "A newer release of transformers may", kind=UnsupportedModelError)


@pytest.mark.parametrize(("file", "kind"), [("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ")])
def test_quantisation_that_stands_beside_the_configuration(folder, file, kind):
    (folder / file).write_text('{"bits": 3}')
    refused(folder, f"quantised with {kind}", "unquantised safetensors", kind=UnsupportedModelError)


@pytest.mark.parametrize("settings", ["awq", {}])
def test_quantisation_settings_that_say_nothing(folder, settings):
    change(folder, quantization_config=settings)
    refused(folder, "quantization_config", "Remove it if the weights are not quantised")


def rename(folder, new):
    held = load_file(folder / "model.safetensors")
    save_file({new(name): weight for name, weight in held.items()}, folder / "model.safetensors", {"format": "pt"})


def test_quantised_weights_that_no_setting_names(folder):
    rename(folder, lambda name: name.replace("proj.weight", "proj.qweight"))
    refused(folder, "lacks 14 weights", "quantised ones", "down_proj.qweight", "Take the unquantised model")


def test_weights_saved_from_within_another_module(folder):
    rename(folder, lambda name: f"policy.{name}")
    refused(folder, "lacks 21 weights", "21 others (policy.lm_head.weight", "saved from inside another module")


def test_weights_of_another_shape_are_named_with_both(folder):
    change(folder, vocab_size=300)
    refused(folder, "lm_head.weight: (260, 32), not (300, 32)", "belong to different models")


def test_an_adapter_beside_a_whole_model(folder):
    (folder / "adapter_config.json").write_text(json.dumps(LORA))
    refused(folder, "a whole model and an adapter", "merge both")


def test_a_folder_without_a_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    refused(folder, "it has no tokenizer.json")


def test_an_index_without_metadata(folder):
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"weight_map": dict.fromkeys(held, "a.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, 'no "metadata"', 'add "metadata": {}')


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no name here")
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_pipes_are_not_waited_for(folder, file):
    (folder / file).unlink()
    os.mkfifo(folder / file)
    refused(folder, file, "it is a pipe, socket or device")
