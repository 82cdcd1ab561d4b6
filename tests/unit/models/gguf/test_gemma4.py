"""GGUF files of Gemma 4: their blocks are kept, and the answers are the file's."""

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from rapid_integrations.cache import Rows
from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import loader
from rapid_integrations.models.gguf import comparison, experts_config, families, stored
from rapid_integrations.models.gguf.description import configuration_of, weights_of
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.gguf.tensors import MappedTensors
from tests.toys.every_family import decoded, generated
from tests.toys.gguf_experts import ROUNDED, errors, logits
from tests.toys.gguf_file import named
from tests.toys.gguf_gemma4 import MODELS, WIDE, made, mixed, needs_names, write_gemma4

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("home"), needs_names]
needs_kernels = pytest.mark.skipif(native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
SMALL = {"intermediate_size": 32, "hidden_size": 64, "head_dim": 16, "global_head_dim": 32, "moe_intermediate_size": 32}
OTHER_VALUES = {"attention_k_eq_v": False, "num_global_key_value_heads": None}


def write(folder, name, formats=mixed, *, scale=0.3, sizes=None, **options):
    """Write a file; return its path and a float32 model with the weights that the file stands for."""
    model = made(name, scale=scale, **(sizes or {}))
    (folder / "files").mkdir(exist_ok=True)
    return write_gemma4(folder / "files" / "tiny.gguf", model, formats, **options), model


def write_small(folder, name, *, sizes=None, **options):
    """Write a file whose numbers do not matter."""
    return write(folder, name, lambda name: None, sizes=SMALL | (sizes or {}), **options)[0]


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
        assert torch.equal(ours[name].float(), weight), name


def in_q8_0(name):
    return None if mixed(name) is None else Kind.Q8_0


def all_in_blocks(name):
    """Also what llama.cpp keeps as it is."""
    return Kind.Q8_0


def experts_in_mxfp4(name):
    return Kind.MXFP4 if "exps" in name else mixed(name)


@pytest.mark.in_turn(2)
@needs_kernels
@pytest.mark.parametrize("name", MODELS)
def test_a_model_in_its_blocks(tmp_path, name, home):
    """The text is four times as long as the windows."""
    path, model = write(tmp_path, name)
    loaded = in_blocks(path)
    assert not (home / "dequantised").exists()
    assert_weights(loaded, model)
    assert errors(loaded, model).median() < ROUNDED
    assert loaded.lm.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert loaded.lm.reads_trees and not loaded.lm.has_parts


@needs_kernels
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("shared", {"unread": True, "sizes": WIDE}),
        ("shared", {"sizes": {"hidden_size_per_layer_input": 256}}),
        ("shared", {"formats": all_in_blocks}),
        ("shared", {"sizes": {"tie_word_embeddings": False, "final_logit_softcapping": None}}),
        ("shared", {"sizes": {"num_kv_shared_layers": 0}}),
        ("large", {"formats": in_q8_0}),
        ("large", {"sizes": OTHER_VALUES}),
        ("large", {"sizes": {"hidden_size_per_layer_input": 32, "attention_k_eq_v": False}}),
        ("experts", {"formats": experts_in_mxfp4}),
        ("experts", {"formats": all_in_blocks, "sizes": OTHER_VALUES}),
    ],
    ids=named,
)
def test_forms_of_files(tmp_path, name, options):
    path, model = write(tmp_path, name, **options)
    loaded = in_blocks(path)
    if options.get("formats") is not all_in_blocks:
        assert_weights(loaded, model)  # what the kernels have in bfloat16 is rounded once more otherwise
    assert errors(loaded, model).median() < ROUNDED


@needs_kernels
@pytest.mark.parametrize("form", ["Q4_0", "F16", "BF16"])
def test_a_file_of_one_format(tmp_path, form):
    path, model = write(tmp_path, "shared", lambda name: Kind[form])
    assert errors(in_blocks(path), model).median() < ROUNDED


