"""GGUF files of families without experts beside Llama's: their blocks are kept, and the answers are the file's."""

import math

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from rapid_integrations.cache import Rows
from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.gguf import comparison, stored
from rapid_integrations.models.gguf.description import configuration_of, weights_of
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.gguf.tensors import MappedTensors
from tests.toys.every_family import decoded, generated
from tests.toys.gguf_experts import IDS, MERGES, ROUNDED, TOKENIZER, errors, logits
from tests.toys.gguf_families import (
    ALWAYS_TIED,
    ARCHITECTURES,
    LONG_PHI,
    OF_PICTURES,
    ORIGINAL,
    TRANSFORMERS_READS,
    made,
    mixed,
    write_family,
)
from tests.toys.gguf_file import named, write_tensors

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("home")]
needs_kernels = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
OTHERS = [each for each in ARCHITECTURES if each not in TRANSFORMERS_READS]


def each_of(*quick):
    """Return all families; those that are not named are slow."""
    return [pytest.param(each, marks=[] if each in quick else [pytest.mark.slow]) for each in ARCHITECTURES]


def write(folder, family, formats=mixed, *, scale=0.3, sizes=None, name="tiny.gguf", **options):
    """Write a file; return its path and a float32 model with the weights that the file stands for."""
    model = made(family, scale=scale, **(sizes or {}))
    (folder / "files").mkdir(exist_ok=True)
    return write_family(folder / "files" / name, model, formats, **options), model


def load(path, **options):
    return loader.load(path, **{"dtype": "bfloat16"} | options)


def error(loaded, model, parts=(60, 2, 1, 17)):
    with torch.inference_mode():
        expected = model(IDS[None]).logits[0]
    return float((logits(loaded, parts) - expected).norm() / expected.norm())


def described(path):
    return configuration_of([read_header(path)])


@pytest.mark.in_turn(2)
@needs_kernels
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_family_in_its_blocks(tmp_path, family, home):
    """The text is four times as long as the windows."""
    path, model = write(tmp_path, family)
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and not loaded.lm.kernels.startswith("none")
    assert not (home / "dequantised").exists()
    theirs, ours = model.state_dict(), loaded.lm.transformers_copy(torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name
    assert error(loaded, model) < ROUNDED
    assert loaded.lm.num_parameters == sum(parameter.numel() for parameter in model.parameters())


@needs_kernels
@pytest.mark.parametrize("family", each_of("gemma3_text"))
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_heads_with_the_table_and_with_their_own(tmp_path, family, tied):
    tied = tied or family in ALWAYS_TIED
    path, model = write(tmp_path, family, lambda name: Kind.Q8_0, sizes={"tie_word_embeddings": tied})
    loaded = load(path)
    assert type(loaded.lm) is StoredLM
    assert error(loaded, model) < 2 * ROUNDED  # with the toy of SmolLM3 transformers' own is 0.11 in bfloat16


@needs_kernels
@pytest.mark.parametrize("family", OF_PICTURES)
def test_the_language_model_of_one_that_sees_pictures(tmp_path, family):
    path, model = write(tmp_path, family)
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and loaded.lm._config["model_type"] == family
    assert error(loaded, model) < ROUNDED
    assert error(load(path, dtype="float32"), model) < 1e-4


@pytest.mark.parametrize("family", OF_PICTURES)
@pytest.mark.parametrize("sections", [None, [32], [16, 16, 16], [8, 8, 8, 8], [12.0, 10.0, 10.0], [-1, 20, 13]])
def test_sections_that_are_not_known(tmp_path, family, sections):
    path, _ = write(tmp_path, family, rope__dimension_sections=sections)
    with pytest.raises(UnsupportedModelError, match="not known"):
        load(path)


SETTINGS = [
    ("cohere", {"use_qk_norm": False}, {}),
    ("gpt_neox", {"use_parallel_residual": False}, {}),
    ("gpt_neox", {"attention_bias": False}, {}),
    ("stablelm", {"use_parallel_residual": True}, {}),
    ("stablelm", {"use_qkv_bias": False}, {"use_parallel_residual": True}),  # as converters write of all
    ("phi", {}, {"fused": True}),
    ("glm", {}, {"fused": True}),
    ("glm", {"attention_bias": False}, {"fused": True}),
    ("glm", {"num_key_value_heads": 4}, {}),
    ("nemotron", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}}, {}),
]


