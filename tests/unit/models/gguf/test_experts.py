"""GGUF files of models with experts: their blocks are kept, and the answers are those of the dequantised weights."""

import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from rapid_integrations.cache import Rows
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.block_linear import BlockLinear, JoinedLinear
from rapid_integrations.models.gguf.stored import StoredLM
from tests.toys.every_family import tiny
from tests.toys.gguf_experts import ARCHITECTURES, write_experts
from tests.toys.models import BOS_ID, EOS_ID, byte_tokenizer

pytestmark = pytest.mark.usefixtures("home")
needs_kernels = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")

MERGES = (("t", "h"),)
TOKENIZER = byte_tokenizer(merges=MERGES)
IDS = torch.arange(3, 83)
ROUNDED = 0.05  # of bfloat16, and of inputs with eight bits; what is wrong is off by 1
SIZES = {
    **{"vocab_size": len(TOKENIZER), "hidden_size": 128, "intermediate_size": 64, "head_dim": 32, "sliding_window": 40},
    **{"moe_intermediate_size": 64, "shared_expert_intermediate_size": 96, "bos_token_id": BOS_ID},
    **{"eos_token_id": EOS_ID, "pad_token_id": None, "num_hidden_layers": 2},
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 8),
}
OTHERS = {
    "glm4_moe": {"use_qk_norm": True, "routed_scaling_factor": 1.5},
    "granitemoe": {"attention_multiplier": 0.1, "embedding_multiplier": 2.0, "logits_scaling": 4.0},
    "qwen3_moe": {"norm_topk_prob": True},
    "qwen2_moe": {"use_sliding_window": False, "max_window_layers": 2, "sliding_window": None},
    "mixtral": {"sliding_window": None},
}
ROPE = {
    "gpt_oss": {
        **{"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False},
        **{"original_max_position_embeddings": 256, "rope_theta": 150000.0},
    },
    "glm4_moe": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
}


def mixed(name):
    """Blocks of most kinds, several in one matrix; what llama.cpp keeps in float32 is left."""
    if "gate_inp" in name or name.endswith("bias") or "sinks" in name:
        return None
    if "ffn_down_exps" in name:
        return Kind.Q8_0
    return {"ffn_up_exps": Kind.Q5_0, "attn_k": Kind.Q8_0}.get(name.split(".")[-2], Kind.Q4_0)


def write(folder, family, formats=mixed, scale=0.3, name="tiny.gguf", **sizes):
    """Write a file; return its path and a float32 model with the weights that the file stands for."""
    fields = type(tiny(family).config).__dataclass_fields__
    rope = ROPE.get(family, {"rope_type": "default", "rope_theta": 1e4})
    chosen = {**SIZES, **OTHERS.get(family, {}), "rope_parameters": rope, **sizes}
    model = tiny(family, 1, **{key: value for key, value in chosen.items() if key in fields})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
        (folder / "files").mkdir(exist_ok=True)
        path = write_experts(folder / "files" / name, model, TOKENIZER, MERGES, formats)
    return path, model


@torch.inference_mode()
def logits(loaded, parts=(60, 2, 1, 17)):
    cache = loaded.lm.new_cache(len(IDS))
    return torch.cat([loaded.lm.forward([Rows(part, cache, len(part))])[0] for part in torch.split(IDS, list(parts))])


@torch.inference_mode()
def errors(loaded, model):
    """Return the relative error of each token. Rounding sends some tokens to other experts."""
    expected = model(IDS[None]).logits[0]
    return (logits(loaded) - expected).norm(dim=1) / expected.norm(dim=1)


def load(path, **options):
    return loader.load(path, **{"dtype": "bfloat16"} | options)


def layers(loaded):
    return loaded.lm._fused._layers


@needs_kernels
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_family_in_its_blocks(tmp_path, family):
    path, model = write(tmp_path, family)
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and not loaded.lm.kernels.startswith("none")
    experts = layers(loaded)[-1].mlp
    assert all(isinstance(each, JoinedLinear) for each in experts.gate_up[: SIZES["num_experts"]])
    assert all(isinstance(each, BlockLinear) for each in experts.down)
    theirs, ours = model.state_dict(), loaded.lm.transformers_copy(torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items():
        kept = "norm" in name or "gate.weight" in name or "router" in name or name.endswith(("bias", "sinks"))
        held = weight.bfloat16().float() if kept and "correction" not in name else weight
        assert torch.equal(ours[name], held), name
    assert errors(loaded, model).median() < ROUNDED
    assert loaded.lm.num_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_float32_has_the_logits_of_the_dequantised_weights(tmp_path, family):
    path, model = write(tmp_path, family)
    assert errors(load(path, dtype="float32"), model).max() < 1e-4
