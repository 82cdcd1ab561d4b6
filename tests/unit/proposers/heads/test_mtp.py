"""Layers that ship in checkpoints compute what transformers' own compute over whole texts, without a cache."""

import pytest
import torch
from transformers import DeepseekV3Config, Glm4MoeConfig, GlmMoeDsaConfig, Qwen2Config, Qwen3NextConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RotaryEmbedding
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeDecoderLayer, Glm4MoeRotaryEmbedding
from transformers.models.glm_moe_dsa.modeling_glm_moe_dsa import GlmMoeDsaDecoderLayer, GlmMoeDsaRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RotaryEmbedding
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextDecoderLayer, Qwen3NextRotaryEmbedding

from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.proposers.heads.loading import load_head
from rapid_integrations.proposers.suite import check_proposer
from rapid_integrations.proposers.suite.table_model import TableLM
from tests.toys.heads import drawn, write
from tests.toys.reference_heads import rms

E, V, LAYERS = TableLM.hidden_size, 6, TableLM.num_layers
TOKENS = [3, 0, 5, 2, 2, 1]
COMMON = {
    "hidden_size": E,
    "intermediate_size": 12,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": LAYERS,
    "vocab_size": V,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100.0,
    "max_position_embeddings": 128,
}
MOE = {"moe_intermediate_size": 6, "num_experts_per_tok": 2, "norm_topk_prob": True}
GROUPED = {**MOE, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "n_shared_experts": 1}
GROUPED |= {"routed_scaling_factor": 1.7, "first_k_dense_replace": 1}
LATENT = {"q_lora_rank": 5, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 3}
BEYOND = f"model.layers.{LAYERS}"
BEFORE = {f"{BEYOND}.enorm": (E,), f"{BEYOND}.hnorm": (E,), f"{BEYOND}.eh_proj": (E, 2 * E)}
BEFORE |= {f"{BEYOND}.shared_head.norm": (E,), f"{BEYOND}.shared_head.head": (V, E), f"{BEYOND}.embed_tokens": (V, E)}

KINDS = {
    "deepseek": (
        DeepseekV3Config(**COMMON | {"num_key_value_heads": 2}, **GROUPED, **LATENT),
        DeepseekV3DecoderLayer,
        DeepseekV3RotaryEmbedding,
        BEYOND,
        BEFORE,
    ),
    "glm": (
        Glm4MoeConfig(
            **COMMON, **GROUPED, head_dim=4, partial_rotary_factor=0.5, use_qk_norm=True, attention_bias=True
        ),
        Glm4MoeDecoderLayer,
        Glm4MoeRotaryEmbedding,
        BEYOND,
        BEFORE,
    ),
    "glm_5": (  # whose indexer chooses more keys than a head's window has tokens
        GlmMoeDsaConfig(**COMMON | {"num_key_value_heads": 2}, **GROUPED, **LATENT, index_n_heads=2, index_head_dim=4),
        GlmMoeDsaDecoderLayer,
        GlmMoeDsaRotaryEmbedding,
        BEYOND,
        BEFORE,
    ),
    "qwen3_next": (
        Qwen3NextConfig(
            **COMMON,
            **MOE,
            head_dim=4,
            num_experts=4,
            shared_expert_intermediate_size=6,
            partial_rotary_factor=0.5,
            layer_types=["full_attention"] * LAYERS,
        ),
        Qwen3NextDecoderLayer,
        Qwen3NextRotaryEmbedding,
        "mtp.layers.0",
        {"mtp.pre_fc_norm_embedding": (E,), "mtp.pre_fc_norm_hidden": (E,), "mtp.fc": (E, 2 * E), "mtp.norm": (E,)},
    ),
    "mimo": (
        Qwen2Config(**COMMON),
        Qwen2DecoderLayer,
        Qwen2RotaryEmbedding,
        "model.mtp_layers.0",
        {f"model.mtp_layers.0.{name}": (E,) for name in ("token_layernorm", "hidden_layernorm", "final_layernorm")}
        | {"model.mtp_layers.0.input_proj": (E, 2 * E)},
    ),
}


def checkpoint(kind):
    """Return a checkpoint's tensors, its configuration as JSON, the layer as transformers has it, and its rotation."""
    config, layer_class, rotary_class, prefix, before = KINDS[kind]
    config._attn_implementation = "eager"
    layer = layer_class(config, LAYERS - 1).double().eval()
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.copy_(0.4 * torch.randn(tensor.shape, generator=draw, dtype=torch.float64))
    tensors = drawn({f"{name}.weight": size for name, size in before.items()})
    for name, tensor in layer.state_dict().items():
        if name.endswith("experts.gate_up_proj"):
            for expert, both in enumerate(tensor):
                gate, up = both.chunk(2)
                start = f"{prefix}.{name.removesuffix('gate_up_proj')}{expert}"
                tensors |= {f"{start}.gate_proj.weight": gate.float(), f"{start}.up_proj.weight": up.float()}
        elif name.endswith("experts.down_proj"):
            for expert, down in enumerate(tensor):
                tensors[f"{prefix}.{name.removesuffix('down_proj')}{expert}.down_proj.weight"] = down.float()
        else:
            tensors[f"{prefix}.{name}"] = tensor.float()
    return tensors, config.to_dict(), layer, rotary_class(config)