@needs_kernels
@pytest.mark.parametrize(("family", "sizes", "options"), SETTINGS, ids=named)
def test_settings_that_are_not_the_usual_ones(tmp_path, family, sizes, options):
    path, model = write(tmp_path, family, sizes=sizes, **options)
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and error(loaded, model) < ROUNDED
    theirs, ours = model.state_dict(), loaded.lm.transformers_copy(torch.float32).state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(ours[name], weight) for name, weight in theirs.items())
    assert error(load(path, dtype="float32"), model) < 1e-4


def test_exaone_4_with_windows_rotates_only_these_layers(tmp_path):
    kinds = ["sliding_attention"] * 3 + ["full_attention"]
    sizes = {"sliding_window": 20, "num_hidden_layers": 4, "layer_types": kinds}
    path, model = write(tmp_path, "exaone4", sizes=sizes)
    assert described(path)["layer_types"] == kinds
    assert error(load(path, dtype="float32"), model) < 1e-4
    assert error(load(path), model) < ROUNDED


@needs_kernels
@pytest.mark.parametrize("form", ["Q4_0", "F16", "BF16"])
def test_a_file_of_one_format(tmp_path, form):
    path, model = write(tmp_path, "gemma3_text", lambda name: Kind[form])
    loaded = load(path)
    assert type(loaded.lm) is StoredLM
    assert error(loaded, model) < ROUNDED


@needs_kernels
@pytest.mark.parametrize("family", each_of("gemma3_text", "exaone4"))
def test_matrices_of_one_product_of_which_only_some_are_kept_in_blocks(tmp_path, family):
    """Published files have Q3_K beside Q5_K, and single matrices in F16."""
    formats = lambda name: Kind.F16 if "attn_k." in name or "ffn_up" in name else Kind.Q8_0  # noqa: E731
    path, model = write(tmp_path, family, formats)
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and error(loaded, model) < 2 * ROUNDED  # SmolLM3's toy


@needs_kernels
@pytest.mark.parametrize("family", each_of("gemma2", "cohere2"))
def test_a_draft_has_the_bits_of_single_steps(tmp_path, family):
    loaded = load(write(tmp_path, family)[0])
    assert torch.equal(logits(loaded, (60, 20)), logits(loaded, (60, *[1] * 20)))


@needs_kernels
@pytest.mark.parametrize("family", each_of("gemma3_text"))
def test_later_starts_need_no_comparison(tmp_path, family, monkeypatch):
    first = load(write(tmp_path, family)[0])
    monkeypatch.setattr(stored, "_converted", None)
    monkeypatch.setattr(stored, "compare", None)
    second = load(tmp_path / "files" / "tiny.gguf")
    assert torch.equal(logits(first), logits(second))
    assert first.lm.fingerprint() == second.lm.fingerprint()
    assert first.vocabulary.serialized() == second.vocabulary.serialized()


@pytest.mark.parametrize("family", each_of("gemma3_text", "phi3"))
def test_float32_has_the_logits_and_answers_of_the_dequantised_weights(tmp_path, family):
    path, model = write(tmp_path, family, scale=1.0)
    loaded = load(path, dtype="float32")
    assert errors(loaded, model).max() < 1e-4
    assert decoded(loaded.lm) == generated(model)
    torch.testing.assert_close(logits(load(path, dtype="float32")), logits(loaded))  # the copy that was kept


