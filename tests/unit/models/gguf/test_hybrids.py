"""GGUF files of families with gated delta nets: their blocks are kept, and the answers are the file's."""

from dataclasses import replace

import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from rapid_integrations.cache import RecordedState, Rows
from rapid_integrations.cache.arena import Arena
from rapid_integrations.errors import ModelLoadError, RapidError, UnsupportedModelError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.families import describe
from rapid_integrations.models.gguf import comparison, hybrids, stored
from rapid_integrations.models.gguf.description import configuration_of, weights_of
from rapid_integrations.models.gguf.experts_config import ARCHITECTURES as WITH_EXPERTS
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.gguf.tensors import MappedTensors
from rapid_integrations.models.recurrence import TakenRecurrence, state_shape
from tests.toys.every_family import decoded, generated
from tests.toys.gguf_experts import IDS, ROUNDED, errors, logits
from tests.toys.gguf_hybrids import ARCHITECTURES, EVERY, made, mixed, write_hybrid

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("home")]
needs_kernels = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
EXPERTS = ("qwen3_next", "qwen3_5_moe_text")
SMALL = {"intermediate_size": 64, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64, "num_experts": 4}


def write(folder, family, formats=mixed, *, scale=0.3, sizes=None, **options):
    """Write a file; return its path and a float32 model with the weights that the file stands for."""
    model = made(family, scale=scale, **(sizes or {}))
    (folder / "files").mkdir(exist_ok=True)
    return write_hybrid(folder / "files" / "tiny.gguf", model, formats, **options), model


def load(path, **options):
    return loader.load(path, **{"dtype": "bfloat16"} | options)


def in_blocks(path):
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and not loaded.lm.kernels.startswith("none")
    return loaded


def described(path):
    return configuration_of([read_header(path)])


def assert_weights(loaded, model):
    theirs, ours = model.state_dict(), loaded.lm.transformers_copy(torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items():
        if name.endswith("A_log"):  # the file has its exponential
            torch.testing.assert_close(ours[name], weight, rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(ours[name], weight), name


@needs_kernels
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_family_in_its_blocks(tmp_path, family, home):
    path, model = write(tmp_path, family)
    loaded = in_blocks(path)
    assert not (home / "dequantised").exists()
    assert_weights(loaded, model)
    assert errors(loaded, model).median() < ROUNDED
    assert loaded.lm.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert not loaded.lm.reads_trees and not loaded.lm.has_parts
    assert loaded.lm.state_bytes == loaded.lm.new_cache(16).state.shape.nbytes > 0


@needs_kernels
def all_in_blocks(name):
    return Kind.Q8_0 if "conv1d" not in name else None  # rates, too


def experts_in_mxfp4(name):
    return Kind.MXFP4 if "exps" in name else mixed(name)


def name_of(setting):
    key, value = setting
    return f"{key}={getattr(value, '__name__', value)}"


@needs_kernels
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("qwen3_next", {"earlier": True}),
        ("qwen3_next", {"fused": True}),
        ("qwen3_next", {"predicting": 1}),
        ("qwen3_5_text", {"predicting": 1}),
        ("qwen3_5_text", {"attention__recurrent_layers": [True, True, True, False]}),
        ("qwen3_5_text", {"sizes": {"linear_num_value_heads": 2}}),
        ("qwen3_5_text", {"sizes": {"linear_num_value_heads": 8, "tie_word_embeddings": True}}),
        ("qwen3_5_text", {"formats": all_in_blocks}),
        ("qwen3_5_moe_text", {"fused": True}),
        ("qwen3_5_moe_text", {"formats": experts_in_mxfp4}),
    ],
    ids=lambda value: "-".join(map(name_of, value.items())) if isinstance(value, dict) else value,
)
def test_forms_of_files(tmp_path, family, options):
    path, model = write(tmp_path, family, **{"scale": 0.1} | options)
    loaded = in_blocks(path)
    if "formats" not in options:
        assert_weights(loaded, model)
    assert errors(loaded, model).median() < ROUNDED


