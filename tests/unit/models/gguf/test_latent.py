"""GGUF files of models with latent attention: their blocks are kept, and the answers are the file's."""

import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.gguf import stored
from rapid_integrations.models.gguf.description import configuration_of
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.stored import StoredLM
from tests.toys.every_family import decoded, generated
from tests.toys.gguf_experts import ROUNDED, errors, logits
from tests.toys.gguf_file import named
from tests.toys.gguf_latent import FAMILIES, LONG, OTHERS, YARN, made, mixed, write_latent

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("home")]
needs_kernels = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SMALL = {"intermediate_size": 32, "hidden_size": 64, "moe_intermediate_size": 32}
GROUPS = {"n_group": 4, "topk_group": 2}


def write(folder, family, formats=mixed, *, scale=0.3, sizes=None, **options):
    """Write a file; return its path and a float32 model with the weights that the file stands for."""
    model = made(family, scale=scale, **(sizes or {}))
    (folder / "files").mkdir(exist_ok=True)
    return write_latent(folder / "files" / "tiny.gguf", model, formats, **options), model


def write_small(folder, family, *, sizes=None, **options):
    """Write a file whose numbers do not matter."""
    return write(folder, family, lambda name: None, sizes=SMALL | (sizes or {}), **options)[0]


def load(path, **options):
    return loader.load(path, **{"dtype": "bfloat16"} | options)


def described(path):
    return configuration_of([read_header(path)])


def all_in_q8_0(name):
    return Kind.Q8_0 if "exp_probs" not in name and "gate_inp" not in name else None


@needs_kernels
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"whole": True},
        {"sizes": {"q_lora_rank": 64, "n_shared_experts": 2, "first_k_dense_replace": 0}},
        {"sizes": {"v_head_dim": 128, "qk_nope_head_dim": 32, "qk_head_dim": 64}},
    ],
    ids=named,
)
def test_a_model_in_its_blocks(tmp_path, family, options, home):
    path, model = write(tmp_path, family, **options)
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and not loaded.lm.kernels.startswith("none")
    assert not (home / "dequantised").exists()
    theirs, ours = model.state_dict(), loaded.lm.transformers_copy(torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items():
        assert torch.equal(ours[name].float(), weight), name
    assert errors(loaded, model).median() < ROUNDED


@needs_kernels
@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {}) for family in OTHERS),
        ("minicpm3", {"sizes": {"rope_parameters": LONG}}),
        ("kimi_linear", {"whole": True, "sizes": {"q_lora_rank": 64}}),
        ("kimi_linear", {"sizes": {"linear_head_dim": 128, "linear_conv_kernel_dim": 3}}),
    ],
    ids=named,
)
def test_latents_of_other_families(tmp_path, family, options, home):
    """Decays are computed in float32 both ways."""
    path, model = write(tmp_path, family, **options)
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and not loaded.lm.kernels.startswith("none")
    assert not (home / "dequantised").exists()
    theirs, ours = model.state_dict(), loaded.lm.transformers_copy(torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name].float(), weight, atol=1e-6 if "A_log" in name else 0, rtol=0)
    assert errors(loaded, model).median() < ROUNDED
    assert errors(load(path, dtype="float32"), model).max() < 1e-4


@pytest.mark.parametrize("family", OTHERS)
def test_answers_of_other_families_in_float32(tmp_path, family):
    path, model = write(tmp_path, family, scale=1.0)
    assert decoded(load(path, dtype="float32").lm) == generated(model)


@needs_kernels
@pytest.mark.parametrize("sizes", [{"rope_parameters": YARN}, GROUPS | {"topk_method": "noaux_tc"}], ids=named)
def test_angles_and_groups_of_experts(tmp_path, sizes):
    path, model = write(tmp_path, "deepseek_v3", sizes=sizes)
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and errors(loaded, model).median() < ROUNDED
    assert errors(load(path, dtype="float32"), model).max() < 1e-4


