"""A model that was checked before loads without transformers, and any change of it is checked again."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import rapid_integrations
from rapid_integrations.cache import Rows
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader, placement, quick_start
from rapid_integrations.models.decoder_lm import DecoderLM
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.quick_start import quick_model, same_tokenizer
from rapid_integrations.models.quick_tokenizer import QuickTokenizer
from rapid_integrations.models.skeleton import shape_of
from tests.toys.chat_templates import GPT_OSS, QWEN3
from tests.toys.gguf_file import write_gguf
from tests.toys.model_folder import change
from tests.toys.models import byte_tokenizer, tiny_model

pytestmark = pytest.mark.usefixtures("home")

IDS = torch.arange(3, 80)
CPU = torch.device("cpu")
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@torch.inference_mode()
def logits(loaded):
    cache = loaded.lm.new_cache(len(IDS))
    parts = (IDS[:60], IDS[60:62], IDS[62:])
    return torch.cat([loaded.lm.forward([Rows(part, cache, len(part))])[0] for part in parts])


def kinds(*loaded):
    return [type(each.lm) for each in loaded]


def saved(folder, kind, **config):
    model = tiny_model(kind, 1, **config)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)  # as the family's own class writes it
    return folder


# --- what the second start loads is what the first one loaded ---------------------------------------------------------


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"rope_parameters": LLAMA3}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": 16}),
    ],
)
def test_a_second_start_computes_the_same_bits_without_transformers(tmp_path, kind, config, dtype):
    folder = saved(tmp_path / "model", kind, **config)
    first, second = (loader.load(folder, dtype=dtype) for _ in range(2))
    assert kinds(first, second) == [HuggingFaceLM, DecoderLM]
    assert torch.equal(logits(first), logits(second))
    assert first.lm.fingerprint() == second.lm.fingerprint()
    for name in (
        "name",
        "context_window",
        "vocab_size",
        "device",
        "dtype",
        "num_parameters",
        "weight_bytes",
        "kernels",
    ):
        assert getattr(first.lm, name) == getattr(second.lm, name), name
    assert first.vocabulary.eos_token_ids == second.vocabulary.eos_token_ids
    text = "aé<|im_end|> \ud800"
    assert first.vocabulary.encode(text) == second.vocabulary.encode(text)
    messages = [{"role": "user", "content": "Hi"}]
    assert first.vocabulary.render_chat(messages) == second.vocabulary.render_chat(messages)
    second.vocabulary.require_same(first.vocabulary, "one", "other")


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantised_models_start_quickly_too(folder, quantization):
    first, second = (loader.load(folder, dtype="bfloat16", quantization=quantization) for _ in range(2))
    assert kinds(first, second) == [HuggingFaceLM, DecoderLM]
    assert torch.equal(logits(first), logits(second))
    assert first.lm.fingerprint() == second.lm.fingerprint()


def test_a_gguf_file_starts_quickly_the_second_time(tmp_path):
    path = tmp_path / "gguf" / "tiny.gguf"
    path.parent.mkdir()
    merges = (("t", "h"),)
    tokenizer = byte_tokenizer(merges=merges)
    write_gguf(path, tiny_model("qwen2", 1, vocab_size=len(tokenizer)), tokenizer, merges)
    first, second = (loader.load(path, dtype="float32") for _ in range(2))
    assert kinds(first, second) == [HuggingFaceLM, DecoderLM]
    assert torch.equal(logits(first), logits(second))
    assert first.lm.fingerprint() == second.lm.fingerprint()
    slow = loader.load(path, dtype="float32", quick=False)
    assert first.vocabulary.serialized() == second.vocabulary.serialized() == slow.vocabulary.serialized()


@pytest.mark.in_a_hurry(1)
@pytest.mark.skipif(native_library() is None or not native_library().rapid_fast_path(), reason="no code for vectors")
@pytest.mark.parametrize(("head_dim", "dtype"), [(32, torch.bfloat16), (16, torch.float32)])
@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_auto_does_not_take_what_an_earlier_start_asked_for(tmp_path, monkeypatch, head_dim, dtype, asked):
    """Without instructions for bfloat16 it is that for what the kernels compute, which heads of 16 numbers are not."""
    monkeypatch.setattr(placement, "pytorch_has_bfloat16", lambda: False)
    monkeypatch.setattr(placement, "multiplies_prompts", lambda: True)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 64 // head_dim}
    folder = saved(tmp_path, "llama", head_dim=head_dim, num_key_value_heads=1, **sizes)
    loader.load(folder, dtype=asked)
    for _ in range(2):
        loaded = loader.load(folder)
        assert loaded.lm.dtype == dtype and loaded.lm.kernels.startswith("none") == (head_dim == 16)
    assert loader.load(folder, device_map="cpu").lm.dtype == torch.float32


def test_a_copy_for_transformers_has_the_same_weights(folder):
    loader.load(folder, dtype="float32")
    quick = loader.load(folder, dtype="float32")
    model = quick.lm.transformers_copy(torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(model(IDS[None]).logits[0], logits(quick), rtol=0, atol=1e-3)


# --- any change is checked again --------------------------------------------------------------------------------------


def test_a_changed_weight_is_checked_again(folder):
    for _ in range(2):
        last = loader.load(folder, dtype="float32")
    assert kinds(last) == [DecoderLM]
    before = logits(last)
    path = folder / "model.safetensors"
    status = path.stat()
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    weights["model.layers.1.mlp.down_proj.weight"][3, 3] += 1.0
    del last
    save_file(weights, path, metadata={"format": "pt"})
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # neither size nor time shows it
    assert path.stat().st_size == status.st_size
    changed = loader.load(folder, dtype="float32")
    assert kinds(changed) == [HuggingFaceLM]
    assert not torch.equal(before, logits(changed))
    again = loader.load(folder, dtype="float32")
    assert kinds(again) == [DecoderLM] and torch.equal(logits(changed), logits(again))


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"rms_norm_eps": 1e-3}),
        ("generation_config.json", {"eos_token_id": 5}),
        ("tokenizer_config.json", {"eos_token": "<|im_end|>"}),
    ],
)
def test_a_changed_setting_is_checked_again(folder, file, changes):
    assert kinds(*(loader.load(folder) for _ in range(2))) == [HuggingFaceLM, DecoderLM]
    change(folder, file, **changes)
    assert kinds(*(loader.load(folder) for _ in range(2))) == [HuggingFaceLM, DecoderLM]


def test_other_arguments_libraries_and_code_are_checked_again(folder, monkeypatch):
    keys = {quick_model(folder, torch.float32, CPU, None, unchecked=True).key for _ in range(2)}
    assert len(keys) == 1
    keys.add(quick_model(folder, torch.bfloat16, CPU, None, unchecked=True).key)
    keys.add(quick_model(folder, torch.bfloat16, CPU, "int8", unchecked=True).key)
    with monkeypatch.context() as patch:
        patch.setattr(quick_start, "version", lambda name: "99.0")
        keys.add(quick_model(folder, torch.float32, CPU, None, unchecked=True).key)
    with monkeypatch.context() as patch:
        patch.setattr(rapid_integrations, "__version__", "99.0")
        quick_start._code.cache_clear()
        keys.add(quick_model(folder, torch.float32, CPU, None, unchecked=True).key)
    quick_start._code.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(quick_start, "native_variant", lambda: "another processor's")
        keys.add(quick_model(folder, torch.float32, CPU, None, unchecked=True).key)
    assert len(keys) == 6


def test_what_is_remembered_says_nothing_else(folder, home):
    loader.load(folder)
    (mark,) = (home / "checked").iterdir()
    assert mark.read_bytes() == b"" and mark.name == quick_model(folder, loader.load(folder).lm.dtype, CPU, None).key
    mark.write_text("anything")
    assert kinds(loader.load(folder)) == [DecoderLM]  # only its name counts
    mark.unlink()
    assert kinds(loader.load(folder)) == [HuggingFaceLM]


def test_no_library_parses_a_folder_that_was_not_checked(folder, monkeypatch):
    def refused(folder):
        raise AssertionError("the tokenizer was parsed")

    with monkeypatch.context() as patch:
        patch.setattr(quick_start, "QuickTokenizer", refused)
        assert quick_model(folder, torch.float32, CPU, None) is None
    loader.load(folder, dtype="float32")
    assert quick_model(folder, torch.float32, CPU, None) is not None


def test_a_model_that_differs_is_not_remembered(folder, home, monkeypatch):
    monkeypatch.setattr(quick_start, "_same_rotation", lambda theirs, ours: False)
    assert kinds(*(loader.load(folder) for _ in range(2))) == [HuggingFaceLM, HuggingFaceLM]
    assert not (home / "checked").exists()


@pytest.mark.parametrize(
    "differs",
    [
        lambda model, tokenizer: model.model.layers[1].mlp.up_proj.weight.data[2].add_(1.0),
        lambda model, tokenizer: setattr(model.model.norm, "variance_epsilon", 0.5),
        lambda model, tokenizer: setattr(model.model.layers[0].self_attn, "scaling", 0.5),
        lambda model, tokenizer: model.model.rotary_emb.inv_freq.mul_(2),
        lambda model, tokenizer: setattr(model.config, "max_position_embeddings", 99),
        lambda model, tokenizer: setattr(model.generation_config, "eos_token_id", 7),
        lambda model, tokenizer: setattr(tokenizer, "chat_template", "{{ messages[0].content }}"),
        lambda model, tokenizer: setattr(tokenizer, "bos_token", "a"),
        lambda model, tokenizer: setattr(tokenizer, "model_max_length", 99),
        lambda model, tokenizer: tokenizer.add_tokens(["new"]),
    ],
)
def test_every_part_is_compared(folder, differs):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    quick = quick_model(folder, torch.float32, CPU, None, unchecked=True)
    assert quick.equals(model, tokenizer)
    with torch.inference_mode():
        differs(model, tokenizer)
    assert not quick.equals(model, tokenizer)


# --- what only transformers loads -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "gemma3_text"},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 2.0}},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"quantization_config": {"quant_method": "gptq"}},
        {"auto_map": {"AutoModelForCausalLM": "own.Own"}},
    ],
)
def test_an_unknown_setting_is_left_to_transformers(folder, changes):
    config = json.loads((folder / "config.json").read_text())
    assert shape_of(config) is not None
    assert shape_of(config | changes) is None


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_left_to_transformers(folder, file):
    (folder / file).write_bytes((folder / file).read_bytes()[:200])
    assert quick_model(folder, torch.float32, CPU, None, unchecked=True) is None


def test_weights_that_do_not_belong_are_left_to_transformers(folder):
    path = folder / "model.safetensors"
    weights = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(weights | {"model.extra.weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    assert quick_model(folder, torch.float32, CPU, None, unchecked=True) is None


def test_it_can_be_switched_off(folder, monkeypatch):
    monkeypatch.setenv(quick_start.SWITCH, "0")
    assert kinds(*(loader.load(folder) for _ in range(2))) == [HuggingFaceLM, HuggingFaceLM]
    monkeypatch.delenv(quick_start.SWITCH)
    loader.load(folder)
    assert kinds(loader.load(folder, quick=False), loader.load(folder)) == [HuggingFaceLM, DecoderLM]


# --- the tokenizer ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [QWEN3, GPT_OSS])
def test_arguments_of_the_template_are_rendered_as_by_transformers(folder, template):
    tokenizer = byte_tokenizer(chat_template=template)
    tokenizer.save_pretrained(folder)
    quick = QuickTokenizer(folder)
    messages = [{"role": "user", "content": "<x>"}]
    texts = set()
    for given in ({}, {"enable_thinking": False}, {"reasoning_effort": "high", "model_identity": "é"}):
        options = {"tokenize": False, "add_generation_prompt": True, **given}
        texts.add(quick.apply_chat_template(messages, **options))
        assert quick.apply_chat_template(messages, **options) == tokenizer.apply_chat_template(messages, **options)
        tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
        assert quick.apply_chat_template(messages, tools, **options) == tokenizer.apply_chat_template(
            messages, tools, **options
        )
    assert len(texts) == 2  # each template reads the names of one
    assert same_tokenizer(AutoTokenizer.from_pretrained(folder), quick)


def test_what_a_template_writes_behind_a_switch_is_compared(folder):
    template = "{% if verbose %}{{ dict(a=1) }}{% endif %}{{ messages[0].content }}"  # `dict` is transformers' own
    byte_tokenizer(chat_template=template).save_pretrained(folder)
    theirs, quick = AutoTokenizer.from_pretrained(folder), QuickTokenizer(folder)
    messages = [{"role": "user", "content": "hi"}]
    assert quick.apply_chat_template(messages) == theirs.apply_chat_template(messages, tokenize=False)
    assert not same_tokenizer(theirs, quick)


def test_messages_that_are_not_plain_go_to_transformers(folder):
    template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }};{% endfor %}"
        "{{ tools }}"
    )
    tokenizer = byte_tokenizer(chat_template=template)
    tokenizer.save_pretrained(folder)
    quick = QuickTokenizer(folder)
    messages = [{"role": "assistant", "content": "x", "tool_calls": [{"type": "function", "function": {"name": "f"}}]}]
    expected = tokenizer.apply_chat_template(messages, tokenize=False)
    assert "function" in expected
    assert quick.apply_chat_template(messages) == expected
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
    plain = [{"role": "user", "content": "<x>"}]
    assert "of_transformers" in vars(quick)
    assert quick.apply_chat_template(plain, tools=tools) == tokenizer.apply_chat_template(
        plain, tools=tools, tokenize=False
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{% set ns = namespace(__init__=1) %}x",
        "{% set ns = namespace(a=1) %}{% set ns.__class__ = 2 %}x",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no') }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.x }}",
    ],
)
def test_templates_run_in_a_sandbox(folder, template):
    from jinja2 import TemplateError

    with pytest.raises(TemplateError):
        QuickTokenizer(folder).apply_chat_template([{"role": "user", "content": "x"}], chat_template=template)


def test_namespaces_and_loops_work_as_in_transformers(folder):
    template = (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% set ns.n = ns.n + 1 %}{{ m.content | trim | tojson }}{{ eos_token }}\n   {% endfor %}\n{{ ns.n }}"
    )
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": " <é> "}]
    expected = byte_tokenizer().apply_chat_template(messages, chat_template=template, tokenize=False)
    assert QuickTokenizer(folder).apply_chat_template(messages, chat_template=template) == expected


@pytest.mark.process
def test_a_second_start_imports_no_transformers(folder, tmp_path, kernels):
    code = (
        "import sys\n"
        "from rapid_integrations import RapidEngine\n"
        f"with RapidEngine.from_pretrained({str(folder)!r}) as engine:\n"
        "    pieces = list(engine.stream('Hello', apply_chat_template=True))\n"
        "heavy = ('transformers', 'sentence_transformers', 'torch._dynamo', 'sympy', 'scipy', 'pandas', 'matplotlib')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    if kernels.exists():
        shutil.copytree(kernels, tmp_path / "home" / "kernels")
    assert kinds(loader.load(folder)) == [HuggingFaceLM]  # the first start, in this process
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert second.stdout.strip() == "[]"


def test_kernels_that_were_not_kept_have_their_name(tmp_path):
    """They are loaded from a temporary folder. A file is known by its content, wherever it lies."""
    one, other = tmp_path / "kernels-1.so", tmp_path / "kernels-2.so"
    gone = {quick_start._digest_of(each) for each in (one, other)}
    for each in (one, other):
        each.write_bytes(b"the same")
    assert len(gone) == 2 and len({quick_start._digest_of(each) for each in (one, other)} - gone) == 1
