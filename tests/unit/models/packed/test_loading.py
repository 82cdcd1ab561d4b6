"""Quantised checkpoints as models: in blocks on the kernels, and dequantised in float32."""

import pytest
import torch
from transformers import GptOssConfig, GptOssForCausalLM

from rapid_integrations.cache import Rows
from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.engine import RapidEngine
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.packed.scheme import scheme_of
from rapid_integrations.models.packed.tensors import PackedTensors
from tests.toys import packed_checkpoints
from tests.toys.greedy_answers import assert_same_answer, generated_with_gaps, prompt_ids
from tests.toys.models import randomise, tiny_model

pytestmark = pytest.mark.usefixtures("home")
needs_kernels = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
IDS = torch.arange(3, 63)
ROUNDED = 0.05  # of bfloat16, and of inputs with eight bits; what is wrong is off by 1
BLOCKS = {
    "gptq": packed_checkpoints.gptq(),
    "gptq, 8 bits": packed_checkpoints.gptq(8),
    "awq": packed_checkpoints.awq(),
    "packed": packed_checkpoints.compressed(symmetric=False),
    "integers": packed_checkpoints.compressed(8, 0, packed=False),
}
DENSE = {
    "gptq, act-order": packed_checkpoints.gptq(ordered=True),
    "gptq, 8 bits, asymmetric": packed_checkpoints.gptq(8, symmetric=False),
    "fp8": packed_checkpoints.fp8(),
    "fbgemm": packed_checkpoints.fbgemm(),
    "compressed, fp8": packed_checkpoints.compressed_fp8(),
}
SLOW = ("gptq, 8 bits", "packed", "integers", "gptq, 8 bits, asymmetric", "fbgemm", "compressed, fp8")


def each(formats):
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in formats]


def written(folder, name, kind="llama", scale=0.3, **shape):
    """Save a checkpoint; return its folder and a float32 model with the weights that it stands for."""
    make, settings = (BLOCKS | DENSE)[name]
    model = tiny_model(kind, 1, **SHAPE | shape)
    with torch.no_grad():
        for parameter in model.base_model.layers.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    path = packed_checkpoints.save_packed(folder / "model", model, make, settings)
    model.load_state_dict(dict(PackedTensors(path, scheme_of("it", settings)).dense(torch.float32)), strict=False)
    model.tie_weights()
    return path, model


def answers_as_generated(path, model):
    ids = prompt_ids("the cat sat on the mat and the dog sat on the cat")
    expected, gaps = generated_with_gaps(model, ids, 12)
    engine = RapidEngine.from_pretrained(path, dtype="float32", embedder=None)
    try:
        answer = engine.generate(
            "the cat sat on the mat and the dog sat on the cat",
            sampling=SamplingParams(max_new_tokens=12),
            speculation=SpeculationConfig(law="target", proposer="prompt_lookup", draft_length=4),
        )
    finally:
        engine.close()
    assert_same_answer(answer, expected, gaps)


@torch.inference_mode()
def error(loaded, model):
    cache = loaded.lm.new_cache(len(IDS))
    parts = torch.split(IDS, [40, 2, 1, 17])
    logits = torch.cat([loaded.lm.forward([Rows(part, cache, len(part))])[0] for part in parts])
    expected = model(IDS[None]).logits[0]
    return float((logits - expected).norm() / expected.norm())


@pytest.mark.in_a_hurry(2)
@pytest.mark.parametrize("name", each(BLOCKS | DENSE))
def test_greedy_answers_in_float32(tmp_path, name):
    answers_as_generated(*written(tmp_path, name, scale=1.0))


@needs_kernels
@pytest.mark.parametrize("name", each(BLOCKS))
def test_blocks_on_the_kernels(tmp_path, name):
    path, model = written(tmp_path, name)
    stages = []
    loaded = loader.load(path, dtype="bfloat16", on_progress=lambda stage, *_: stages.append(stage))
    assert type(loaded.lm) is StoredLM and not loaded.lm.kernels.startswith("none")
    assert any("without a second rounding" in stage for stage in stages)
    ours = loaded.lm.transformers_copy(torch.float32).state_dict()
    for key, weight in model.state_dict().items():
        same = weight if ".layers." in key and weight.ndim == 2 else weight.bfloat16().float()
        assert torch.equal(ours[key], same), key
    assert error(loaded, model) < ROUNDED


@needs_kernels
@pytest.mark.slow
def test_a_family_with_biases_and_a_shared_table(tmp_path):
    path, model = written(tmp_path, "awq", "qwen2", tie_word_embeddings=True)
    loaded = loader.load(path, dtype="bfloat16")
    assert type(loaded.lm) is StoredLM
    assert error(loaded, model) < ROUNDED


@pytest.mark.parametrize("name", each(DENSE))
def test_what_no_block_holds_is_dequantised(tmp_path, name):
    path, model = written(tmp_path, name)
    stages = []
    loaded = loader.load(path, dtype="bfloat16", on_progress=lambda stage, *_: stages.append(stage))
    assert type(loaded.lm) is HuggingFaceLM
    assert any("to bfloat16 (rounded a second time)" in stage for stage in stages)
    ours = loaded.lm.transformers_copy(torch.float32).state_dict()
    for key, weight in model.state_dict().items():
        assert torch.equal(ours[key], weight.bfloat16().float()), key
    assert error(loaded, model) < ROUNDED


@pytest.mark.slow
def test_quantisation_that_is_asked_for_dequantises_first(tmp_path):
    path, model = written(tmp_path, "gptq")
    loaded = loader.load(path, dtype="bfloat16", quantization="int8")
    assert type(loaded.lm) is HuggingFaceLM
    assert error(loaded, model) < 2 * ROUNDED


def test_the_experts_of_gpt_oss(tmp_path):
    config = GptOssConfig(
        vocab_size=260,
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=16,
        bos_token_id=256,
        eos_token_id=[257, 259],
        pad_token_id=None,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    model = randomise(GptOssForCausalLM(config), 1).eval()
    make, settings = packed_checkpoints.mxfp4()
    path = packed_checkpoints.save_packed(
        tmp_path / "model", model, make, settings, only=lambda name, weight: weight.ndim == 3
    )
    weights = dict(PackedTensors(path, scheme_of("it", settings)).dense(torch.float32))
    assert {key for key, each in weights.items() if not torch.equal(each, model.state_dict()[key])} == {
        f"model.layers.{layer}.mlp.experts.{part}" for layer in (0, 1) for part in ("gate_up_proj", "down_proj")
    }
    model.load_state_dict(weights)
    answers_as_generated(path, model)


def test_settings_in_a_file_beside_the_configuration(tmp_path):
    make, settings = packed_checkpoints.awq()
    model = tiny_model("llama", 1, **SHAPE)
    path = packed_checkpoints.save_packed(tmp_path / "model", model, make, None)
    (path / "quant_config.json").write_text('{"zero_point": true, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}')
    model.load_state_dict(dict(PackedTensors(path, scheme_of("it", settings)).dense(torch.float32)))
    assert error(loader.load(path, dtype="float32"), model) < 1e-4
