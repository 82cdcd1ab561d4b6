"""GGUF files that are computed in their own blocks: the weights are those of the file, and so are the answers."""

import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from rapid_integrations.cache import Rows
from rapid_integrations.config import home as home_of
from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.gguf import comparison, plain_pass, stored
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.quick_tokenizer import QuickTokenizer
from tests.toys.gguf_file import write_gguf
from tests.toys.models import byte_tokenizer, tiny_model

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0"),
]

IDS = torch.arange(3, 83)
MERGES = (("t", "h"),)
SPARED = ("transformers.modeling_utils", "transformers.models", "torch._dynamo", "scipy", "sympy", "gguf")
ROUNDED = 0.08  # random weights make much of what is rounded off; a wrong one is above 0.3
TOKENIZER = byte_tokenizer(merges=MERGES)
SHAPE = {
    "vocab_size": len(TOKENIZER),
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}


def mixed(name):
    """As llama.cpp's Q4_K_M, and every other format beside it."""
    if "attn_v" in name:
        return Kind.Q6_K
    if "attn_output" in name:
        return Kind.Q5_K
    if "ffn_down" in name:
        return Kind.Q6_K if "blk.0" in name else Kind.Q5_0
    return {"token_embd.weight": Kind.Q4_K, "output.weight": Kind.Q6_K}.get(name, Kind.Q4_K)


def write(folder, kind="qwen2", formats=mixed, name="tiny.gguf", seed=1, shape=None, **options):
    """Write a file; return its path and a float32 model with the weights that the file stands for."""
    model = tiny_model(kind, seed, **SHAPE | (shape or {}))
    with torch.no_grad():
        for parameter in model.base_model.layers.parameters():
            if parameter.ndim == 2:
                parameter.mul_(0.3)  # random weights that are large blow up what is rounded
    (folder / "files").mkdir(exist_ok=True)
    path, *_ = write_gguf(folder / "files" / name, model, TOKENIZER, MERGES, formats=formats, **options)
    return path, model


@torch.inference_mode()
def logits(loaded, parts=(60, 2, 1, 17)):
    cache = loaded.lm.new_cache(len(IDS))
    return torch.cat([loaded.lm.forward([Rows(part, cache, len(part))])[0] for part in torch.split(IDS, list(parts))])


def error(loaded, model):
    with torch.inference_mode():
        expected = model(IDS[None]).logits[0]
    return float((logits(loaded) - expected).norm() / expected.norm())


def load(path, **options):
    return loader.load(path, **{"dtype": "bfloat16"} | options)


@pytest.mark.once
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_file_of_several_formats(tmp_path, kind, tied):
    path, model = write(
        tmp_path, kind, leave_out=("output.weight",) if tied else (), shape={"tie_word_embeddings": tied}
    )
    loaded = load(path)
    assert type(loaded.lm) is StoredLM
    theirs, ours = model.state_dict(), loaded.lm.transformers_copy(torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items():
        held = weight if weight.ndim == 2 else weight.bfloat16().float()  # norms and biases
        assert torch.equal(ours[name], held), name
    assert error(loaded, model) < ROUNDED
    assert loaded.lm.num_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("form", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16"])
def test_a_file_of_one_format(tmp_path, form):
    path, model = write(tmp_path, formats=lambda name: Kind[form])
    loaded = load(path)
    assert type(loaded.lm) is StoredLM
    assert error(loaded, model) < ROUNDED


def test_steps_without_kernels_use_the_same_blocks(tmp_path, monkeypatch):
    path, model = write(tmp_path)
    loaded = load(path)
    monkeypatch.setattr(loaded.lm._fused, "_native", None)
    assert error(loaded, model) < ROUNDED


def test_a_draft_has_the_bits_of_single_steps(tmp_path):
    loaded = load(write(tmp_path)[0])
    assert torch.equal(logits(loaded, (60, 20)), logits(loaded, (60, *[1] * 20)))


def test_the_second_start_needs_no_conversion(tmp_path, monkeypatch):
    path, _ = write(tmp_path)
    first = load(path)
    monkeypatch.setattr(stored, "_converted", None)
    monkeypatch.setattr(stored, "compare", None)
    second = load(path)
    assert type(second.lm) is StoredLM and isinstance(second.vocabulary.tokenizer, QuickTokenizer)
    assert torch.equal(logits(first), logits(second))
    assert first.lm.fingerprint() == second.lm.fingerprint()
    assert first.vocabulary.serialized() == second.vocabulary.serialized()
    assert first.vocabulary.eos_token_ids == second.vocabulary.eos_token_ids != frozenset()


def test_it_is_the_model_that_transformers_dequantises(tmp_path):
    path, _ = write(tmp_path, "llama")
    kept, dequantised = load(path), load(path, quick=False)
    assert torch.nn.functional.cosine_similarity(logits(kept), logits(dequantised)).min() > 0.97
    assert kept.vocabulary.serialized() == dequantised.vocabulary.serialized()
    assert kept.vocabulary.eos_token_ids == dequantised.vocabulary.eos_token_ids
    assert kept.lm.context_window == dequantised.lm.context_window


def test_another_weight_is_another_model(tmp_path):
    first = load(write(tmp_path)[0])
    path, model = write(tmp_path, seed=2)
    os.utime(path, ns=(0, 0))
    second = load(path)
    assert error(second, model) < ROUNDED
    assert first.lm.fingerprint() != second.lm.fingerprint()


def test_a_table_is_part_of_the_fingerprint(tmp_path):
    prints = set()
    for form in (Kind.Q8_0, Kind.Q5_1):
        path, _ = write(tmp_path, formats=lambda name, form=form: form if name == "token_embd.weight" else Kind.Q4_0)
        os.utime(path, ns=(0, int(form) * 10**9))
        prints.add(load(path).lm.fingerprint())
    assert len(prints) == 2


def test_heads_that_the_kernels_do_not_serve(tmp_path):
    path, model = write(tmp_path, formats=lambda name: Kind.Q8_0, shape={"hidden_size": 160, "head_dim": 40})
    loaded = load(path)
    assert type(loaded.lm) is not StoredLM
    assert error(loaded, model) < ROUNDED


def test_a_model_in_several_files_is_not_joined(tmp_path, home):
    path, model = write(tmp_path, parts=3)
    assert error(load(path), model) < ROUNDED
    assert not (home / "dequantised").exists()


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"quantization": "int8"}, {"quick": False}], ids=str)
def test_other_ways_of_loading_dequantise(tmp_path, options):
    path, model = write(tmp_path)
    loaded = load(path, **options)
    assert type(loaded.lm) is not StoredLM
    assert error(loaded, model) < 3 * ROUNDED  # int8 rounds the weights once more