@needs_kernels
@pytest.mark.parametrize("form", ["Q4_0", "Q4_1", "Q5_1", "F16", "BF16"])
def test_a_file_of_one_format(tmp_path, form):
    formats = lambda name: Kind[form] if mixed(name) is not None else None  # noqa: E731
    path, model = write(tmp_path, "qwen3_5_text", formats, scale=0.1)
    assert errors(in_blocks(path), model).median() < ROUNDED


@pytest.mark.parametrize(
    "family",
    ["qwen3_5_text", *(pytest.param(each, marks=pytest.mark.slow) for each in ("qwen3_next", "qwen3_5_moe_text"))],
)
def test_float32_has_the_logits_and_answers_of_the_dequantised_weights(tmp_path, family):
    path, model = write(tmp_path, family, scale=1.0)
    loaded = load(path, dtype="float32")
    assert errors(loaded, model).max() < 1e-4
    assert decoded(loaded.lm) == generated(model)
    torch.testing.assert_close(logits(load(path, dtype="float32")), logits(loaded))  # the copy that was kept


@needs_kernels
@pytest.mark.parametrize("family", ARCHITECTURES)
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


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=needs_kernels)])
def test_tiled_heads_compute_what_they_compute_beside_each_other(kernels):
    torch.manual_seed(1)
    dtype = torch.bfloat16 if kernels else torch.float32
    model = made("qwen3_next", num_hidden_layers=2, layer_types=["linear_attention", "full_attention"]).to(dtype)
    own = TakenRecurrence.of(describe(model).layers[0].recurs, Arena() if kernels else None)
    heads = torch.tensor([0, 3, 1, 4, 2, 5])  # of two key heads with three heads of values each
    values = (128 * heads[:, None] + torch.arange(128)).flatten()
    channels = torch.cat([torch.arange(512), 512 + values])
    tiled = replace(
        own,
        described=replace(own.described, tiled=True),
        taps=own.taps[:, channels].contiguous(),
        decay=own.decay[heads],
        bias=own.bias[heads],
    )
    inputs, rates = torch.randn(40, 1280 + 768).to(dtype), torch.randn(40, 12).to(dtype)
    moved = inputs[:, torch.cat([channels, 1280 + values])], rates[:, torch.cat([heads, 6 + heads])]
    expected, found = (recurred(each, *rows, kernels) for each, rows in ((own, (inputs, rates)), (tiled, moved)))
    torch.testing.assert_close(found, expected[:, values])


def recurred(own, inputs, rates, kernels):
    state = RecordedState(state_shape([own.described], torch.device("cpu")))
    return own.read(0, inputs, rates, state.begin(0, len(inputs), of_prompt=True), kernels)


@needs_kernels
@pytest.mark.parametrize("family", ["qwen3_5_text", "qwen3_next"])
def test_steps_on_operators_use_the_same_blocks(tmp_path, family, monkeypatch):
    path, model = write(tmp_path, family)
    loaded = load(path)
    monkeypatch.setattr(loaded.lm._fused, "_native", None)
    assert errors(loaded, model).median() < ROUNDED


@needs_kernels
def test_only_heads_of_qwen_3_5_are_tiled(tmp_path):
    for family in ARCHITECTURES:
        lm = load(write(tmp_path, family)[0]).lm
        assert {each.tiled for each in describe(lm.model).recurrences} == {family != "qwen3_next"}


@needs_kernels
def test_later_starts_need_no_comparison(tmp_path, monkeypatch):
    path, _ = write(tmp_path, "qwen3_5_text")
    first = load(path)
    monkeypatch.setattr(stored, "_converted", None)
    monkeypatch.setattr(stored, "compare", None)
    second = load(path)
    assert torch.equal(logits(first), logits(second))
    assert first.lm.fingerprint() == second.lm.fingerprint()


@needs_kernels
def test_rows_of_another_order_are_noticed(tmp_path, monkeypatch):
    path, _ = write(tmp_path, "qwen3_5_text")
    monkeypatch.setattr(hybrids, "_grouped", lambda *_: None)
    with pytest.raises(UnsupportedModelError, match="differs from transformers"):
        load(path)


