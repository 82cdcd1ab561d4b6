"""GGUF files of LFM2 and Granite 4: their blocks are kept, and the answers are the file's."""

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from rapid_integrations.cache import Rows
from rapid_integrations.errors import ModelLoadError, RapidError, UnsupportedModelError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.gguf import comparison, experts_config, families, mamba2, shared_mlp, stored
from rapid_integrations.models.gguf.description import configuration_of, weights_of
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.gguf.tensors import MappedTensors
from tests.toys.every_family import decoded, generated
from tests.toys.gguf_experts import IDS, ROUNDED, errors, logits
from tests.toys.gguf_mixers import FAMILIES, made, mixed, write_mixers

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("home")]
needs_kernels = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SMALL = {"intermediate_size": 64, "moe_intermediate_size": 64, "shared_intermediate_size": 64, "num_experts": 4}


def write(folder, family, formats=mixed, *, scale=0.3, sizes=None, **options):
    """Write a file; return its path and a float32 model with the weights that the file stands for."""
    model = made(family, scale=scale, **(sizes or {}))
    (folder / "files").mkdir(exist_ok=True)
    return write_mixers(folder / "files" / "tiny.gguf", model, formats, **options), model


def write_small(folder, family, **options):
    """Write a file whose numbers do not matter."""
    own = SMALL if "moe" in family else {**SMALL, "shared_intermediate_size": 64}
    own = own | ({"num_experts": 1} if family == "jamba" else {})  # others are not read
    return write(folder, family, lambda name: None, sizes=own, **options)[0]


def load(path, **options):
    return loader.load(path, **{"dtype": "bfloat16"} | options)


def in_blocks(path):
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and not loaded.lm.kernels.startswith("none")
    return loaded


def described(path):
    return configuration_of([read_header(path)])


@needs_kernels
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_in_its_blocks(tmp_path, family, home):
    path, model = write(tmp_path, family)
    loaded = in_blocks(path)
    assert not (home / "dequantised").exists()
    assert_weights(loaded, model)
    assert errors(loaded, model).median() < ROUNDED
    assert loaded.lm.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert not loaded.lm.reads_trees and not loaded.lm.has_parts
    assert loaded.lm.state_bytes == loaded.lm.new_cache(16).state.shape.nbytes > 0


def assert_weights(loaded, model):
    theirs, ours = model.state_dict(), loaded.lm.transformers_copy(torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items():
        if name.endswith("A_log"):  # the file has its exponential
            torch.testing.assert_close(ours[name], weight, rtol=1e-6, atol=1e-6)
        elif name.replace("in_proj.weight", "dt_bias") in theirs.keys() - {name}:  # rows of steps are bfloat16
            steps = getattr(model.config, "mamba_n_heads", None) or model.config.mamba_num_heads
            assert torch.equal(ours[name][:-steps], weight[:-steps])
            assert torch.equal(ours[name][-steps:], weight[-steps:].bfloat16().float())
        else:
            assert torch.equal(ours[name], weight), name


def all_in_blocks(name):
    return Kind.Q8_0 if "conv" not in name.rpartition("_proj")[0] and "ssm_norm" not in name else None


def experts_in_mxfp4(name):
    return Kind.MXFP4 if "exps" in name else mixed(name)


def gates_apart(name):
    """An MLP's gates in another format than what stands beside them."""
    return Kind.Q8_0 if "ffn_gate" in name and "inp" not in name else mixed(name)


def name_of(setting):
    key, value = setting
    return f"{key}={getattr(value, '__name__', value)}"


@needs_kernels
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("lfm2", {"sizes": {"conv_L_cache": 4, "tie_word_embeddings": False}}),
        ("lfm2", {"sizes": {"layer_types": ["full_attention", "conv", "conv", "conv"]}}),
        ("lfm2_moe", {"sizes": {"num_dense_layers": 0}}),
        ("lfm2_moe", {"sizes": {"num_dense_layers": 2, "num_experts_per_tok": 3}}),
        ("lfm2_moe", {"formats": experts_in_mxfp4}),
        ("granite4", {"sizes": {"mamba_n_groups": 2, "mamba_d_state": 128}}),
        ("granite4", {"sizes": {"mamba_conv_bias": False, "tie_word_embeddings": False}}),
        ("granite4", {"formats": gates_apart}),
        ("granite4_moe", {"formats": gates_apart}),
        ("granite4_moe", {"formats": experts_in_mxfp4}),
        ("granite4_moe", {"ssm__conv_kernel": 4, "expert_feed_forward_length": 256}),
        ("bamba", {"sizes": {"mamba_n_groups": 1, "attn_layer_indices": [0]}}),
        ("bamba", {"sizes": {"tie_word_embeddings": True, "mamba_conv_bias": False}}),
        ("falcon_h1", {"sizes": {"mamba_rms_norm": True}}),
        ("falcon_h1", {"sizes": {"mamba_n_groups": 1, "mamba_conv_bias": False}}),
        ("nemotron_h", {"sizes": {"n_groups": 4, "use_conv_bias": False}}),
        ("mamba", {"sizes": {"use_conv_bias": False, "tie_word_embeddings": False, "conv_kernel": 3}}),
        ("falcon_mamba", {"sizes": {"mixer_rms_eps": 1e-5, "expand": 3}}),
        ("jamba", {"sizes": {"attn_layer_period": 4, "attn_layer_offset": 3, "mamba_conv_bias": False}}),
        ("jamba", {"expert_count": None, "expert_used_count": None}),
        ("nemotron_h_moe", {"formats": experts_in_mxfp4}),
        ("nemotron_h_moe", {"sizes": {"num_experts_per_tok": 3, "norm_topk_prob": False}}),
    ],
    ids=lambda value: "-".join(map(name_of, value.items())) if isinstance(value, dict) else value,
)
def test_forms_of_files(tmp_path, family, options):
    path, model = write(tmp_path, family, **{"scale": 0.1} | options)
    loaded = in_blocks(path)
    assert_weights(loaded, model)
    assert errors(loaded, model).median() < ROUNDED


