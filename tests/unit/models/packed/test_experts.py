"""Quantised checkpoints of families with experts: their experts lie in blocks on the kernels."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.block_linear import BlockLinear, JoinedLinear
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.packed.scheme import scheme_of
from rapid_integrations.models.packed.tensors import PackedTensors
from rapid_integrations.models.run_check import check
from tests.toys import packed_checkpoints
from tests.toys.every_family import tiny
from tests.toys.gguf_experts import ROUNDED, SIZES, errors, logits

pytestmark = [
    pytest.mark.usefixtures("home"),
    pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0"),
]
EXPERTS = SIZES["num_experts"]
KINDS = {
    "qwen3_moe": packed_checkpoints.gptq(),
    "mixtral": packed_checkpoints.awq(),
    "olmoe": packed_checkpoints.compressed(),
    "qwen2_moe": packed_checkpoints.gptq(8),
    "glm4_moe": packed_checkpoints.compressed(8, 0, packed=False),
    "gpt_oss": packed_checkpoints.mxfp4(),
}


def written(folder, family, made=None):
    """Save a checkpoint; return its folder and a float32 model with the weights that it stands for."""
    make, settings = made or KINDS[family]
    fields = type(tiny(family).config).__dataclass_fields__
    sizes = {key: value for key, value in (SIZES | {"vocab_size": 260}).items() if key in fields}
    if family == "qwen2_moe":
        sizes |= {"sliding_window": None, "use_sliding_window": False}
    model = tiny(family, 1, **sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    only = (lambda name, weight: weight.ndim == 3) if family == "gpt_oss" else packed_checkpoints.of_layers
    path = packed_checkpoints.save_packed(folder / "model", model, make, settings, only)
    dense = dict(PackedTensors(path, scheme_of("it", settings)).dense(torch.float32))
    state = model.state_dict()
    of_files = iter(packed_checkpoints.published(model).items())
    with torch.no_grad():  # the views that have the published names are filled in place
        for name, view in of_files:
            view.copy_(dense[name])
    model.load_state_dict(state)
    return path, model


@pytest.mark.in_a_hurry(1)
@pytest.mark.parametrize(
    "family",
    [
        pytest.param(each, marks=[pytest.mark.slow] if each in ("olmoe", "glm4_moe", "qwen2_moe") else [])
        for each in KINDS
    ],
)
def test_experts_in_blocks(tmp_path, family):
    path, model = written(tmp_path, family)
    assert "repacked into blocks" in check(path).weights
    loaded = loader.load(path, dtype="bfloat16")
    assert type(loaded.lm) is StoredLM and not loaded.lm.kernels.startswith("none")
    experts = loaded.lm._fused._layers[-1].mlp
    assert all(isinstance(each, JoinedLinear) for each in experts.gate_up[:EXPERTS])
    assert all(isinstance(each, BlockLinear) for each in experts.down[:EXPERTS])
    ours = loaded.lm.transformers_copy(torch.float32).state_dict()
    for name, weight in model.state_dict().items():
        if ".experts." in name and not name.endswith("bias"):
            assert torch.equal(ours[name], weight), name
    assert errors(loaded, model).median() < ROUNDED
    assert torch.equal(logits(loaded, (60, 20)), logits(loaded, (60, *[1] * 20)))


def test_experts_of_which_one_is_not_quantised(tmp_path):
    make, settings = KINDS["qwen3_moe"]

    def but_one(weight):
        but_one.count += 1
        return {"weight": weight} if but_one.count == 20 else make(weight)

    but_one.count = 0
    path, model = written(tmp_path, "qwen3_moe", (but_one, settings))
    loaded = loader.load(path, dtype="bfloat16")
    assert type(loaded.lm) is HuggingFaceLM
    assert errors(loaded, model).median() < ROUNDED


@pytest.mark.parametrize("family", ["deepseek_v32", "mixtral"])
def test_levels_without_blocks_are_dequantised(tmp_path, family):
    path, model = written(tmp_path, family, packed_checkpoints.fp8())
    assert "dequantised, because floats of eight bits" in check(path).weights
    loaded = loader.load(path, dtype="float32")
    cache = loaded.lm.new_cache(40)
    ids = torch.arange(3, 43)
    found = loaded.lm.forward([Rows(ids, cache, 40)])[0]
    with torch.inference_mode():
        expected = model(ids[None]).logits[0]
    assert (found - expected).norm() / expected.norm() < 1e-4