def test_the_comparison_has_an_attention_among_many_mixtures_of_formats(tmp_path):
    kinds = dict(enumerate((Kind.Q4_0, Kind.Q5_0, Kind.Q8_0, Kind.Q4_1)))
    path, _ = write(tmp_path, "qwen3_5_text", lambda name: kinds[int(name.split(".")[1])] if "ffn_up" in name else None)
    config = described(path)
    small, weights = comparison._small(config, weights_of(MappedTensors([read_header(path)]), config, torch.bfloat16))
    assert small["layer_types"] == ["linear_attention", "linear_attention", "full_attention"]
    assert "model.layers.2.self_attn.gate_proj.weight" in weights


@pytest.mark.parametrize(("pre", "mark"), [("qwen2", ["e", "Ìģ"]), ("qwen35", ["eÌģ"])])
def test_a_text_is_split_as_the_model_was_trained(tmp_path, pre, mark):
    path, _ = write(tmp_path, "qwen3_5_text", tokenizer__ggml__pre=pre)
    tokenizer = load(path).vocabulary.tokenizer.backend_tokenizer
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("DON'T pay  123. e\u0301")]
    assert pieces == ["DON", "'T", "Ġpay", "Ġ", "Ġ", *"123", ".", *[f"Ġ{mark[0]}", *mark[1:]]]


def test_a_file_says_which_layers_attend(tmp_path):
    path, model = write(tmp_path, "qwen3_next", full_attention_interval=2)
    kinds = ["linear_attention", "full_attention"]
    assert described(path)["layer_types"] == kinds * 2
    path, _ = write(tmp_path, "qwen3_next", full_attention_interval=None)
    assert described(path)["layer_types"] == model.config.layer_types == [*["linear_attention"] * (EVERY - 1), kinds[1]]


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "metadata"),
    [
        ("qwen3_5_text", {"unheard_of": 3}),
        ("qwen3_5_text", {"ssm__v_head_reordered": True}),  # of another converter, with other orders
        ("qwen3_5_text", {"ssm__group_count": None}),
        ("qwen3_5_text", {"ssm__group_count": 4}),  # of 6 heads
        ("qwen3_5_text", {"ssm__group_count": 0}),
        ("qwen3_5_text", {"ssm__inner_size": 700}),
        ("qwen3_5_text", {"full_attention_interval": 0}),
        ("qwen3_5_text", {"full_attention_interval": 5}),
        ("qwen3_5_text", {"block_count": 3}),  # none of them attends
        ("qwen3_5_text", {"attention__recurrent_layers": [True, False]}),
        ("qwen3_5_text", {"attention__recurrent_layers": [1, 1, 1, 0]}),
        ("qwen3_5_text", {"rope__dimension_sections": None}),
        ("qwen3_5_text", {"rope__dimension_sections": [11, 11, 10, 0]}),
        ("qwen3_5_text", {"rope__dimension_sections": [3, 2, 2, 1]}),  # llama.cpp would not turn the fourth
        ("qwen3_5_text", {"rope__dimension_sections": [6, 1, 1, 0]}),
        ("qwen3_5_text", {"rope__dimension_count": 15}),
        ("qwen3_5_text", {"rope__dimension_count": 128}),
        ("qwen3_5_text", {"attention__head_count_kv": [0, 0, 0, 2]}),
        ("qwen3_5_text", {"expert_count": 8}),
        ("qwen3_5_text", {"nextn_predict_layers": 4}),
        ("qwen3_5_text", {"feed_forward_length": None}),
        ("qwen3_next", {"rope__dimension_sections": [3, 3, 2, 0]}),
        ("qwen3_next", {"expert_weights_scale": 2.5}),
        ("qwen3_5_moe_text", {"expert_shared_feed_forward_length": None}),
        ("qwen3_5_moe_text", {"expert_used_count": None}),
    ],
    ids=str,
)
def test_what_is_not_known_or_contradicts_itself_has_no_configuration(tmp_path, family, metadata):
    path, _ = write(tmp_path, family, lambda name: None, sizes=SMALL, **metadata)
    assert described(path) is None


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_has_no_configuration_is_refused_in_one_sentence(tmp_path, family, dtype):
    path, _ = write(tmp_path, family, lambda name: None, sizes=SMALL, ssm__v_head_reordered=True)
    with pytest.raises(UnsupportedModelError, match="not known here"):
        load(path, dtype=dtype)