@pytest.mark.parametrize("name", MODELS)
def test_float32_has_the_logits_and_answers_of_the_dequantised_weights(tmp_path, name):
    path, model = write(tmp_path, name, scale=1.0, unread=True)
    loaded = load(path, dtype="float32")
    assert errors(loaded, model).max() < 1e-4
    assert decoded(loaded.lm) == generated(model)
    torch.testing.assert_close(logits(load(path, dtype="float32")), logits(loaded))  # the copy that was kept


@needs_kernels
@pytest.mark.parametrize("name", ["shared", "experts"])
def test_a_draft_has_the_bits_of_single_steps(tmp_path, name):
    loaded = load(write(tmp_path, name)[0])
    assert torch.equal(logits(loaded, (60, 20)), logits(loaded, (60, *[1] * 20)))


@needs_kernels
def test_keys_in_eight_bits(tmp_path):
    """The model reads a text of its own to learn how large they are, with rows of its second table."""
    path, model = write(tmp_path, "shared")
    loaded = load(path)
    loaded.lm.store_in_eight_bits()
    assert errors(loaded, model).median() < 2 * ROUNDED


@needs_kernels
@pytest.mark.parametrize("name", ["shared", "experts"])
def test_steps_on_operators_use_the_same_blocks(tmp_path, name, monkeypatch):
    path, model = write(tmp_path, name)
    loaded = load(path)
    monkeypatch.setattr(loaded.lm._fused, "_native", None)
    assert errors(loaded, model).median() < ROUNDED


@needs_kernels
@pytest.mark.parametrize("name", ["shared", "experts"])
def test_later_starts_need_no_comparison(tmp_path, name, monkeypatch):
    path, _ = write(tmp_path, name)
    first = load(path)
    before = first.lm.fingerprint()
    monkeypatch.setattr(stored, "_converted", None)
    monkeypatch.setattr(stored, "compare", None)
    monkeypatch.setattr(stored, "model_of", None)  # nor transformers' class
    second = load(path)
    assert torch.equal(logits(first), logits(second))
    assert first.lm.fingerprint() == second.lm.fingerprint() == before  # whatever rows of the second table are there


@needs_kernels
def test_another_second_table_is_another_model(tmp_path):
    own, found = made("shared"), []
    for _ in range(2):
        path = write_gemma4(tmp_path / "tiny.gguf", own)
        found.append(load(path).lm.fingerprint())
        own.model.embed_tokens_per_layer.weight.data[7] *= 2
    assert found[0] != found[1]


@needs_kernels
def test_only_rows_that_are_read_are_computed(tmp_path):
    loaded = load(write(tmp_path, "shared")[0])
    rows = loaded.lm._inputs.rows
    assert rows.weight.any(dim=1).sum() <= 8  # the start reads a few tokens
    loaded.lm.forward([Rows(torch.arange(100, 120), loaded.lm.new_cache(20), 1)])
    assert rows.weight[100:120].any(dim=1).all() and rows.weight.any(dim=1).sum() <= 28


# --- what files say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sizes"), [("shared", WIDE), ("shared", {}), ("large", {}), ("experts", {})])
def test_the_configuration_is_the_model_s(tmp_path, name, sizes):
    from transformers import AutoConfig

    model = made(name, **SMALL | sizes)
    path = write_gemma4(tmp_path / "tiny.gguf", model, lambda name: None)
    theirs, ours = model.config.to_dict(), AutoConfig.for_model(**described(path)).to_dict()
    for key in theirs.keys() - {"architectures", "dtype", "num_experts", "top_k_experts", "moe_intermediate_size"}:
        assert ours[key] == (pytest.approx(theirs[key]) if key == "rms_norm_eps" else theirs[key]), key
    if name == "experts":
        assert all(ours[key] == theirs[key] for key in ("num_experts", "top_k_experts", "moe_intermediate_size"))


@pytest.mark.parametrize("part", [0.5, 1.0])
def test_how_much_of_a_head_is_rotated(tmp_path, part):
    local = {"rope_type": "default", "rope_theta": 1e4}
    whole = {"rope_type": "proportional", "rope_theta": 5e5, "partial_rotary_factor": part}
    sizes = {"rope_parameters": {"sliding_attention": local, "full_attention": whole}}
    path, model = write(tmp_path, "shared", sizes=sizes)
    assert described(path)["rope_parameters"] == model.config.rope_parameters
    assert errors(load(path, dtype="float32"), model).max() < 1e-4