@pytest.mark.parametrize("family", TRANSFORMERS_READS)
def test_the_weights_are_those_that_transformers_reads(tmp_path, family):
    from transformers import AutoModelForCausalLM, GgufConfig

    path, _ = write(tmp_path, family)
    options = {"gguf_file": path.name, "quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    theirs = AutoModelForCausalLM.from_pretrained(path.parent, **options).state_dict()
    ours = load(path, dtype="float32").lm.model.state_dict()
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name


def test_norms_less_one_are_those_that_one_was_added_to():
    """All bfloat16 numbers but the smallest come back; those are off by less than 2**-24 of the factor."""
    bits = torch.arange(1 << 15, dtype=torch.int32).to(torch.int16)
    numbers = torch.cat([bits.view(torch.bfloat16), -bits.view(torch.bfloat16)])
    numbers = numbers[numbers.abs() <= 256]
    found = (numbers.float() + 1).sub_(1).bfloat16()
    kept = numbers.abs() >= 2**-16
    assert torch.equal(found[kept], numbers[kept])
    assert (found - numbers)[~kept].float().abs().max() < 2**-23


# --- what files say, and what llama.cpp takes for granted -------------------------------------------------------------


def test_gemma_3_stretches_the_angles_of_layers_that_see_all_keys(tmp_path):
    path, model = write(tmp_path, "gemma3_text")
    rope = described(path)["rope_parameters"]
    assert rope == model.config.rope_parameters
    path, _ = write(tmp_path, "gemma3_text", rope__freq_base_swa=5000.0, rope__scaling__type=None)
    rope = described(path)["rope_parameters"]
    assert rope["sliding_attention"] == {"rope_type": "default", "rope_theta": 5000.0}
    assert rope["full_attention"] == {"rope_type": "default", "rope_theta": 1e6}


@pytest.mark.parametrize(("family", "every"), [("gemma3_text", 6), ("gemma2", 2), ("cohere2", 4), ("olmo3", 4)])
def test_which_layers_have_windows(tmp_path, family, every):
    path, model = write(tmp_path, family)
    assert described(path)["layer_types"] == model.config.layer_types
    assert model.config.layer_types[every - 1] == "full_attention"
    assert set(model.config.layer_types[: every - 1]) == {"sliding_attention"}
    path, _ = write(tmp_path, family, attention__sliding_window_pattern=3)
    assert described(path)["layer_types"][:3] == ["sliding_attention", "sliding_attention", "full_attention"]
    pattern = [index == 1 for index in range(model.config.num_hidden_layers)]
    path, _ = write(tmp_path, family, attention__sliding_window_pattern=pattern)
    assert described(path)["layer_types"][:3] == ["full_attention", "sliding_attention", "full_attention"]
    path, _ = write(tmp_path, family, attention__sliding_window_pattern=pattern[1:])
    assert described(path) is None


STRETCHED = {"rope_type": "yarn", "rope_theta": 5e4, "factor": 8.0, "original_max_position_embeddings": 16}
OLMO_3 = {
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 5e4},
        "full_attention": STRETCHED,
    }
}
USUAL = 0.1 * math.log(8) + 1  # the factor on cosines
WHOLE = {"rope__scaling__yarn_attn_factor": USUAL, "rope__scaling__yarn_beta_fast": 32.0}


@needs_kernels
@pytest.mark.parametrize("said", [{}, WHOLE, {"rope__scaling__attn_factor": USUAL}], ids=str)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_olmo_3_stretches_the_angles_of_layers_that_see_all_keys(tmp_path, said, dtype):
    path, model = write(tmp_path, "olmo3", sizes=OLMO_3, **said)
    assert described(path)["rope_parameters"] == model.config.rope_parameters
    loaded = load(path, dtype=dtype)
    assert (type(loaded.lm) is StoredLM) == (dtype == "bfloat16")
    assert error(loaded, model) < (ROUNDED if dtype == "bfloat16" else 1e-4)


@pytest.mark.parametrize(
    "said",
    [
        {"rope__freq_base_swa": 1e4},
        {"rope__scaling__attn_factor": 1.0},  # of a model without a factor, or of one with llama.cpp's
        {"rope__scaling__yarn_attn_factor": 1.3},
        {"rope__scaling__yarn_beta_fast": 16.0},
        {"rope__scaling__yarn_ext_factor": 0.5},
        {"rope__scaling__type": "linear", **WHOLE},
        {"rope__scaling__factor": 0.5, **WHOLE},
        {"attention__sliding_window": 0},
        {"attention__sliding_window_pattern": [True] * 4},
    ],
    ids=str,
)
def test_olmo_3_with_angles_or_windows_that_are_not_known(tmp_path, said):
    path, _ = write(tmp_path, "olmo3", lambda name: None, sizes=OLMO_3 | {"intermediate_size": 32}, **said)
    assert described(path) is None


@pytest.mark.parametrize(("family", "layers"), [("gemma3_text", 62), ("gemma2", 46)])
def test_the_scores_of_the_largest_gemmas(tmp_path, family, layers):
    """No file says it: 27B divides by the root of the width over the number of heads."""
    small = dict.fromkeys(("intermediate_size", "head_dim"), 32)
    path, _ = write(tmp_path, family, lambda name: None, sizes={"num_hidden_layers": layers, **small})
    assert described(path)["query_pre_attn_scalar"] == 256 // 4
    path, _ = write(tmp_path, family, lambda name: None, sizes=small)
    assert described(path)["query_pre_attn_scalar"] == 32