@pytest.mark.parametrize(
    ("family", "left"),
    [
        ("qwen3_5_text", "blk.1.ssm_a"),
        ("qwen3_5_text", "blk.1.ssm_out.weight"),
        ("qwen3_5_text", "blk.2.attn_gate.weight"),
        ("qwen3_5_text", "blk.3.attn_q.weight"),
        ("qwen3_5_text", "blk.0.ffn_up.weight"),
        ("qwen3_5_text", "output_norm.weight"),
        ("qwen3_next", "blk.1.ssm_ba.weight"),
        ("qwen3_next", "blk.1.attn_qkv.weight"),
        ("qwen3_next", "blk.1.ffn_gate_inp_shexp.weight"),
        ("qwen3_next", "blk.1.ffn_down_exps.weight"),
    ],
)
def test_a_weight_that_is_missing(tmp_path, family, left):
    path, _ = write(tmp_path, family, lambda name: None, sizes=SMALL, leave_out=(left,))
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(RapidError, match="missing"):
            load(path, dtype=dtype)


@pytest.mark.parametrize(
    "metadata",
    [
        {"ssm__conv_kernel": 3},
        {"ssm__state_size": 64},
        {"ssm__time_step_rank": 8, "ssm__inner_size": 1024},
        {"attention__head_count": 8},
        {"attention__key_length": 32, "attention__value_length": 32, "rope__dimension_count": 16},
        {"feed_forward_length": 480},
        {"full_attention_interval": 2},
    ],
    ids=str,
)
def test_shapes_that_the_metadata_does_not_say(tmp_path, metadata):
    path, _ = write(tmp_path, "qwen3_5_text", lambda name: None, sizes=SMALL, **metadata)
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(ModelLoadError, match="metadata says|missing"):
            load(path, dtype=dtype)


def test_heads_by_the_billion_are_compared_with_the_tensors_before_their_rows_are_counted(tmp_path):
    many = dict.fromkeys(("ssm__group_count", "ssm__time_step_rank", "ssm__inner_size"), 2**31)
    path, _ = write(tmp_path, "qwen3_next", lambda name: None, sizes=SMALL, **many)
    config = described(path)
    tensors = MappedTensors([read_header(path)])
    for name in ("blk.0.ssm_ba.weight", "blk.0.ssm_conv1d.weight"):
        with pytest.raises(ModelLoadError, match="metadata says"):
            hybrids.part_of_layer(tensors, name, config, torch.bfloat16, True)


def test_decays_that_grow(tmp_path, monkeypatch):
    from tests.toys import gguf_hybrids

    changed = gguf_hybrids._changed
    monkeypatch.setattr(
        gguf_hybrids, "_changed", lambda name, x: x.abs() if name.endswith("A_log") else changed(name, x)
    )
    path, _ = write(tmp_path, "qwen3_5_text")
    with pytest.raises(ModelLoadError, match="ssm_a has a number that is not below 0"):
        load(path)


@pytest.mark.parametrize("family", EXPERTS)
def test_the_names_are_those_of_the_gguf_package(family):
    import gguf

    own = next(each for each in WITH_EXPERTS.values() if each.model_type == family)
    theirs = {gguf.TENSOR_NAMES[each] for each in gguf.MODEL_TENSORS[ARCHITECTURES[family]]}
    # Names that only the other families with gated delta nets have, are left over in a file of this one.
    assert {f"blk.{{bid}}.{name}" for name in own.names} - theirs <= {"blk.{bid}.ssm_beta", "blk.{bid}.ssm_alpha"}
