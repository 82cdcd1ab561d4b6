"""GGUF files of models with experts: their blocks are kept, and the answers are those of the dequantised weights."""

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from rapid_integrations.cache import Rows
from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.kernels.cpu.blocks import FORMATS
from rapid_integrations.kernels.cpu.matrices import product
from rapid_integrations.models import loader
from rapid_integrations.models.block_experts import StoredStack
from rapid_integrations.models.block_linear import BlockLinear, JoinedLinear, StoredBlocks
from rapid_integrations.models.gguf import llama4, stored
from rapid_integrations.models.gguf.description import configuration_of
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.gguf.tensors import MappedTensors
from tests.toys.every_family import decoded, generated, tiny
from tests.toys.gguf_experts import (
    ARCHITECTURES,
    IDS,
    MERGES,
    OF_A_FAMILY,
    ROUNDED,
    SIZES,
    TOKENIZER,
    errors,
    logits,
    write_experts,
)

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("home")]
needs_kernels = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")

EXACT = ("correction_bias", "expert_bias")
OTHERS = {
    "glm4_moe": {"use_qk_norm": True, "routed_scaling_factor": 1.5},
    **dict.fromkeys(
        ("granitemoe", "granitemoeshared"),
        {"attention_multiplier": 0.1, "embedding_multiplier": 2.0, "logits_scaling": 4.0},
    ),
    "qwen3_moe": {"norm_topk_prob": True},
    **OF_A_FAMILY,
    "ernie4_5_moe": {"tie_word_embeddings": False},
    "qwen2_moe": {"use_sliding_window": False, "max_window_layers": 2, "sliding_window": None},
    "mixtral": {"sliding_window": None},
}
ROPE = {
    "gpt_oss": {
        **{"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False},
        **{"original_max_position_embeddings": 256, "rope_theta": 150000.0},
    },
    **dict.fromkeys(
        ("glm4_moe", "minimax_m2"), {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    ),
}


def mixed(name):
    """Blocks of most kinds, several in one matrix; what llama.cpp keeps in float32 is left."""
    if "gate_inp" in name or name.endswith("bias") or "sinks" in name:
        return None
    if "ffn_down_exps" in name:
        return Kind.Q8_0
    return {"ffn_up_exps": Kind.Q5_0, "attn_k": Kind.Q8_0}.get(name.split(".")[-2], Kind.Q4_0)


def write(folder, family, formats=mixed, scale=0.3, name="tiny.gguf", metadata=None, further=None, **sizes):
    """Write a file; return its path and a float32 model with the weights that the file stands for."""
    fields = type(tiny(family).config).__dataclass_fields__
    rope = ROPE.get(family, {"rope_type": "default", "rope_theta": 1e4})
    chosen = {**SIZES, **OTHERS.get(family, {}), "rope_parameters": rope, **sizes}
    model = tiny(family, 1, **{key: value for key, value in chosen.items() if key in fields})
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
        for key, buffer in (*model.named_buffers(), *model.named_parameters()):
            if key.endswith(("correction_bias", "expert_bias")):  # zeros, if nothing is done
                buffer.copy_(torch.randn(buffer.shape, generator=torch.Generator().manual_seed(1)) / 8)
        (folder / "files").mkdir(exist_ok=True)
        said = {"further": further, **(metadata or {})}
        path = write_experts(folder / "files" / name, model, TOKENIZER, MERGES, formats, **said)
    return path, model


def each_of(*quick):
    """Return all families; those that are not named are slow."""
    return [pytest.param(each, marks=[] if each in quick else [pytest.mark.slow]) for each in ARCHITECTURES]


def load(path, **options):
    return loader.load(path, **{"dtype": "bfloat16"} | options)


def layers(loaded):
    return loaded.lm._fused._layers


@pytest.mark.in_turn(2)
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
        kept = "norm" in name or name.endswith(("gate.weight", "gate.wg.weight", "bias", "sinks")) or "router" in name
        held = weight.bfloat16().float() if kept and not name.endswith(EXACT) else weight
        assert torch.equal(ours[name], held), name
    assert errors(loaded, model).median() < ROUNDED
    assert loaded.lm.num_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("family", each_of("mixtral", "gpt_oss"))
def test_float32_has_the_logits_of_the_dequantised_weights(tmp_path, family):
    path, model = write(tmp_path, family)
    assert errors(load(path, dtype="float32"), model).max() < 1e-4


@needs_kernels
def test_llama_4_has_chunks_and_growing_queries(tmp_path, monkeypatch):
    """They are longer in files than the texts of other tests."""
    monkeypatch.setattr(llama4, "_CHUNK", 16)
    path, model = write(tmp_path, "llama4_text", attention_chunk_size=16, floor_scale=16)
    assert errors(load(path, dtype="float32"), model).max() < 1e-4
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and errors(loaded, model).median() < ROUNDED


@needs_kernels
def test_the_larger_llama_4_has_no_norms_of_heads(tmp_path):
    path, model = write(tmp_path, "llama4_text", num_local_experts=128, num_experts_per_tok=1, use_qk_norm=False)
    assert configuration_of([read_header(path)])["use_qk_norm"] is False
    assert errors(load(path, dtype="float32"), model).max() < 1e-4


def test_llama_4_stretches_angles_without_mixing(tmp_path):
    """As the smaller published model: those of more than 8,192 tokens a turn are divided by 16."""
    rope = {
        **{"rope_type": "llama3", "rope_theta": 5e5, "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0},
        "original_max_position_embeddings": 8192,
    }
    turns = 2 * torch.pi * rope["rope_theta"] ** (torch.arange(0, 32, 2) / 32)
    factors = torch.where(turns > 8192, 16.0, 1.0)
    assert 0 < (factors == 16).sum() < 16
    path, model = write(tmp_path, "llama4_text", rope_parameters=rope, further={"rope_freqs.weight": factors})
    assert configuration_of([read_header(path)])["rope_parameters"] == rope
    assert errors(load(path, dtype="float32"), model).max() < 1e-4


@needs_kernels
def test_layers_that_predict_further_tokens_are_left_out_of_k_exaone(tmp_path):
    said = {"block_count": 4, "nextn_predict_layers": 1}
    further = {f"blk.3.nextn.{name}.weight": torch.ones(128) for name in ("enorm", "hnorm")}
    path, model = write(tmp_path, "exaone_moe", metadata=said, further=further)
    assert errors(load(path), model).median() < ROUNDED


@needs_kernels
def test_the_language_model_of_one_with_experts_that_sees_pictures(tmp_path, monkeypatch):
    said = {"rope__dimension_sections": [6, 5, 5, 0], "n_deepstack_layers": 3}
    monkeypatch.setitem(ARCHITECTURES, "qwen3_moe", gguf.MODEL_ARCH.QWEN3VLMOE)
    path, model = write(tmp_path, "qwen3_moe", metadata=said)
    assert read_header(path).architecture == "qwen3vlmoe"
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and errors(loaded, model).median() < ROUNDED
    assert errors(load(path, dtype="float32"), model).max() < 1e-4


@pytest.mark.parametrize(
    ("family", "metadata"),
    [
        ("ernie4_5_moe", {"interleave_moe_layer_step": 2}),
        ("ernie4_5_moe", {"leading_dense_block_count": 9}),
        ("ernie4_5_moe", {"leading_dense_block_count": None}),
        ("ernie4_5_moe", {"expert_shared_feed_forward_length": 65}),
        ("ernie4_5_moe", {"expert_feed_forward_length": None}),
        *(("llama4_text", {"interleave_moe_layer_step": each}) for each in (None, 0, 5)),
        ("llama4_text", {"attention__sliding_window": 0}),
        *((each, {"expert_gating_func": 1}) for each in ("dots1", "exaone_moe", "afmoe")),
        *((each, {"leading_dense_block_count": None}) for each in ("dots1", "exaone_moe", "afmoe")),
        ("dots1", {"leading_dense_block_count": 9}),
        ("dots1", {"expert_shared_count": 0}),
        ("exaone_moe", {"attention__sliding_window": None}),
        ("exaone_moe", {"attention__sliding_window_pattern": [True]}),
        ("exaone_moe", {"expert_shared_feed_forward_length": 65}),
        ("afmoe", {"expert_weights_norm": None}),
        ("afmoe", {"expert_group_count": 2}),
        ("hunyuan_v1_moe", {"expert_shared_count": 2}),
        ("hunyuan_v1_moe", {"expert_shared_feed_forward_length": 96}),
        ("hunyuan_v1_moe", {"rope__scaling__type": "linear", "rope__scaling__factor": 2.0}),
        ("qwen3vlmoe", {"rope__dimension_sections": [6, 5, 4, 1]}),
        ("qwen3vlmoe", {}),  # no sections
    ],
)
def test_what_is_not_known_is_refused(tmp_path, family, metadata, monkeypatch):
    if family == "qwen3vlmoe":
        family = "qwen3_moe"
        monkeypatch.setitem(ARCHITECTURES, family, gguf.MODEL_ARCH.QWEN3VLMOE)
    path, _ = write(tmp_path, family, lambda name: None, metadata=metadata)
    with pytest.raises(UnsupportedModelError, match="not known"):
        load(path)


def k_formats(name):
    """As llama.cpp's Q4_K_M."""
    if mixed(name) is None or name in ("token_embd.weight", "output.weight"):
        return None
    return Kind.Q6_K if "down_exps" in name or "attn_v" in name else Kind.Q5_K if "up_exps" in name else Kind.Q4_K


def mxfp4(name):
    """As the files of GPT-OSS."""
    return Kind.MXFP4 if name.endswith("exps.weight") else Kind.Q8_0 if mixed(name) is not None else None


@needs_kernels
@pytest.mark.parametrize(("family", "formats"), [("qwen3_moe", k_formats), ("gpt_oss", mxfp4)])
def test_formats_of_published_files(tmp_path, family, formats):
    wide = dict.fromkeys(("hidden_size", "moe_intermediate_size"), 256) if formats is k_formats else {}
    path, model = write(tmp_path, family, formats, **wide)
    loaded = load(path)
    forms = {each.native().form.name for each in layers(loaded)[0].mlp.down}
    assert forms == {"Q6_K" if formats is k_formats else "MXFP4"}
    assert errors(loaded, model).median() < ROUNDED
    assert torch.equal(logits(loaded, (60, 20)), logits(loaded, (60, *[1] * 20)))


@needs_kernels
@pytest.mark.parametrize("family", ["qwen2_moe", "gpt_oss", "llama4_text", "afmoe"])
def test_a_token_has_its_bits_alone_among_drafts_and_in_company(tmp_path, family):
    lm = load(write(tmp_path, family)[0]).lm

    def behind(ids):
        cache = lm.new_cache(64)
        lm.forward([Rows(ids, cache, 0)])
        return cache

    first, second = IDS[:30], IDS[40:65]
    draft, other = IDS[30:36], IDS[65:69]
    alone = torch.cat([lm.forward([Rows(each[None], cache, 1)])[0] for cache in [behind(first)] for each in draft])
    among = lm.forward([Rows(draft, behind(first), len(draft))])[0]
    company = lm.forward([Rows(other, behind(second), len(other)), Rows(draft, behind(first), len(draft))])[1]
    assert torch.equal(among, alone)
    assert torch.equal(company, alone)


@needs_kernels
def test_the_product_of_an_expert_is_that_of_its_blocks_alone(tmp_path):
    path, _ = write(tmp_path, "mixtral")
    experts = layers(load(path))[1].mlp
    tensors = MappedTensors([read_header(path)])
    x = torch.randn(5, SIZES["hidden_size"], generator=torch.Generator().manual_seed(1)).bfloat16()
    for index, joined in enumerate(experts.gate_up):
        parts = []
        for name in ("gate", "up"):
            whole = tensors.tensors[f"blk.1.ffn_{name}_exps.weight"]
            raw = tensors._raw(whole.name).view(SIZES["num_experts"], whole.shape[1], -1)[index].clone()
            dense = BlockLinear(StoredBlocks(FORMATS[whole.kind], raw, None, lambda: None))
            parts.append(product(dense.native(), x))
        assert torch.equal(product(joined.native(), x), torch.cat(parts, dim=1))


@needs_kernels
def test_steps_on_operators_use_the_same_blocks(tmp_path, monkeypatch):
    path, model = write(tmp_path, "gpt_oss")
    loaded = load(path)
    monkeypatch.setattr(loaded.lm._fused, "_native", None)
    assert errors(loaded, model).median() < ROUNDED


@needs_kernels
def test_a_step_counts_only_the_experts_that_a_row_takes(tmp_path):
    path, _ = write(tmp_path, "mixtral", lambda name: Kind.Q8_0 if "exps" in name else None)
    experts = layers(load(path))[0].mlp
    whole = sum(each.step_bytes for each in (*experts.gate_up, *experts.down))
    assert experts.step_bytes - experts.router.nbytes == whole * experts.routing.taken / SIZES["num_experts"]


@pytest.mark.parametrize("family", each_of("gpt_oss"))
def test_greedy_answers_in_float32(tmp_path, family):
    path, model = write(tmp_path, family, scale=1.0)
    assert decoded(load(path, dtype="float32").lm) == generated(model)


@needs_kernels
@pytest.mark.parametrize("family", ["olmoe", "llama4_text", "afmoe"])
def test_later_starts_need_no_comparison(tmp_path, family, monkeypatch):
    path, _ = write(tmp_path, family)
    first = load(path)
    monkeypatch.setattr(stored, "_converted", None)
    monkeypatch.setattr(stored, "compare", None)
    second = load(path)
    assert torch.equal(logits(first), logits(second))
    assert first.lm.fingerprint() == second.lm.fingerprint()


@needs_kernels
def test_gates_in_the_wrong_place_are_noticed(tmp_path, monkeypatch):
    path, _ = write(tmp_path, "qwen3_moe", scale=1.0)
    products = StoredStack.products

    def products_wrongly(self, biases, arena):
        return products(StoredStack(self.parts[::-1]), biases, arena)

    monkeypatch.setattr(StoredStack, "products", products_wrongly)
    with pytest.raises(UnsupportedModelError, match="differs from transformers"):
        load(path)


@needs_kernels
@pytest.mark.parametrize(
    ("family", "metadata"),
    [("olmoe", {"attention__clamp_kqv": 8.0}), ("glm4_moe", {"expert_gating_func": 1}), ("mixtral", {"unheard_of": 3})],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_not_known_is_not_read_in_blocks(tmp_path, family, metadata):
    path, _ = write(tmp_path, family, metadata=metadata)
    assert configuration_of([read_header(path)]) is None