def test_phi_3_without_a_window(tmp_path):
    path, model = write(tmp_path, "phi3", sizes={"sliding_window": None})
    assert described(path)["sliding_window"] is None
    assert error(load(path), model) < ROUNDED


@needs_kernels
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_phi_3_with_angles_that_follow_the_length(tmp_path, dtype):
    path, model = write(tmp_path, "phi3", sizes=LONG_PHI, scale=1.0 if dtype == "float32" else 0.3)
    loaded, bound = load(path, dtype=dtype), 1e-4 if dtype == "float32" else ROUNDED
    assert (type(loaded.lm) is StoredLM) == (dtype == "bfloat16")
    assert error(loaded, model) < bound  # a cache for 80 tokens
    with torch.inference_mode():
        expected = model(IDS[None, :50]).logits[0]
    found = {}
    for capacity in (ORIGINAL, ORIGINAL + 1):
        cache = loaded.lm.new_cache(capacity)
        assert cache.variant == int(capacity > ORIGINAL)
        found[cache.variant] = loaded.lm.forward([Rows(IDS[:50], cache, 50)])[0]
    assert (found[0] - expected).norm() / expected.norm() < bound
    assert (found[1] - expected).norm() / expected.norm() > 2 * bound


@pytest.mark.parametrize(
    "options",
    [
        {"leave_out": ("rope_factors_long.weight",)},
        {"rope__scaling__attn_factor": 1.1},
        {"rope__scaling__original_context_length": None},
        {"sizes": LONG_PHI, "rope__dimension_count": 32},  # there are more factors than pairs
    ],
    ids=str,
)
def test_angles_that_transformers_would_not_read_are_refused(tmp_path, options):
    path, _ = write(tmp_path, "phi3", **{"sizes": LONG_PHI} | options)
    with pytest.raises(UnsupportedModelError, match="follow the length of the text"):
        load(path)


@needs_kernels
@pytest.mark.parametrize("family", ["starcoder2", "glm4"])
def test_biases(tmp_path, family):
    path, model = write(tmp_path, family, sizes={"attention_bias": True})
    assert f"blk.0.attn_q.{'bias'}" in {tensor.name for tensor in read_header(path).tensors}
    loaded = load(path)
    assert type(loaded.lm) is StoredLM
    assert error(loaded, model) < ROUNDED


@pytest.mark.parametrize(
    ("family", "pre", "pieces"),
    [
        ("glm4", "glm4", ["DON", "'T", " pay", "Ġ", "Ġ", "123", "45", "."]),
        ("glm4", "chatglm-bpe", ["DON", "'T", " pay", "Ġ", "Ġ", "123", "45", "."]),
        ("granite", "refact", ["DON", "'", "T", " pay", "ĠĠ", *"12345", "."]),
        ("starcoder2", "starcoder", ["DON", "'", "T", " pay", "ĠĠ", *"12345", "."]),
        ("cohere2", "command-r", ["DON", "'", "T", " pay", "ĠĠ", *"12345", "."]),
        ("gemma2", "gpt-2", ["DON", "'", "T", " pay", "Ġ", "Ġ12345", "."]),
        ("exaone4", "exaone4", ["DON", "'", "T", " pay", "Ġ", "Ġ12345", "."]),
        ("seed_oss", "seed-coder", ["DON", "'T", " pay", "Ġ", "Ġ", *"12345", "."]),
        ("hunyuan_v1_dense", "hunyuan-dense", ["DON", "'T", " pay", "ĠĠ", "123", "45", "."]),
        ("hunyuan_v1_dense", "deepseek-v3", ["DON", "'T", " pay", "ĠĠ", "123", "45", "."]),
        ("ministral3", "tekken", ["DON", "'T", " pay", "Ġ", "Ġ", *"12345", "."]),
        ("ministral3", "llama4", ["DON'T", " pay", "Ġ", "Ġ", "123", "45", "."]),
        ("exaone", "exaone", ["DON", "'", "T", " pay", "ĠĠ", *"12345", "."]),
        ("exaone", "exaone-moe", ["DON", "'T", " pay", "Ġ", "Ġ", *"12345", "."]),
        ("exaone", "hunyuan", ["DON", "'T", " pay", "Ġ", "Ġ", *"12345", "."]),
    ],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_text_is_split_as_the_model_was_trained(tmp_path, family, pre, pieces, dtype):
    path, _ = write(tmp_path, family, tokenizer__ggml__pre=pre)
    assert split(load(path, dtype=dtype)) == [piece.replace(" ", "Ġ") for piece in pieces]


@pytest.mark.parametrize("key", ["rope__dimension_count", "attention__key_length"])
@pytest.mark.parametrize("family", ["phi3", "glm4", "gemma3_text", "seed_oss"])
def test_heads_beyond_all_bounds(tmp_path, family, key):
    """Angles of so many numbers would take gigabytes before a tensor is compared."""
    path, _ = write(tmp_path, family, **{key: 2**31 - 2})
    assert described(path) is None


def test_more_rotated_numbers_than_a_head_has(tmp_path):
    assert described(write(tmp_path, "glm4", rope__dimension_count=128)[0]) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["exaone4", "starcoder2"])
