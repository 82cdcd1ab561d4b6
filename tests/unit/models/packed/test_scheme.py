"""How a checkpoint is quantised, from its configuration: what is read, what is refused, and what is said of it."""

import pytest
import torch

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.models.packed.loading import rounding_words
from rapid_integrations.models.packed.scheme import scheme_of
from rapid_integrations.models.run_check import check
from tests.toys import packed_checkpoints
from tests.toys.models import tiny_model

WEIGHTS = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}


def compressed(layout="pack-quantized", **changes):
    groups = {"group_0": {"targets": ["Linear"], "weights": WEIGHTS | changes}}
    return {"quant_method": "compressed-tensors", "format": layout, "config_groups": groups}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"quant_method": "gptq"}, "bits = None"),
        ({"quant_method": "gptq", "bits": 3}, "only 4 and 8 are read"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "layout 'marlin'"),
        (
            {"quant_method": "gptq", "bits": 4, "dynamic": {"-:.*attn.*": {}, "+:.*mlp.*": {"bits": 8}}},
            "other settings for some modules",
        ),
        ({"quant_method": "gptq", "bits": 4, "group_size": "all"}, "a whole number or -1 is needed"),
        ({"quant_method": "awq", "bits": 8}, "only 4 are read"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "only 'gemm' is read"),
        ({"quant_method": "awq", "bits": 4, "zero_point": False}, "without zero points"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "only 'e4m3' is read"),
        ({"quant_method": "fp8", "weight_block_size": [0, 128]}, "two whole numbers from 1 on are needed"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "two whole numbers from 1 on are needed"),
        (compressed("float-quantized", type="float", num_bits=8, block_structure=["a", 1]), "block_structure = "),
        ({"quant_method": "compressed-tensors"}, "do not quantise all weights in one way"),
        (compressed(num_bits=3), "3 bits"),
        (compressed("nvfp4-pack-quantized", type="float"), "nvfp4-pack-quantized"),
        (compressed(strategy="block"), "strategy 'block'"),
        (compressed() | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse matrix"),
        (compressed() | {"transform_config": {"config_groups": {"u": {}}}}, "rotations of their inputs"),
    ],
)
def test_variants_that_are_not_read(settings, words):
    with pytest.raises(UnsupportedModelError, match=words) as caught:
        scheme_of("it", settings)
    assert "Take the model's unquantised safetensors" in str(caught.value)


def test_methods_that_are_not_known():
    assert scheme_of("it", {"quant_method": "brand-new"}) is scheme_of("it", {}) is None


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (packed_checkpoints.gptq(), ["GPTQ, 4 bits: repacked", "(Q4_0) without a second rounding"]),
        (packed_checkpoints.gptq(8), ["(Q8_0) without a second rounding"]),
        (packed_checkpoints.gptq(ordered=True), ["dequantised", "(desc_act)", "bfloat16 rounds them a second time"]),
        (packed_checkpoints.gptq(group=16), ["groups of 16 columns are no multiple of 32"]),
        (packed_checkpoints.gptq(8, symmetric=False), ["beyond eight bits"]),
        (packed_checkpoints.awq(), ["AWQ, 4 bits: repacked", "(Q5_0)"]),
        (packed_checkpoints.compressed(8, 0, packed=False), ["compressed-tensors int-quantized, 8 bits", "(Q8_0)"]),
        (packed_checkpoints.fp8(), ["FP8: dequantised", "no integer levels"]),
        (
            packed_checkpoints.mxfp4(),
            ["MXFP4: repacked", "(MXFP4) without a", "has every value exactly"],
        ),
    ],
)
def test_what_the_check_says(tmp_path, made, words):
    shape = {"hidden_size": 64, "num_attention_heads": 2, "head_dim": 32, "intermediate_size": 96}
    folder = packed_checkpoints.save_packed(tmp_path, tiny_model("llama", 1, **shape), lambda weight: {}, made[1])
    (folder / "model.safetensors").unlink()  # the configuration says it alone
    kind = check(folder)
    assert kind.how == "kernels"
    for each in words:
        assert each in kind.weights


def test_what_the_check_says_of_another_family(tmp_path):
    make, settings = packed_checkpoints.awq()
    model = tiny_model("gemma3", 1)
    folder = packed_checkpoints.save_packed(tmp_path, model, lambda weight: {}, settings)
    assert "this family's matrices do not lie in blocks" in check(folder).weights
    packed_checkpoints.save_packed(tmp_path, model, lambda weight: {}, None)
    assert check(folder).weights == ""


def test_what_loading_says():
    half, whole = torch.bfloat16, torch.float32
    fp8, mxfp4 = (scheme_of("it", {"quant_method": method}) for method in ("fp8", "mxfp4"))
    assert rounding_words(fp8, half) == "bfloat16 (rounded a second time)"
    assert rounding_words(fp8, whole) == "float32 (products with scales rounded to 24 bits)"
    assert rounding_words(scheme_of("it", {"quant_method": "awq"}), whole) == "float32 (exactly)"
    assert rounding_words(mxfp4, half) == "bfloat16 (exactly)"
