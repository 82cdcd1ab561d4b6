"""GGUF files of Gemma 3n: their blocks are kept, and the answers are the file's."""

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from rapid_integrations.cache import Rows
from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader, rows_when_read
from rapid_integrations.models.gguf import comparison, families, stored
from rapid_integrations.models.gguf.description import configuration_of, weights_of
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.run_check import check_gguf
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.gguf.tensors import MappedTensors
from tests.toys.every_family import decoded, generated
from tests.toys.gguf_experts import ROUNDED, errors, logits
from tests.toys.gguf_file import named
from tests.toys.gguf_gemma3n import made, mixed, write_gemma3n

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("home")]
needs_kernels = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SMALL = {"intermediate_size": 32, "hidden_size": 64, "head_dim": 16}


def write(folder, formats=mixed, *, scale=0.3, sizes=None, **options):
    """Write a file; return its path and a float32 model with the weights that the file stands for."""
    model = made(scale=scale, **(sizes or {}))
    (folder / "files").mkdir(exist_ok=True)
    return write_gemma3n(folder / "files" / "tiny.gguf", model, formats, **options), model


def write_small(folder, *, sizes=None, **options):
    """Write a file whose numbers do not matter."""
    return write(folder, lambda name: None, sizes=SMALL | (sizes or {}), **options)[0]


def load(path, **options):
    return loader.load(path, **{"dtype": "bfloat16"} | options)


def described(path):
    return configuration_of([read_header(path)])


def in_q8_0(name):
    return None if mixed(name) is None else Kind.Q8_0


@needs_kernels
@pytest.mark.parametrize(
    "options",
    [
        {"unread": True},
        {"formats": in_q8_0},
        {"sizes": {"tie_word_embeddings": False, "intermediate_size": [256, 512, 512, 768, 512]}},
        {"sizes": {"num_kv_shared_layers": 0, "altup_num_inputs": 3, "altup_active_idx": 1}},
        {"sizes": {"hidden_size_per_layer_input": 256, "laurel_rank": 64}},
        *({"formats": form} for form in (Kind.Q4_0, Kind.F16, Kind.BF16)),
    ],
    ids=named,
)
def test_a_model_in_its_blocks(tmp_path, options, home):
    """The text is four times as long as the windows."""
    form = options.get("formats")
    if isinstance(form, Kind):
        options = options | {"formats": lambda name: None if mixed(name) is None else form}
    path, model = write(tmp_path, **options)
    assert check_gguf(path).how == "kernels"
    loaded = load(path)
    assert type(loaded.lm) is StoredLM and not loaded.lm.kernels.startswith("none")
    assert not (home / "dequantised").exists()
    theirs, ours = model.state_dict(), loaded.lm.transformers_copy(torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items() if form is not Kind.F16 else ():  # which the kernels have in bfloat16
        assert torch.equal(ours[name].float(), weight), name
    assert errors(loaded, model).median() < ROUNDED
    assert loaded.lm.num_parameters == sum(parameter.numel() for parameter in model.parameters())


def test_float32_has_the_logits_and_answers_of_the_dequantised_weights(tmp_path):
    path, model = write(tmp_path, scale=1.0, unread=True)
    loaded = load(path, dtype="float32")
    assert errors(loaded, model).max() < 1e-4
    assert decoded(loaded.lm) == generated(model)
    torch.testing.assert_close(logits(load(path, dtype="float32")), logits(loaded))  # the copy that was kept


@needs_kernels
def test_a_draft_has_the_bits_of_single_steps(tmp_path):
    loaded = load(write(tmp_path)[0])
    assert torch.equal(logits(loaded, (60, 20)), logits(loaded, (60, *[1] * 20)))


@needs_kernels
def test_steps_on_operators_use_the_same_blocks(tmp_path, monkeypatch):
    path, model = write(tmp_path)
    loaded = load(path)
    monkeypatch.setattr(loaded.lm._fused, "_native", None)
    assert errors(loaded, model).median() < ROUNDED


@needs_kernels
def test_later_starts_need_no_comparison(tmp_path, monkeypatch):
    path, _ = write(tmp_path)
    first = load(path)
    monkeypatch.setattr(stored, "_converted", None)
    monkeypatch.setattr(stored, "compare", None)
    monkeypatch.setattr(stored, "model_of", None)  # nor transformers' class
    second = load(path)
    assert torch.equal(logits(first), logits(second))
    assert first.lm.fingerprint() == second.lm.fingerprint()


@needs_kernels
def test_only_rows_that_are_read_are_computed(tmp_path):
    loaded = load(write(tmp_path)[0])
    rows = loaded.lm._inputs.rows
    loaded.lm.forward([Rows(torch.arange(100, 120), loaded.lm.new_cache(20), 1)])
    assert rows.weight[100:120].any(dim=1).all() and rows.weight.any(dim=1).sum() <= 28


@needs_kernels
def test_rows_that_were_given_back_are_computed_again(tmp_path, monkeypatch):
    path, _ = write(tmp_path, sizes={"hidden_size_per_layer_input": 256})
    expected = logits(load(path))
    monkeypatch.setattr(rows_when_read, "BUDGET", 10 * 2 * 5 * 256)
    loaded = load(path)
    assert torch.equal(logits(loaded), expected) and torch.equal(logits(loaded, (60, 20)), expected)
    loaded.lm.forward([Rows(torch.arange(5), loaded.lm.new_cache(5), 1)])
    assert loaded.lm._inputs.rows.computed <= 5 + 2 * loaded.lm._inputs.rows._group


# --- what files say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"altup_num_inputs": 2, "altup_active_idx": 1},
        {"activation_sparsity_pattern": [0.123456, 0.9, 0.5, 0.99, 0.001]},
        {"intermediate_size": [32, 64, 32, 96, 32], "num_kv_shared_layers": 0},
    ],
    ids=named,
)
def test_the_configuration_is_the_model_s(tmp_path, sizes):
    from transformers import AutoConfig

    model = made(**SMALL | sizes)
    path = write_gemma3n(tmp_path / "tiny.gguf", model, lambda name: None)
    theirs, ours = model.config.to_dict(), AutoConfig.for_model(**described(path)).to_dict()
    for key in theirs.keys() - {"architectures", "dtype"}:
        assert ours[key] == (pytest.approx(theirs[key]) if key == "rms_norm_eps" else theirs[key]), key


