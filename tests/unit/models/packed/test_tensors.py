"""Tensors of quantised checkpoints: they stand for the numbers that their published formats say."""

import pytest
import torch

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.block_linear import StoredBlocks
from rapid_integrations.models.packed.levels import levels_of
from rapid_integrations.models.packed.scheme import scheme_of
from rapid_integrations.models.packed.tensors import PackedTensors, PackedWeight
from tests.toys import packed_checkpoints, packed_reference
from tests.toys.models import tiny_model

MATRIX = 0.4 * torch.randn(48, 64, generator=torch.Generator().manual_seed(3))
FORMATS = {
    "gptq": (packed_checkpoints.gptq(), packed_reference.gptq),
    "gptq, asymmetric": (packed_checkpoints.gptq(symmetric=False), packed_reference.gptq),
    "gptq, second version": (packed_checkpoints.gptq(symmetric=False, less_one=0), packed_reference.gptq),
    "gptq, 8 bits": (packed_checkpoints.gptq(8), packed_reference.gptq),
    "gptq, 8 bits, asymmetric": (packed_checkpoints.gptq(8, symmetric=False), packed_reference.gptq),
    "gptq, act-order": (packed_checkpoints.gptq(ordered=True, symmetric=False), packed_reference.gptq),
    "gptq, whole rows": (packed_checkpoints.gptq(group=0), packed_reference.gptq),
    "gptq, narrow groups": (packed_checkpoints.gptq(group=16), packed_reference.gptq),
    "awq": (packed_checkpoints.awq(), packed_reference.awq),
    "awq, wide groups": (packed_checkpoints.awq(64), packed_reference.awq),
    "packed": (packed_checkpoints.compressed(), packed_reference.compressed),
    "packed, asymmetric": (packed_checkpoints.compressed(symmetric=False), packed_reference.compressed),
    "packed, 8 bits": (packed_checkpoints.compressed(8), packed_reference.compressed),
    "integers": (packed_checkpoints.compressed(8, 0, packed=False), packed_reference.compressed),
    "integers, asymmetric": (
        packed_checkpoints.compressed(8, 0, symmetric=False, packed=False),
        packed_reference.compressed,
    ),
}
FP8 = {
    "blocks": packed_checkpoints.fp8(),
    "blocks that are cut off": packed_checkpoints.fp8((32, 40)),
    "one scale": packed_checkpoints.fp8(None),
    "rows": packed_checkpoints.fbgemm(),
    "compressed, rows": packed_checkpoints.compressed_fp8(),
    "compressed, one scale": packed_checkpoints.compressed_fp8("tensor"),
}


def weight_of(parts, settings):
    scheme = scheme_of("it", settings)
    return PackedWeight("it.weight", tuple(MATRIX.shape), parts, scheme)


@pytest.mark.parametrize("name", FORMATS)
def test_integers_are_what_the_format_says(name):
    (make, settings), reference = FORMATS[name]
    parts = make(MATRIX)
    dense = weight_of(parts, settings).dense()
    # A product of a float16 or bfloat16 with nine bits is exact in float32.
    assert dense.tolist() == reference(parts, settings)
    step = 0.4 * 7 / (2 ** scheme_of("it", settings).bits - 1)
    assert (dense - MATRIX).abs().max() < step  # so the maker has quantised this matrix


@pytest.mark.parametrize("name", FORMATS)
def test_blocks_hold_the_same_numbers(name):
    (make, settings), _ = FORMATS[name]
    weight = weight_of(make(MATRIX), settings)
    blocks = weight.blocks()
    if any(word in name for word in ("act-order", "narrow")) or ("8 bits, asym" in name or "integers, asym" in name):
        assert blocks is None
        return
    as_in_a_file = StoredBlocks(blocks.form, blocks.raw, None, lambda: None)
    assert as_in_a_file.shape == blocks.shape == (48, 64)
    assert torch.equal(as_in_a_file.dense(), weight.dense())  # as the gguf package computes it


def test_scales_that_float16_does_not_have_are_not_put_into_blocks():
    make, settings = packed_checkpoints.compressed()
    parts = make(MATRIX)
    assert weight_of(parts, settings).blocks() is not None
    parts["weight_scale"][3, 1] *= 2.0**-20
    assert weight_of(parts, settings).blocks() is None


@pytest.mark.parametrize("name", FP8)
def test_fp8_is_what_the_format_says(name):
    make, settings = FP8[name]
    parts = make(MATRIX)
    bytes_of = parts | {"weight": parts["weight"].view(torch.uint8)}
    scale = next(each for key, each in parts.items() if "scale" in key)
    dense = weight_of({"weight": parts["weight"], "scale": scale}, settings).dense()
    assert torch.equal(dense, torch.tensor(packed_reference.fp8(bytes_of, settings)))
    assert (dense - MATRIX).abs().max() < 0.1