@needs_kernels
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_behind_latents_may_lie_in_blocks(tmp_path, whole):
    """It is rounded to bfloat16, as products with parts of it are."""
    path, model = write(tmp_path, "deepseek_v2", all_in_q8_0, whole=whole, scale=0.1)
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and errors(loaded, model).median() < ROUNDED


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_has_the_logits_and_answers_of_the_dequantised_weights(tmp_path, family):
    path, model = write(tmp_path, family, scale=1.0)
    loaded = load(path, dtype="float32")
    assert errors(loaded, model).max() < 1e-4
    assert decoded(loaded.lm) == generated(model)


@needs_kernels
@pytest.mark.parametrize("family", ["deepseek_v3", *OTHERS])
def test_a_draft_has_the_bits_of_single_steps(tmp_path, family):
    loaded = load(write(tmp_path, family)[0])
    assert torch.equal(logits(loaded, (60, 20)), logits(loaded, (60, *[1] * 20)))


@needs_kernels
@pytest.mark.parametrize("family", FAMILIES | OTHERS)
def test_later_starts_need_no_comparison(tmp_path, family, monkeypatch):
    path, _ = write(tmp_path, family)
    first = load(path)
    monkeypatch.setattr(stored, "_converted", None)
    monkeypatch.setattr(stored, "compare", None)
    second = load(path)
    assert torch.equal(logits(first), logits(second))
    assert first.lm.fingerprint() == second.lm.fingerprint()


@pytest.mark.parametrize(
    ("family", "said"),
    [
        *(("deepseek_v3", {key: None}) for key in ("attention__kv_lora_rank", "rope__dimension_count")),
        *(("deepseek_v3", {key: None}) for key in ("leading_dense_block_count", "expert_shared_count")),
        ("deepseek_v3", {"expert_gating_func": 1}),  # with corrections of scores
        ("deepseek_v3", {"expert_gating_func": 3}),
        ("deepseek_v3", {"attention__key_length": 64}),
        ("deepseek_v3", {"attention__key_length_mla": 32}),  # all of it is rotated
        ("deepseek_v2", {"expert_gating_func": 2}),
        ("deepseek_v2", {"expert_weights_norm": True}),
        ("deepseek_v2", {"rope__scaling__yarn_log_multiplier": None}),
        ("deepseek_v2", {"rope__scaling__yarn_beta_fast": 16.0}),
        ("deepseek_v2", {"rope__scaling__type": "linear"}),
        ("deepseek_v2", {"unheard_of": 3}),
        *((each, {"unheard_of": 3}) for each in OTHERS),
        *(("kimi_linear", {key: None}) for key in ("kda__head_dim", "ssm__conv_kernel", "expert_gating_func")),
        ("kimi_linear", {"expert_gating_func": 1}),
        ("kimi_linear", {"expert_weights_norm": False}),
        ("kimi_linear", {"attention__head_count_kv": [0, 0, 0, 0]}),
        ("kimi_linear", {"leading_dense_block_count": 4}),
        ("minicpm3", {"attention__head_count_kv": 2}),
        ("minicpm3", {"attention__kv_lora_rank": None}),
    ],
    ids=named,
)
def test_what_is_not_known_is_refused(tmp_path, family, said):
    path = write_small(tmp_path, family, **said)
    assert described(path) is None
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(UnsupportedModelError, match="not known"):
            load(path, dtype=dtype)


@pytest.mark.parametrize("left", ["blk.0.attn_k_b.weight", "blk.1.attn_v_b.weight", "blk.2.attn_kv_a_norm.weight"])
def test_a_weight_that_is_missing(tmp_path, left):
    with pytest.raises(ModelLoadError, match="not known"):
        load(write_small(tmp_path, "deepseek_v3", leave_out=(left,)))


@pytest.mark.parametrize("left", ["blk.0.ssm_conv1d_q.weight", "blk.0.ssm_conv1d_k.weight", "blk.2.ssm_a"])
def test_a_part_of_a_delta_net_that_is_missing(tmp_path, left):
    with pytest.raises(ModelLoadError, match="not known"):
        load(write_small(tmp_path, "kimi_linear", leave_out=(left,)))


def test_a_shape_that_the_metadata_does_not_say(tmp_path):
    with pytest.raises(ModelLoadError, match="attn_k_b.weight is 64 x 64 x 4, and its metadata says 32 x 64 x 4"):
        load(write_small(tmp_path, "deepseek_v3", attention__key_length_mla=64))