@needs_kernels
@pytest.mark.parametrize("family", ["lfm2", "granite4"])
@pytest.mark.parametrize("form", ["Q4_0", "Q4_1", "Q5_1", "F16", "BF16"])
def test_a_file_of_one_format(tmp_path, family, form):
    formats = lambda name: Kind[form] if mixed(name) is not None else None  # noqa: E731
    path, model = write(tmp_path, family, formats, scale=0.1)
    assert errors(in_blocks(path), model).median() < ROUNDED


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_has_the_logits_and_answers_of_the_dequantised_weights(tmp_path, family):
    # of large numbers, four Mambas in a row make much of what is rounded off
    path, model = write(tmp_path, family, scale=0.5 if family == "mamba" else 1.0)
    loaded = load(path, dtype="float32")
    assert errors(loaded, model).max() < 1e-4
    assert decoded(loaded.lm) == generated(model)
    torch.testing.assert_close(logits(load(path, dtype="float32")), logits(loaded))  # the copy that was kept


@needs_kernels
@pytest.mark.parametrize("family", FAMILIES)
def test_a_draft_has_the_bits_of_single_steps_and_leaves_no_trace(tmp_path, family):
    lm = load(write(tmp_path, family)[0]).lm
    alone = logits_of(lm, [60, *[1] * 20])
    assert torch.equal(logits_of(lm, [60, 20]), alone)
    cache = lm.new_cache(len(IDS))
    lm.forward([Rows(IDS[:60], cache, 0, of_prompt=True)])
    for begin in range(60, 80, 2):  # of each draft the first two tokens are right
        draft = torch.cat([IDS[begin : begin + 2], (IDS[begin : begin + 3] + 1) % 100])
        found = lm.forward([Rows(draft, cache, len(draft))])[0]
        assert torch.equal(found[:2], alone[begin : begin + 2])
        cache.rollback(begin + 2)


def logits_of(lm, lengths):
    cache, parts = lm.new_cache(len(IDS)), []
    for index, part in enumerate(torch.split(IDS, lengths)):
        parts += lm.forward([Rows(part, cache, len(part), of_prompt=index == 0)])
    return torch.cat(parts)


@needs_kernels
@pytest.mark.parametrize("family", FAMILIES)
def test_steps_on_operators_use_the_same_blocks(tmp_path, family, monkeypatch):
    path, model = write(tmp_path, family)
    loaded = load(path)
    monkeypatch.setattr(loaded.lm._fused, "_native", None)
    assert errors(loaded, model).median() < ROUNDED


@needs_kernels
@pytest.mark.parametrize("family", ["lfm2", "granite4_moe"])
def test_later_starts_need_no_comparison(tmp_path, family, monkeypatch):
    path, _ = write(tmp_path, family)
    first = load(path)
    monkeypatch.setattr(stored, "_converted", None)
    monkeypatch.setattr(stored, "compare", None)
    second = load(path)
    assert torch.equal(logits(first), logits(second))
    assert first.lm.fingerprint() == second.lm.fingerprint()