def test_mxfp4_is_what_the_format_says():
    experts = MATRIX.view(2, 32, 48)
    make, settings = packed_checkpoints.mxfp4()
    parts = {name.removeprefix("_"): tensor for name, tensor in make(experts).items()}
    scheme = scheme_of("it", settings)
    dense = PackedWeight("it", tuple(experts.shape), parts, scheme).dense()
    for index in range(2):
        wanted = packed_reference.mxfp4(parts["blocks"][index], parts["scales"][index])
        assert dense[index].tolist() == wanted
    assert torch.equal(dense.bfloat16().float(), dense)  # bfloat16 has them all
    assert (dense - experts).abs().max() < 0.4


def test_levels_that_the_configuration_leaves_no_room_for():
    make, settings = packed_checkpoints.gptq(symmetric=False)
    weight = weight_of(make(MATRIX), settings | {"sym": True})
    with pytest.raises(ModelLoadError, match="correct sym and desc_act"):
        _ = weight.blocks().raw


def test_tensors_that_contradict_each_other():
    make, settings = packed_checkpoints.gptq()
    parts = make(MATRIX)
    with pytest.raises(ModelLoadError, match=r"it.weight could not be loaded.*which do not belong together"):
        weight_of(parts | {"scales": parts["scales"][:, :8]}, settings).dense()
    with pytest.raises(ModelLoadError, match="'qzeros' is missing"):
        weight_of({name: each for name, each in parts.items() if name != "qzeros"}, settings).dense()
    with pytest.raises(ModelLoadError, match="groups"):
        weight_of(parts | {"g_idx": parts["g_idx"] + 1}, settings).dense()
    make, settings = packed_checkpoints.fp8()
    with pytest.raises(ModelLoadError, match="do not fit"):
        weight_of({"weight": make(MATRIX)["weight"], "scale": torch.ones(3, 3)}, settings).dense()


@pytest.mark.parametrize("form", [packed_checkpoints.gptq(), packed_checkpoints.awq(), packed_checkpoints.compressed()])
def test_blocks_without_scales(form):
    make, settings = form
    parts = {name: each for name, each in make(MATRIX).items() if name not in ("scales", "weight_scale")}
    missing = (set(make(MATRIX)) - set(parts)).pop()
    with pytest.raises(ModelLoadError, match=f"it.weight could not be loaded: its tensor '{missing}' is missing"):
        weight_of(parts, settings).blocks()


@pytest.mark.parametrize(
    ("form", "part", "damage", "words"),
    [
        (packed_checkpoints.gptq(), "qweight", torch.flatten, "2 dimensions are needed"),
        (packed_checkpoints.compressed(8, 0, packed=False), "weight", torch.flatten, "2 dimensions are needed"),
        (packed_checkpoints.compressed(), "weight_shape", lambda shape: shape[:1], "a matrix has 2"),
    ],
)
def test_a_tensor_of_another_shape_is_named(tmp_path, form, part, damage, words):
    make, settings = form

    def damaged(weight):
        return {name: damage(each) if name == part else each for name, each in make(weight).items()}

    folder = packed_checkpoints.save_packed(tmp_path, tiny_model("llama", 1, intermediate_size=64), damaged, settings)
    with pytest.raises(ModelLoadError, match=rf"model\.layers\.\S* could not be loaded: .*{words}"):
        PackedTensors(folder, scheme_of("it", settings))


def test_a_list_of_groups_of_minus_one_says_nothing():
    make, settings = packed_checkpoints.gptq()
    parts = make(MATRIX)
    scheme = scheme_of("it", settings)
    own = levels_of(parts, scheme)
    assert own.group_of is None
    assert torch.equal(levels_of(parts | {"g_idx": -torch.ones(64)}, scheme).numbers, own.numbers)


def test_the_names_and_sizes_of_a_checkpoint(tmp_path):
    model = tiny_model("llama", 1)
    make, settings = packed_checkpoints.gptq(group=16)
    folder = packed_checkpoints.save_packed(tmp_path, model, make, settings)
    tensors = PackedTensors(folder, scheme_of("it", settings))
    assert {name: tuple(each.shape) for name, each in tensors.weights.items()} == {
        name: tuple(each.shape) for name, each in model.state_dict().items()
    }
    assert tensors.elements == sum(each.numel() for each in model.state_dict().values())


def test_a_checkpoint_that_is_not_quantised_as_it_says(tmp_path):
    make, settings = packed_checkpoints.awq()
    folder = packed_checkpoints.save_packed(tmp_path, tiny_model("llama", 1), make, settings, only=lambda *_: False)
    with pytest.raises(ModelLoadError, match="but none of them is. Remove quantization_config"):
        PackedTensors(folder, scheme_of("it", settings))