@pytest.mark.parametrize(
    "factors",
    [[1.0] * 2, [1.0] * 8 + [2.0] * 8, [1.0] * 4 + [1e30] * 8 + [1.0] * 4, [0.5] + [1.0] * 3 + [1e30] * 12],
    ids=named,
)
def test_other_divisors_of_angles_have_no_configuration(tmp_path, factors, monkeypatch):
    from tests.toys import gguf_gemma4

    monkeypatch.setattr(gguf_gemma4, "divisors", lambda config: np.array(factors, dtype=np.float32))
    assert described(write_small(tmp_path, "shared")) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        *(("shared", {key: None}) for key in ("attention__key_length_swa", "rope__freq_base_swa", "rope__freq_base")),
        *(("shared", {key: None}) for key in ("embedding_length_per_layer_input", "attention__sliding_window")),
        ("shared", {"attention__sliding_window_pattern": None}),
        ("shared", {"attention__sliding_window_pattern": 3}),
        ("shared", {"attention__sliding_window_pattern": [True, True, False, False, True]}),
        ("shared", {"attention__sliding_window_pattern": [False] * 5}),
        ("shared", {"attention__shared_kv_layers": 5}),
        ("shared", {"attention__shared_kv_layers": 3}),  # no layer before them sees all keys
        ("shared", {"attention__value_length_swa": 8}),
        ("shared", {"rope__dimension_count_swa": 8}),
        ("shared", {"rope__dimension_count": 8}),
        ("shared", {"rope__scaling__factor": 4.0}),
        ("shared", {"rope__scaling__type": "linear"}),
        ("shared", {"feed_forward_length": [32, 64, 32, 32, 32]}),
        ("shared", {"feed_forward_length": [32, 32, 32, 96, 96]}),
        ("shared", {"feed_forward_length": [32, 32]}),
        ("shared", {"embedding_length_per_layer_input": 16}),
        ("shared", {"attention__head_count_kv": [2, 2, 1, 2, 1]}),  # but values of their own
        ("large", {"attention__head_count_kv": [2, 1, 1]}),
        ("large", {"attention__head_count_kv": [2, 2]}),
        ("large", {"attention__head_count_kv": [2, 2, 0]}),
        ("large", {"unheard_of": 3}),
        ("large", {"leave_out": ("rope_freqs.weight",)}),
        ("shared", {"leave_out": ("per_layer_token_embd.weight",)}),
        ("experts", {"expert_feed_forward_length": None}),
    ],
    ids=named,
)
def test_what_is_not_known_is_refused(tmp_path, name, said):
    path = write_small(tmp_path, name, **said)
    assert described(path) is None
    for dtype in ("bfloat16", "float32"):
        with pytest.raises(UnsupportedModelError, match="not known"):
            load(path, dtype=dtype)


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("shared", "blk.0.attn_k.weight"),
        ("shared", "blk.3.layer_output_scale.weight"),
        ("shared", "per_layer_proj_norm.weight"),
        ("shared", "blk.1.inp_gate.weight"),
        ("large", "blk.0.attn_v.weight"),  # of a layer with a window, which llama.cpp would take for its keys
        ("experts", "blk.0.ffn_down_exps.scale"),
        ("experts", "blk.0.ffn_gate_inp.scale"),
        ("experts", "blk.1.ffn_gate_inp.weight"),
    ],
)
def test_a_weight_that_is_missing(tmp_path, name, left):
    path = write_small(tmp_path, name, leave_out=(left,))
    with pytest.raises(ModelLoadError, match="not known"):
        load(path)


HEADS_OF_8 = {f"{key}_swa": 8 for key in ("attention__key_length", "attention__value_length", "rope__dimension_count")}


