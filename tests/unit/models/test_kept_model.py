"""A model from its kept description is the one that transformers has built, to the bit."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.decoder_lm import DecoderLM
from rapid_integrations.models.kept_model import NUMBERS, STRUCTURE, KeptModel
from tests.toys import gguf_families, gguf_hybrids, gguf_mixers
from tests.toys.gguf_experts import TOKENIZER, logits

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0"),
]
FAMILIES = [(gguf_families.made, gguf_families.write_family, name) for name in gguf_families.ARCHITECTURES]
FAMILIES += [(gguf_mixers.made, gguf_mixers.write_mixers, name) for name in gguf_mixers.FAMILIES]
FAMILIES += [(gguf_hybrids.made, gguf_hybrids.write_hybrid, "qwen3_5_text")]


OPTIONS = {"": {}, "int4": {"quantization": "int4"}, "float32": {"dtype": "float32"}}
QUICK = {("gemma3_text", ""), ("phi3", "int4"), ("granite", "float32"), ("cohere2", "")}
IN_FOLDERS = [
    pytest.param(family, options, id=f"{family}-{name}", marks=[] if (family, name) in QUICK else [pytest.mark.slow])
    for family in gguf_families.ARCHITECTURES
    for name, options in OPTIONS.items()
]


def load(path):
    return loader.load(path, dtype="bfloat16")


@pytest.mark.parametrize(
    ("made", "write", "name"),
    [
        pytest.param(
            *each, id=each[-1], marks=[] if each[-1] in ("gemma3_text", "granite4_moe", "lfm2") else pytest.mark.slow
        )
        for each in FAMILIES
    ],
)
def test_a_later_start_has_the_same_bits(tmp_path, made, write, name):
    path = write(tmp_path / "tiny.gguf", made(name))
    first, later = load(path), load(path)
    assert not isinstance(first.lm.model, KeptModel) and isinstance(later.lm.model, KeptModel)
    assert later.lm.fingerprint() == first.lm.fingerprint()
    assert later.lm.num_parameters == first.lm.num_parameters
    assert torch.equal(logits(later), logits(first))
    copies = [each.lm.transformers_copy(torch.float32).state_dict() for each in (first, later)]
    assert all(torch.equal(copies[0][key], copies[1][key]) for key in copies[0].keys() | copies[1].keys())


@pytest.mark.process
def test_a_later_start_needs_no_transformers(tmp_path, home, kernels):
    if kernels.exists():
        shutil.copytree(kernels, home / "kernels")
    path = gguf_families.write_family(tmp_path / "tiny.gguf", gguf_families.made("gemma3_text"))
    load(path)
    code = f"""
import sys
from rapid_integrations.models import loader
print(type(loader.load({str(path)!r}, dtype="bfloat16").lm.model).__name__)
print([name for name in ("transformers.modeling_utils", "transformers.models") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["KeptModel", "[]"], done.stdout + done.stderr


def damage_text(folder):
    (folder / STRUCTURE).write_text("{")


def damage_numbers(folder):
    (folder / NUMBERS).write_bytes(b"nothing")


def forget_a_weight(folder):
    written = json.loads((folder / STRUCTURE).read_text())
    written["tensors"].popitem()
    (folder / STRUCTURE).write_text(json.dumps(written))


def name_no_part(folder):
    text = (folder / STRUCTURE).read_text()
    (folder / STRUCTURE).write_text(text.replace('"is a": "Mlp"', '"is a": "os.system"'))


@pytest.mark.parametrize("damage", [damage_text, damage_numbers, forget_a_weight, name_no_part])
def test_a_damaged_description_is_not_used(tmp_path, home, damage):
    path = gguf_families.write_family(tmp_path / "tiny.gguf", gguf_families.made("olmo2"))
    first = load(path)
    (folder,) = (home / "gguf").iterdir()
    damage(folder)
    later = load(path)
    assert not isinstance(later.lm.model, KeptModel) and torch.equal(logits(later), logits(first))


def test_the_description_of_other_code_is_not_used(tmp_path, home, monkeypatch):
    path = gguf_families.write_family(tmp_path / "tiny.gguf", gguf_families.made("olmo2"))
    load(path)
    monkeypatch.setattr("rapid_integrations.models.gguf.stored.environment", lambda *settings: ("other code", settings))
    assert not isinstance(load(path).lm.model, KeptModel)


# --- folders of safetensors -------------------------------------------------------------------------------------------


def written(folder, family, dtype=torch.bfloat16, **changes):
    """Write a model and its tokenizer; return the folder."""
    gguf_families.made(family, **changes).to(dtype).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def of_folder(folder, **options):
    return loader.load(folder, **options)


@pytest.mark.parametrize(("family", "options"), IN_FOLDERS)
def test_a_later_start_of_a_folder_has_the_same_bits(tmp_path, family, options):
    folder = written(tmp_path / "model", family)
    first, later = of_folder(folder, **options), of_folder(folder, **options)
    assert not isinstance(first.lm, DecoderLM) and isinstance(later.lm.model, KeptModel)
    for name in ("context_window", "vocab_size", "num_parameters", "num_layers", "dtype", "kernels", "has_parts"):
        assert getattr(later.lm, name) == getattr(first.lm, name), name
    assert later.lm.kv_bytes_per_token == first.lm.kv_bytes_per_token
    assert later.lm.fingerprint() == first.lm.fingerprint()
    assert later.vocabulary.eos_token_ids == first.vocabulary.eos_token_ids
    assert torch.equal(logits(later), logits(first))


def other_angles(folder):
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 1e6
    (folder / "config.json").write_text(json.dumps(config))


def other_weights(folder):
    written(folder, "olmo2", seed=7)


def other_ends(folder):
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | {"eos_token_id": [2, 5]}))


@pytest.mark.parametrize("change", [other_angles, other_weights, other_ends])
def test_a_changed_folder_is_loaded_through_transformers_again(tmp_path, change):
    folder = written(tmp_path / "model", "olmo2")
    before = of_folder(folder)
    change(folder)
    first, later = of_folder(folder), of_folder(folder)
    assert not isinstance(first.lm, DecoderLM) and isinstance(later.lm.model, KeptModel)
    assert later.vocabulary.eos_token_ids == first.vocabulary.eos_token_ids
    assert torch.equal(logits(later), logits(first))
    assert change is other_ends or not torch.equal(logits(later), logits(before))


def test_a_folder_with_states_is_not_kept(tmp_path):
    folder = tmp_path / "model"
    gguf_mixers.made("lfm2").to(torch.bfloat16).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    first, later = of_folder(folder), of_folder(folder)
    assert not isinstance(later.lm, DecoderLM) and torch.equal(logits(later), logits(first))
