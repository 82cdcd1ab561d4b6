"""A model from its kept description is the one that transformers has built, to the bit."""

import json
import subprocess
import sys

import pytest
import torch

from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.kept_model import NUMBERS, STRUCTURE, KeptModel
from tests.toys import gguf_families, gguf_hybrids, gguf_mixers
from tests.toys.gguf_experts import logits

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0"),
]
FAMILIES = [(gguf_families.made, gguf_families.write_family, name) for name in gguf_families.ARCHITECTURES]
FAMILIES += [(gguf_mixers.made, gguf_mixers.write_mixers, name) for name in gguf_mixers.FAMILIES]
FAMILIES += [(gguf_hybrids.made, gguf_hybrids.write_hybrid, "qwen3_5_text")]


def load(path):
    return loader.load(path, dtype="bfloat16")


@pytest.mark.parametrize(("made", "write", "name"), FAMILIES, ids=[name for _, _, name in FAMILIES])
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
def test_a_later_start_needs_no_transformers(tmp_path):
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