@needs_kernels
@pytest.mark.parametrize("part", ["shared_mlp.", "mamba."])
def test_rows_of_another_order_are_noticed(tmp_path, part, monkeypatch):
    path, _ = write(tmp_path, "granite4")
    taken = mamba2.take

    def moved(weights, stem, *names):
        parts = taken(weights, stem, *names)
        return [parts[0].roll(64, 0), parts[1]] if parts is not None and stem.endswith(part) else parts

    for module in (mamba2, shared_mlp):
        monkeypatch.setattr(module, "take", moved)
    with pytest.raises(UnsupportedModelError, match="differs from transformers"):
        load(path)


@pytest.mark.parametrize("family", ["lfm2_moe", "granite4_moe"])
def test_the_comparison_has_a_layer_of_each_kind(tmp_path, family):
    path, _ = write(tmp_path, family)
    config = described(path)
    small, weights = comparison._small(config, weights_of(MappedTensors([read_header(path)]), config, torch.bfloat16))
    assert set(small["layer_types"]) == set(config["layer_types"])
    experts = sum(name.endswith(".experts.down_proj") for name in weights)
    assert experts == small["num_hidden_layers"] - small.get("num_dense_layers", 0) > 0


@pytest.mark.parametrize(("family", "pre"), [("lfm2", "lfm2"), ("granite4", "dbrx")])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_text_is_split_as_the_model_was_trained(tmp_path, family, pre, dtype):
    tokenizer = load(write(tmp_path, family, tokenizer__ggml__pre=pre)[0], dtype=dtype).vocabulary.tokenizer
    pieces = [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("DON'T pay  12345.")]
    assert pieces == ["DON", "'T", "Ġpay", "Ġ", "Ġ", "123", "45", "."]


# --- what goes wrong ------------------------------------------------------------------------------------------------

WRONG = [
    ("lfm2", {"unheard_of": 3}),
    ("lfm2", {"attention__sliding_window": 20}),
    ("lfm2", {"attention__causal": False}),  # of a model that gives vectors
    ("lfm2", {"attention__head_count_kv": 2}),
    ("lfm2", {"attention__head_count_kv": [0, 0, 2]}),
    ("lfm2", {"attention__head_count_kv": [0, 0, 0, 0]}),
    ("lfm2", {"attention__head_count_kv": [0, 1, 2, 0]}),
    ("lfm2", {"attention__head_count_kv": [True, False, True, False]}),
    ("lfm2", {"attention__key_length": 32}),
    ("lfm2", {"shortconv__l_cache": None}),
    ("lfm2", {"shortconv__l_cache": 1}),
    ("lfm2", {"feed_forward_length": None}),
    ("lfm2", {"expert_count": 8}),
    ("lfm2_moe", {"expert_gating_func": 1}),
    ("lfm2_moe", {"expert_gating_func": None}),
    ("lfm2_moe", {"expert_weights_scale": 2.5}),
    ("lfm2_moe", {"leading_dense_block_count": 4}),
    ("lfm2_moe", {"expert_used_count": None}),
    ("mamba", {"ssm__inner_size": 500}),
    ("mamba", {"ssm__state_size": None}),
    ("mamba", {"attention__head_count_kv": [0, 2, 0, 0], "ssm__time_step_rank": 0}),
    ("falcon_mamba", {"unheard_of": 3}),
    ("jamba", {"attention__head_count_kv": [2, 2, 0, 2]}),
    ("jamba", {"attention__head_count_kv": [0, 0, 0, 0]}),
    ("jamba", {"expert_count": 8}),
    ("jamba", {"ssm__dt_b_c_rms": True}),
    ("granite4", {"rope__scaling__finetuned": True}),
    ("granite4", {"rope__scaling__finetuned": None}),
    ("granite4", {"attention__scale": None}),
    ("granite4", {"residual_scale": None}),
    ("granite4", {"ssm__group_count": 3}),  # of 8 heads
    ("granite4", {"ssm__group_count": 0}),
    ("granite4", {"ssm__inner_size": 500}),
    ("granite4", {"ssm__time_step_rank": None}),
    ("granite4", {"expert_shared_feed_forward_length": 32}),
    ("granite4", {"attention__head_count_kv": [2, 2, 0]}),
    ("granite4", {"deepstack_mapping": [-1, 0, -1, -1]}),
    ("granite4", {"rope__dimension_count": 32}),
    ("granite4_moe", {"expert_shared_feed_forward_length": None}),
    ("granite4_moe", {"expert_weights_norm": False}),
]


