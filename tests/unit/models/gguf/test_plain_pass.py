"""The forward pass that the first start of a GGUF file compares with is transformers' own."""

import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models.gguf import comparison, plain_pass
from rapid_integrations.models.gguf.comparison import model_of, transformers_model
from rapid_integrations.models.gguf.description import configuration_of, weights_of
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.tensors import MappedTensors
from tests.toys.gguf_file import write_gguf
from tests.toys.models import byte_tokenizer, tiny_model

IDS = 7919 * torch.arange(1, 60) % 260
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ROPES = {"default": {"rope_type": "default"}, "linear": {"rope_type": "linear", "factor": 4.0}, "llama3": LLAMA3}
MERGES = (("t", "h"),)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": False,
    "vocab_size": 260,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": None,
}


def described(model):
    """Return what `configuration_of` says of such a model."""
    theirs = model.config
    config = {name: getattr(theirs, name) for name in CONFIG if hasattr(theirs, name)}
    return config | {"architectures": [type(model).__name__]}


@torch.inference_mode()
def of_transformers(model):
    return model(IDS[None]).logits[0]


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_it_computes_what_transformers_computes(kind, rope, tied):
    rope_parameters = {"rope_theta": 500.0, **ROPES[rope]}
    model = tiny_model(kind, 1, rope_parameters=rope_parameters, rms_norm_eps=0.01, tie_word_embeddings=tied)
    config, weights = described(model), dict(model.state_dict())
    if tied:
        del weights["lm_head.weight"]
    assert plain_pass.knows(config)
    assert distance(plain_pass.logits_of(config, weights, IDS), of_transformers(model)) < 1e-5


@pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_it_reads_blocks_of_a_file(tmp_path, kind):
    """Rows of a file of "llama" have another order. Pieces of the products are smaller than the matrices."""
    tokenizer = byte_tokenizer(merges=MERGES)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
    path, *_ = write_gguf(
        tmp_path / "a.gguf",
        tiny_model(kind, 1, **sizes),
        tokenizer,
        MERGES,
        formats=lambda name: Kind.Q6_K if "attn_v" in name else Kind.Q4_K,
    )
    header = read_header(path)
    config = configuration_of([header])
    weights = weights_of(MappedTensors([header]), config, torch.bfloat16)
    assert plain_pass.knows(config)
    expected = of_transformers(transformers_model(config, model_of(config, weights), torch.float32, exact=False))
    assert distance(plain_pass.logits_of(config, weights, IDS), expected) < 1e-5


def test_a_product_in_pieces(monkeypatch):
    model = tiny_model("llama", 1)
    whole = plain_pass.logits_of(described(model), model.state_dict(), IDS)
    monkeypatch.setattr(plain_pass, "_NUMBERS", 7 * 32)
    assert distance(plain_pass.logits_of(described(model), model.state_dict(), IDS), whole) < 1e-5


@pytest.mark.parametrize(
    "other",
    [
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"]},
        {"architectures": ["Qwen2ForCausalLM"]},
        {"hidden_act": "gelu"},
        {"sliding_window": 16},
        {"attention_bias": True},
        {"head_dim": 8.0},
        {"num_key_value_heads": 0},
        {"rope_parameters": None},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    ],
    ids=str,
)
def test_a_setting_that_it_does_not_know(other):
    assert plain_pass.knows(CONFIG)
    assert not plain_pass.knows(CONFIG | other)


@pytest.mark.parametrize("name", CONFIG)
def test_a_setting_that_is_left_out(name):
    assert not plain_pass.knows({key: value for key, value in CONFIG.items() if key != name})


def test_weights_that_are_missing_or_left_over():
    model = tiny_model("llama", 1)
    weights = dict(model.state_dict())
    with pytest.raises(ValueError, match="q_norm"):
        plain_pass.logits_of(CONFIG, weights | {"model.layers.1.self_attn.q_norm.weight": torch.ones(8)}, IDS)
    del weights["model.layers.0.mlp.up_proj.weight"]
    with pytest.raises(KeyError, match="up_proj"):
        plain_pass.logits_of(CONFIG, weights, IDS)


def test_the_number_of_threads_is_as_before():
    before = torch.get_num_threads()
    with comparison._on_one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