def test_a_way_to_split_a_text_that_nobody_knows_is_refused(tmp_path, family, dtype):
    path, _ = write(tmp_path, family, tokenizer__ggml__pre="unheard-of")
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.ggml\.pre is 'unheard-of'"):
        load(path, dtype=dtype)


def test_transformers_reader_splits_a_text_alike(tmp_path):
    path, _ = write(tmp_path, "starcoder2", tokenizer__ggml__pre="starcoder", unheard_of=3)
    assert split(load(path)) == ["DON", "'", "T", "Ġpay", "ĠĠ", *"12345", "."]


def split(loaded):
    tokenizer = loaded.vocabulary.tokenizer.backend_tokenizer
    return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("DON'T pay  12345.")]


def test_the_comparison_has_a_layer_of_each_kind(tmp_path):
    path, _ = write(tmp_path, "smollm3", lambda name: Kind.Q8_0)
    config = described(path)
    small, _ = comparison._small(config, weights_of(MappedTensors([read_header(path)]), config, torch.bfloat16))
    assert sorted(small["no_rope_layers"]) == [0, 1]


@pytest.mark.parametrize(
    ("architecture", "why"),
    [
        ("mpt", "ALiBi"),
        ("mistral4", "'mistral4' model; GGUF files are read of"),
        ("grok", "'grok' model; GGUF files are read of"),
    ],
)
def test_what_the_kernels_lack_is_said(tmp_path, architecture, why):
    weights = {"token_embd.weight": torch.zeros(len(TOKENIZER), 32)}
    path = write_tensors(tmp_path / "tiny.gguf", architecture, weights, TOKENIZER, MERGES, block_count=1)
    with pytest.raises(UnsupportedModelError, match=why):
        load(path)


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", TRANSFORMERS_READS)
def test_a_key_that_is_not_known_is_left_to_transformers(tmp_path, family):
    path, _ = write(tmp_path, family, unheard_of=3)
    assert described(path) is None
    assert type(load(path).lm) is not StoredLM


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("metadata", [{"unheard_of": 3}, {"context_length": None}], ids=["unknown", "missing"])
def test_a_key_that_is_not_known_is_refused_where_transformers_reads_none(tmp_path, family, metadata):
    path, _ = write(tmp_path, family, **metadata)
    assert described(path) is None
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(UnsupportedModelError, match="not known"):
            load(path, dtype=dtype)


@pytest.mark.parametrize("family", each_of("gemma3_text", "granite"))
@pytest.mark.parametrize("left", ["blk.1.ffn_down.weight", "output_norm.weight"])
def test_a_weight_that_is_missing(tmp_path, family, left):
    if family == "olmo":  # its norms have no weights
        left = "blk.1.ffn_down.weight"
    path, _ = write(tmp_path, family, leave_out=(left,))
    with pytest.raises(ModelLoadError, match="random" if family in TRANSFORMERS_READS else "not known"):
        load(path)


@pytest.mark.parametrize("family", each_of("gemma3_text", "granite"))
def test_a_shape_that_the_metadata_does_not_say(tmp_path, family):
    path, _ = write(tmp_path, family, feed_forward_length=480)
    with pytest.raises(ModelLoadError, match="480|shape|not known"):
        load(path)