@pytest.mark.parametrize("said", [{"feed_forward_length": 64}, HEADS_OF_8], ids=named)
def test_a_shape_that_the_metadata_does_not_say(tmp_path, said):
    path = write_small(tmp_path, "shared", **said)
    with pytest.raises(ModelLoadError, match="shape|not known"):
        load(path)


def test_the_comparison_has_a_layer_of_each_kind(tmp_path):
    """The last of them sees all keys, as transformers takes for granted."""
    kinds = ["sliding_attention", "full_attention"] * 2 + ["sliding_attention", "full_attention"] * 2
    sizes = {"layer_types": kinds, "num_hidden_layers": 8, "num_kv_shared_layers": 4}
    path = write_small(tmp_path, "shared", sizes=sizes)
    config = described(path)
    small, weights = comparison._small(config, weights_of(MappedTensors([read_header(path)]), config, torch.bfloat16))
    assert small["layer_types"] == kinds[:4] and small["num_kv_shared_layers"] == 2
    width = config["hidden_size_per_layer_input"]
    assert weights["model.embed_tokens_per_layer.weight"].shape == (config["vocab_size"], 4 * width)
    assert weights["model.per_layer_model_projection.weight"].shape == (4 * width, config["hidden_size"])


@needs_kernels
def test_inputs_of_another_layer_are_noticed(tmp_path, monkeypatch):
    path, _ = write(tmp_path, "shared", scale=1.0)
    taken = comparison._of_layers

    def moved(weight, layers, config, tokens):
        found = taken(weight, layers, config, tokens)
        return found.roll(32, dims=0) if tokens is None else found

    expected = comparison.transformers_model

    def other(*arguments, **options):
        with monkeypatch.context() as patched:
            patched.setattr(comparison, "_of_layers", taken)
            model = expected(*arguments, **options)
        projection = model.model.per_layer_model_projection
        projection.weight.data = projection.weight.data.roll(-32, dims=0)
        return model

    monkeypatch.setattr(comparison, "_of_layers", moved)
    monkeypatch.setattr(comparison, "transformers_model", other)
    with pytest.raises(UnsupportedModelError, match="differs from transformers"):
        load(path)


class Pieces:
    """Tokens as Gemma 4's files have them: pieces with a low line for a space, and a token for every byte."""

    chat_template, added_tokens_decoder = None, {}
    tokens = (
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<turn|>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *"▁abt\n",
        "at",
        "▁at",
    )

    def get_vocab(self):
        return {token: index for index, token in enumerate(self.tokens)}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_texts_are_split_as_the_model_was_trained(tmp_path, dtype):
    kinds = [gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * 7
    sizes = dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), len(Pieces.tokens))
    said = {"model": "gemma4", "merges": ["a t", "▁ at"], "token_type": kinds, "bos_token_id": 2, "eos_token_id": 1}
    more = {"unknown_token_id": 3, "padding_token_id": 0, "add_bos_token": True}
    metadata = {f"tokenizer__ggml__{key}": value for key, value in (said | more).items()}
    path = write_small(tmp_path, "shared", sizes=sizes, tokenizer=Pieces(), **metadata)
    vocabulary = load(path, dtype=dtype).vocabulary
    backend = vocabulary.tokenizer.backend_tokenizer
    found = backend.encode("<bos>at bat\n\né<turn|>", add_special_tokens=False)
    assert found.tokens == ["<bos>", "at", "▁", "b", "at", "\n", "\n", "<0xC3>", "<0xA9>", "<turn|>"]
    assert backend.decode(found.ids) == "at bat\n\né"
    assert {1, 4} <= vocabulary.eos_token_ids


def test_the_names_are_those_of_the_gguf_package():
    theirs = {gguf.TENSOR_NAMES[each] for each in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.GEMMA4]}
    for architecture in (families.ARCHITECTURES["gemma4"], experts_config.ARCHITECTURES["gemma4"]):
        parts = {name.removesuffix(".weight").removesuffix(".scale") for name in architecture.names}
        assert {f"blk.{{bid}}.{part}" for part in parts} <= theirs
        assert set(architecture.outer) <= theirs