@pytest.mark.parametrize(("family", "metadata"), WRONG, ids=str)
def test_what_is_not_known_or_contradicts_itself_has_no_configuration(tmp_path, family, metadata):
    assert described(write_small(tmp_path, family, **metadata)) is None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_has_no_configuration_is_refused_in_one_sentence(tmp_path, family, dtype):
    path = write_small(tmp_path, family, attention__sliding_window=20)
    with pytest.raises(UnsupportedModelError, match="not known here"):
        load(path, dtype=dtype)


@pytest.mark.parametrize(
    ("family", "left"),
    [
        ("lfm2", "token_embd_norm.weight"),
        ("lfm2", "blk.0.shortconv.conv.weight"),
        ("lfm2", "blk.1.shortconv.in_proj.weight"),
        ("lfm2", "blk.2.attn_k_norm.weight"),
        ("lfm2", "blk.3.ffn_down.weight"),
        ("lfm2_moe", "blk.1.exp_probs_b.bias"),
        ("lfm2_moe", "blk.1.ffn_down_exps.weight"),
        ("granite4", "output_norm.weight"),
        ("granite4", "blk.0.ssm_a"),
        ("granite4", "blk.0.ssm_d"),
        ("granite4", "blk.2.ssm_conv1d.bias"),
        ("granite4", "blk.0.ssm_in.weight"),
        ("granite4", "blk.1.ffn_up.weight"),
        ("granite4_moe", "blk.1.ffn_gate_inp.weight"),
        ("granite4_moe", "blk.1.ffn_gate_shexp.weight"),
    ],
)
def test_a_weight_that_is_missing(tmp_path, family, left):
    path = write_small(tmp_path, family, leave_out=(left,))
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(RapidError, match="missing"):
            load(path, dtype=dtype)


@pytest.mark.parametrize(
    ("family", "further"),
    [
        ("lfm2", "blk.0.ssm_a"),
        ("lfm2", "blk.0.shortconv.conv.bias"),
        ("lfm2", "blk.0.attn_q.weight"),
        ("lfm2", "blk.4.ffn_norm.weight"),
        ("lfm2", "output_norm.weight"),
        ("granite4", "blk.0.attn_q.weight"),
        ("granite4", "blk.1.ssm_d"),
        ("granite4", "blk.1.attn_output.bias"),
    ],
)
def test_a_tensor_that_the_family_does_not_have(tmp_path, family, further):
    path = write_small(tmp_path, family, further={further: torch.ones(8, 1)})
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(RapidError):
            load(path, dtype=dtype)


@pytest.mark.parametrize(
    ("family", "metadata"),
    [
        ("lfm2", {"shortconv__l_cache": 4}),
        ("lfm2", {"block_count": 5, "attention__head_count_kv": [0, 0, 2, 0, 0]}),
        ("lfm2", {"block_count": 3, "attention__head_count_kv": [0, 0, 2]}),
        ("lfm2", {"attention__head_count_kv": [0, 2, 0, 0]}),
        ("lfm2", {"attention__head_count_kv": [0, 0, 1, 0]}),
        ("lfm2", {"feed_forward_length": 480}),
        ("lfm2_moe", {"leading_dense_block_count": 2}),
        ("granite4", {"ssm__conv_kernel": 3}),
        ("granite4", {"ssm__state_size": 128}),
        ("granite4", {"ssm__state_size": 2**31}),
        ("granite4", {"ssm__group_count": 2}),
        ("granite4", {"ssm__time_step_rank": 4}),
        ("granite4", {"attention__head_count_kv": [2, 2, 0, 2]}),
    ],
    ids=str,
)
def test_shapes_that_the_metadata_does_not_say(tmp_path, family, metadata):
    path = write_small(tmp_path, family, **metadata)
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(ModelLoadError, match="metadata says|missing"):
            load(path, dtype=dtype)


def test_decays_that_grow(tmp_path, monkeypatch):
    from tests.toys import gguf_mixers

    monkeypatch.setattr(gguf_mixers.torch, "exp", lambda x: -x.exp())
    path, _ = write(tmp_path, "granite4")
    with pytest.raises(ModelLoadError, match="ssm_a has a number that is not below 0"):
        load(path)


@pytest.mark.parametrize("name", ["lfm2", "lfm2moe", "granitehybrid"])
def test_the_names_are_those_of_the_gguf_package(name):
    kind = next(each for each, own in gguf.MODEL_ARCH_NAMES.items() if own == name)
    theirs = {gguf.TENSOR_NAMES[each] for each in gguf.MODEL_TENSORS[kind]}
    for table in (families.ARCHITECTURES, experts_config.ARCHITECTURES):
        own = table[name].names if name in table else {}
        assert {f"blk.{{bid}}.{part.removesuffix('.bias')}" for part in own} <= theirs