def expected(kind, tensors, layer, rotary, target, states, drafted):
    """Return the logits behind the text and `drafted`, all rows read again for every token."""
    *_, before = KINDS[kind]
    embedding_norm, state_norm, joined, final = {
        "qwen3_next": ("mtp.pre_fc_norm_embedding", "mtp.pre_fc_norm_hidden", "mtp.fc", "mtp.norm"),
        "mimo": tuple(
            f"model.mtp_layers.0.{name}"
            for name in ("token_layernorm", "hidden_layernorm", "input_proj", "final_layernorm")
        ),
    }.get(kind, tuple(f"{BEYOND}.{name}" for name in ("enorm", "hnorm", "eh_proj", "shared_head.norm")))
    offset = 1.0 if kind == "qwen3_next" else 0.0
    table = tensors.get(f"{BEYOND}.embed_tokens.weight", target.embedded(torch.arange(V)))
    head = tensors.get(f"{BEYOND}.shared_head.head.weight", target.embedded(torch.arange(V))).double()
    rows, tokens, given = [], [*TOKENS, *drafted], list(states.double())
    for position, token in enumerate(tokens):
        embedded = table[token].double() * (kind == "qwen3_next" or position > 0)
        parts = [
            rms(embedded, tensors[f"{embedding_norm}.weight"], 1e-5, offset),
            rms(given[position], tensors[f"{state_norm}.weight"], 1e-5, offset),
        ]
        both = torch.cat(parts[::-1] if kind == "mimo" else parts)
        rows.append(tensors[f"{joined}.weight"].double() @ both)
        if position >= len(TOKENS) - 1:
            x, count = torch.stack(rows)[None], len(rows)
            cos_sin = rotary(x, torch.arange(count)[None])
            mask = torch.full((count, count), float("-inf"), dtype=torch.float64).triu(1)[None, None]
            with torch.no_grad():
                out = layer(x, attention_mask=mask, position_embeddings=cos_sin, position_ids=torch.arange(count)[None])
            out = (out[0] if isinstance(out, tuple) else out)[0, -1]
            normed = rms(out, tensors[f"{final}.weight"], 1e-5, offset)
            given.append(out if kind in ("deepseek", "glm", "glm_5") else normed)
    return head @ normed


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_of_a_checkpoint(tmp_path, kind):
    target = TableLM(1, V)
    tensors, config, layer, rotary = checkpoint(kind)
    whole = tensors | {"model.norm.weight": torch.ones(E), "model.layers.0.input_layernorm.weight": torch.ones(E)}
    head = load_head(write(tmp_path / "model", whole, config), target, V)
    assert (head.kind, head.levels) == ("mtp", (-1,))
    states = torch.randn(len(TOKENS), E, generator=torch.Generator().manual_seed(5))
    text = head.begin()
    text.follow([0, 1], TOKENS[:2], states[:2])
    text.follow([2, 3, 4, 5], TOKENS[2:], states[2:])
    root = text.root()
    first, second = text.after([root, root], [2, 4])
    (third,) = text.after([second], [1])
    for node, drafted in ((root, []), (first, [2]), (second, [4]), (third, [4, 1])):
        wanted = expected(kind, tensors, layer, rotary, target, states, drafted)
        torch.testing.assert_close(node.logits.double(), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("proposer", ["draft_head", "draft_head_tree"])
def test_it_keeps_the_law(tmp_path, proposer):
    tensors, config, *_ = checkpoint("mimo")
    folder = write(tmp_path / "model", tensors, config)
    check_proposer(proposer, new_tokens=3, draft_lengths=(2,), draft_head=lambda target: load_head(folder, target, 3))


def test_what_does_not_fit_is_refused(tmp_path):
    target = TableLM(1, V)
    tensors, config, *_ = checkpoint("deepseek")
    with pytest.raises(ModelLoadError, match="belongs to a model of 6 layers and rows of 9"):
        load_head(write(tmp_path / "a", tensors, {**config, "hidden_size": 9}), target, V)
    with pytest.raises(UnsupportedModelError, match="weight_scale_inv"):
        packed = tensors | {f"{BEYOND}.eh_proj.weight_scale_inv": torch.ones(1)}
        load_head(write(tmp_path / "b", packed, config), target, V)
    with pytest.raises(UnsupportedModelError, match="'yarn' in latent attention"):
        yarn = {"rope_parameters": None, "rope_scaling": {"type": "yarn", "factor": 4.0}}
        load_head(write(tmp_path / "c", tensors, config | yarn), target, V)
    with pytest.raises(ModelLoadError, match="a whole model without layers"):
        plain = {"model.norm.weight": torch.ones(E), "model.layers.0.input_layernorm.weight": torch.ones(E)}
        load_head(write(tmp_path / "d", plain, config), target, V)
    with pytest.raises(ModelLoadError, match="the target has 6 tokens"):
        short = tensors | {f"{BEYOND}.embed_tokens.weight": torch.ones(2, E)}
        load_head(write(tmp_path / "e", short, config), target, V)