@pytest.mark.parametrize(
    ("family", "metadata"),
    [
        ("gemma2", {"attn_logit_softcapping": None}),
        ("gemma3_text", {"attention__sliding_window": None}),
        ("gemma3_text", {"rope__freq_base": None}),
        ("phi3", {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0}),
        ("phi3", {"attention__sliding_window": None}),
        ("phi3", {"rope__scaling__attn_factor": 1.2}),
        ("granite", {"residual_scale": None}),
        *((family, {"logit_scale": each}) for family in ("granite", "minicpm") for each in (0.0, math.inf, "4")),
        ("olmo2", {"attention__key_length": 32}),
        ("cohere2", {"logit_scale": None}),
        ("cohere", {"logit_scale": None}),
        ("ministral3", {"attention__temperature_scale": -0.1}),
        ("ministral3", {"attention__temperature_scale": math.nan}),
        ("ministral3", {"attention__temperature_scale": None}),  # llama.cpp has another factor on cosines than Mistral
        ("ministral3", {"rope__scaling__yarn_log_multiplier": 0.5}),
        ("ministral3", {"rope__scaling__yarn_log_multiplier": None}),
        ("ministral3", {"rope__scaling__yarn_beta_fast": 0.0}),
        ("ministral3", {"rope__scaling__original_context_length": 0}),
        ("ministral3", {"rope__scaling__type": "linear"}),
        ("ministral3", {"rope__scaling__factor": 0.5}),
        ("mistral_small", {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0}),
        ("olmo", {"attention__layer_norm_epsilon": 1e-6}),
        ("olmo", {"attention__clamp_kqv": 8.0}),
        ("gpt_neox", {"use_parallel_residual": None}),
        ("gpt_neox", {"attention__head_count_kv": 2}),
        ("minicpm", {"residual_scale": None}),
        ("jais2", {"attention__key_length": 32}),
    ],
    ids=str,
)
def test_what_is_not_known_has_no_configuration(tmp_path, family, metadata):
    path, _ = write(tmp_path, family, **metadata)
    assert described(path) is None


@pytest.mark.parametrize("family", ["gemma3_text", "smollm3"])
def test_layers_beyond_all_bounds(tmp_path, family):
    path, _ = write(tmp_path, family, block_count=4_000_000_000)
    assert described(path) is None
    with pytest.raises(ModelLoadError, match=r"10,000|not known"):
        load(path)


@needs_kernels
@pytest.mark.parametrize("family", ["granite", "smollm3"])
def test_rows_in_a_wrong_order_are_noticed(tmp_path, family, rows_packed_wrongly):
    path, _ = write(tmp_path, family, scale=1.0)
    with pytest.raises(UnsupportedModelError, match="differs from transformers"):
        load(path)


@pytest.mark.process
@pytest.mark.in_turn(2)
@pytest.mark.parametrize("family", ["gemma3_text", "granite"])
def test_the_check_in_a_child_reads_the_same(tmp_path, family):
    path, model = write(tmp_path, family)
    assert error(load(path, verify="isolated"), model) < ROUNDED
    path, _ = write(tmp_path, "granite", unheard_of=3)
    with pytest.raises(UnsupportedModelError, match="not known"):
        load(path, verify="isolated")


def test_the_names_are_those_of_the_gguf_package():
    """llama.cpp's converter writes no tensor of these families that the reader lacks, but for those of other models."""
    from rapid_integrations.models.gguf import families

    for family, architecture in (*families.ARCHITECTURES.items(), *families.WITH_WINDOWS.items()):
        kind = next((each for each, name in gguf.MODEL_ARCH_NAMES.items() if name == family), None)
        if kind is None:  # an old release of the package
            continue
        theirs = {gguf.TENSOR_NAMES[each] for each in gguf.MODEL_TENSORS[kind]}
        assert {f"blk.{{bid}}.{name.removesuffix('.weight')}" for name in architecture.names} <= theirs


@pytest.mark.parametrize(
    "told",
    [{"xielu.alpha_n": None}, {"xielu.beta": [0.5]}, {"xielu.eps": [1, 2]}, {"xielu.alpha_p": float("nan")}],
    ids=str,
)
def test_an_activation_without_all_of_its_numbers_is_refused(tmp_path, told):
    path, _ = write(tmp_path, "apertus", **told)
    with pytest.raises(UnsupportedModelError, match="metadata that is not known here, or whose tensors"):
        load(path)


@needs_kernels
def test_one_number_of_an_activation_may_be_that_of_all_layers(tmp_path):
    path, model = write(tmp_path, "apertus", **{"xielu.beta": 0.25, "xielu.eps": -1e-3})
    for layer in model.model.layers:
        layer.mlp.act_fn.beta.fill_(0.25)
        layer.mlp.act_fn.eps.fill_(-1e-3)
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and error(loaded, model) < ROUNDED
