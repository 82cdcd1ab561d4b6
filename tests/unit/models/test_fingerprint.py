"""Two models have one fingerprint when they compute the same."""

import copy

import pytest
import torch

from rapid_integrations.errors import CacheError
from rapid_integrations.models.fingerprint import fingerprint
from tests.toys.models import tiny_model


def test_the_same_model_loaded_again_has_the_same_one(tmp_path):
    model = tiny_model("llama", 0)
    model.save_pretrained(tmp_path / "a")
    again = type(model).from_pretrained(tmp_path / "a")
    assert fingerprint(again) == fingerprint(model) == fingerprint(copy.deepcopy(model))
    again.set_attn_implementation("eager")
    assert fingerprint(again) == fingerprint(model)
    assert len(fingerprint(model)) == 64


def test_every_single_weight_counts():
    model = tiny_model("llama", 0)
    known = {fingerprint(model)}
    for parameter in model.parameters():
        for place in (0, parameter.numel() // 2, parameter.numel() - 1):
            changed = parameter.data.view(-1)[place]
            changed += 1e-6 * changed.abs() + 1e-6
            known.add(fingerprint(model))
    assert len(known) == 1 + 3 * sum(1 for _ in model.parameters())


def test_configuration_type_and_shape_count():
    model = tiny_model("llama", 0)
    other = copy.deepcopy(model)
    other.config.rms_norm_eps *= 2
    low = copy.deepcopy(model).to(torch.bfloat16)
    assert len({fingerprint(m) for m in (model, other, low, tiny_model("llama", 1), tiny_model("qwen2", 0))}) == 5


def test_weights_that_are_elsewhere_have_none():
    model = tiny_model("llama", 0)
    model.lm_head.to("meta")
    with pytest.raises(CacheError, match="several devices"):
        fingerprint(model)
    with pytest.raises(CacheError, match="cannot be read"):
        fingerprint(model.to("meta"))