def test_what_llama_cpp_takes_for_granted(tmp_path):
    left_out = ("attention__sliding_window_pattern", "final_logit_softcapping", "rope__freq_base_swa")
    found = described(write_small(tmp_path, sizes={"num_kv_shared_layers": 0}, **dict.fromkeys(left_out)))
    assert found["layer_types"] == ["sliding_attention"] * 4 + ["full_attention"]
    assert found["final_logit_softcapping"] == 30.0
    assert found["rope_parameters"]["sliding_attention"]["rope_theta"] == 10000.0


@pytest.mark.parametrize(
    "said",
    [
        *({key: None} for key in ("altup__num_inputs", "altup__active_idx", "activation_sparsity_scale")),
        *({key: None} for key in ("embedding_length_per_layer_input", "attention__shared_kv_layers")),
        *({key: None} for key in ("attention__sliding_window", "rope__freq_base")),
        {"altup__num_inputs": 3},
        {"altup__num_inputs": 1},
        {"altup__active_idx": 4},
        {"attention__shared_kv_layers": 5},
        {"attention__shared_kv_layers": 3},  # no layer before them sees all keys
        {"attention__sliding_window_pattern": [True, True, False]},
        {"activation_sparsity_scale": [1.6448536] * 4},
        {"activation_sparsity_scale": [float("nan")] * 5},
        {"activation_sparsity_scale": [float("inf")] * 5},
        {"activation_sparsity_scale": [9.0] * 5},  # all of it
        {"feed_forward_length": [32, 32]},
        {"feed_forward_length": [32, 32, 0, 32, 32]},
        {"embedding_length_per_layer_input": 16},
        {"rope__dimension_count": 8},
        {"rope__scaling__factor": 4.0},
        {"unheard_of": 3},
        {"leave_out": ("altup_proj.weight",)},
        {"leave_out": ("per_layer_token_embd.weight",)},
    ],
    ids=named,
)
def test_what_is_not_known_is_refused(tmp_path, said):
    path = write_small(tmp_path, **said)
    assert described(path) is None
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(UnsupportedModelError, match="not known"):
            load(path, dtype=dtype)


@pytest.mark.parametrize(
    "left",
    [
        *("blk.0.attn_k.weight", "blk.3.altup_correct_scale.weight", "blk.1.laurel_r.weight", "blk.1.inp_gate.weight"),
        *("per_layer_proj_norm.weight", "blk.4.ffn_down.weight", "blk.2.altup_router.weight"),
    ],
)
def test_a_weight_that_is_missing(tmp_path, left):
    path = write_small(tmp_path, leave_out=(left,))
    with pytest.raises(ModelLoadError, match="not known"):
        load(path)


def test_the_comparison_has_a_layer_of_each_kind(tmp_path):
    kinds = ["sliding_attention", "full_attention"] * 4
    sizes = {"layer_types": kinds, "num_hidden_layers": 8, "num_kv_shared_layers": 4}
    shares = {"activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0] + [0.0] * 4}
    path = write_small(tmp_path, sizes=sizes | shares)
    config = described(path)
    small, weights = comparison._small(config, weights_of(MappedTensors([read_header(path)]), config, torch.bfloat16))
    assert small["num_hidden_layers"] == 6 and small["num_kv_shared_layers"] == 2
    found = sorted(zip(small["layer_types"], small["activation_sparsity_pattern"], strict=True))
    assert found == sorted([(kind, share) for kind in kinds[:2] for share in (0.95, 0.0, 0.0)])
    assert weights["model.altup_projections.2.weight"].shape == (64, 64)  # no table, which would be cut


@needs_kernels
def test_streams_of_other_matrices_are_noticed(tmp_path, monkeypatch):
    """The comparison has transformers' forward with the file's own."""
    path, _ = write(tmp_path, scale=1.0)
    expected = comparison.transformers_model

    def other(*arguments, **options):
        model = expected(*arguments, **options)
        part = model.model.altup_projections[0]
        part.weight.data = part.weight.data.roll(32, dims=0)
        return model

    monkeypatch.setattr(comparison, "transformers_model", other)
    with pytest.raises(UnsupportedModelError, match="differs from transformers"):
        load(path)


def test_the_names_are_those_of_the_gguf_package():
    theirs = {gguf.TENSOR_NAMES[each] for each in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.GEMMA3N]}
    own = families.ARCHITECTURES["gemma3n"]
    assert {f"blk.{{bid}}.{name.removesuffix('.weight')}" for name in own.names} | set(own.outer) == theirs