@pytest.mark.parametrize("key", ["qwen2__attention__sliding_window", "qwen2__attention__scale"])
def test_what_a_file_says_and_is_not_known_here_is_left_to_transformers(tmp_path, key):
    path, _ = write(tmp_path, **{key: 32})
    assert type(load(path).lm) is not StoredLM


def test_nothing_is_shown(tmp_path, capfd):
    path, _ = write(tmp_path)
    for options in ({}, {"quick": False}):
        load(path, **options)
    assert capfd.readouterr() == ("", "")


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["blk.1.ffn_up.weight", "blk.0.attn_k.bias"])
def test_a_weight_that_is_missing(tmp_path, name):
    path, _ = write(tmp_path, leave_out=(name,))
    with pytest.raises(ModelLoadError, match="random"):
        load(path)


def test_weights_that_are_no_numbers(tmp_path):
    path, _ = write(tmp_path, formats=lambda name: Kind.Q8_0)
    content = bytearray(path.read_bytes())
    header = stored.read_parts([path])[0]
    (tensor,) = (each for each in header.tensors if each.name == "blk.1.ffn_down.weight")
    start = header.data_start + tensor.offset
    content[start : start + 2] = b"\x00\x7e"  # a scale that is NaN
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="NaN"):
        load(path)


def test_rows_in_a_wrong_order_are_noticed(tmp_path, rows_packed_wrongly):
    path, _ = write(tmp_path, "llama")
    with pytest.raises(UnsupportedModelError, match="differs from transformers"):
        load(path)


def _other_epsilon(skeleton):
    for module in skeleton.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 1.0


def _of_attention(name, value):
    def spoil(skeleton):
        for layer in skeleton.base_model.layers:
            setattr(layer.self_attn, name, value)

    return spoil


FAULTS = {
    "angles": lambda skeleton: skeleton.base_model.rotary_emb.inv_freq.mul_(3.0),
    "epsilon": _other_epsilon,
    "scale": _of_attention("scaling", 1.0),
    "window": _of_attention("sliding_window", 2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_description_is_noticed(tmp_path, monkeypatch, fault):
    """The engine computes with other numbers than the file says."""
    right = comparison.model_of

    def wrong(config, weights, **how):
        built = right(config, weights, **how)
        FAULTS[fault](built)
        return built

    path, _ = write(tmp_path, "llama")
    monkeypatch.setattr(comparison, "model_of", wrong)
    with pytest.raises(UnsupportedModelError, match="differs from transformers"):
        load(path)


def test_transformers_has_the_last_word(tmp_path, monkeypatch):
    path, model = write(tmp_path)
    monkeypatch.setattr(plain_pass, "logits_of", lambda config, weights, ids: torch.ones(len(ids), len(TOKENIZER)))
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and error(loaded, model) < ROUNDED


@pytest.mark.process
def test_a_first_start_imports_no_models_of_transformers(tmp_path, home, kernels):
    path, _ = write(tmp_path)
    if kernels.exists():
        shutil.copytree(kernels, home / "kernels")
    code = f"""
import sys
from rapid_integrations.models import loader
print(type(loader.load({str(path)!r}, dtype="bfloat16").lm).__name__)
print([name for name in {SPARED!r} if name in sys.modules])
"""
    for start in ("first", "later"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        assert done.stdout.splitlines() == ["StoredLM", "[]"], (start, done.stdout + done.stderr)


def test_a_home_that_cannot_be_written(tmp_path, home, monkeypatch):
    path, model = write(tmp_path)
    home.mkdir(exist_ok=True)
    (home / "gguf").write_text("a file in the place of the folder")
    with pytest.warns(UserWarning, match="the tokenizer could not be saved"):
        loaded = load(path)
    assert error(loaded, model) < ROUNDED


def test_a_damaged_tokenizer_is_converted_again(tmp_path):
    path, _ = write(tmp_path)
    expected = load(path).vocabulary.serialized()
    (folder,) = (home_of() / "gguf").iterdir()
    (folder / "tokenizer.json").write_text("{")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(path).vocabulary.serialized() == expected
    shutil.rmtree(folder)
    assert load(path).vocabulary.serialized() == expected
