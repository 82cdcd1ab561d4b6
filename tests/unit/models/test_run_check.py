"""`rapid models check`: how a model would run, from its configuration alone."""

import json

import pytest
from transformers import CONFIG_MAPPING

from rapid_integrations.cli.app import app
from tests.toys.command_line import CliRunner
from tests.toys.every_family import EXPERTS_BESIDE


def checked(folder, family, **settings):
    CONFIG_MAPPING[family](**settings).save_pretrained(folder)
    result = CliRunner().invoke(app, ["models", "check", str(folder), "--json"])
    return json.loads(result.stdout), result.exit_code


@pytest.mark.in_a_hurry(6)
@pytest.mark.parametrize(
    ("family", "settings", "how", "reason"),
    [
        ("gemma3_text", {}, "kernels", ""),
        ("gemma3_text", {"head_dim": 72}, "operators", "its heads have 72 numbers; the kernels serve 32, 64"),
        ("gemma4_text", EXPERTS_BESIDE | {"moe_intermediate_size": 64}, "kernels", ""),
        ("gemma4_text", {"use_bidirectional_attention": "all"}, "transformers", "looks in both directions"),
        ("olmo", {"clip_qkv": 8.0}, "transformers", "are clipped (clip_qkv)"),
        ("gpt2", {}, "kernels", ""),
        ("gpt2", {"add_cross_attention": True}, "transformers", "an encoder's states"),
        ("gptj", {}, "transformers", "GPTJForCausalLM has no description"),
        ("opt", {"do_layer_norm_before": False}, "transformers", "do_layer_norm_before"),
        ("opt", {"word_embed_proj_dim": 512}, "transformers", "word_embed_proj_dim"),
        ("zamba2", {"hidden_size": 4608, "n_mamba_heads": 72}, "operators", "its heads have 288 numbers"),
        ("mamba", {}, "kernels", ""),
        ("mamba", {"hidden_size": 1000}, "operators", "a matrix has 1000 columns"),
        ("mamba", {"hidden_act": "gelu"}, "transformers", "the activation gelu"),
        ("recurrent_gemma", {}, "kernels", ""),
        ("mamba2", {}, "kernels", ""),
        ("rwkv", {}, "refused", "layers of kind recurrent state"),
        ("t5", {}, "refused", "encoder-decoder model"),
    ],
)
def test_how_a_model_would_run(tmp_path, family, settings, how, reason):
    found, code = checked(tmp_path, family, **settings)
    assert found["how"] == how and reason in found["reason"]
    assert bool(found["reason"]) == (how != "kernels") and code == (how == "refused")


def test_the_answer_in_words(tmp_path):
    CONFIG_MAPPING["qwen3"]().save_pretrained(tmp_path)
    result = CliRunner().invoke(app, ["models", "check", str(tmp_path)])
    assert result.exit_code == 0 and result.stdout == "kernels: Qwen3ForCausalLM\n"
    result = CliRunner().invoke(app, ["models", "check", str(tmp_path / "nothing")])
    assert result.exit_code == 1 and "nothing" in result.stderr


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num_hidden_layers": -2}, "num_hidden_layers = -2"),
        ({"num_hidden_layers": 10_000_000}, "num_hidden_layers = 10000000"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0"),
        ({"vocab_size": 10**12}, "vocab_size = 1000000000000"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps = nan"),
        ({"rope_scaling": {"type": "nonsense"}}, "could not be loaded"),
    ],
)
def test_what_a_load_would_refuse_is_refused(tmp_path, wrong, said):
    CONFIG_MAPPING["llama"]().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    result = CliRunner().invoke(app, ["models", "check", str(tmp_path)])
    assert result.exit_code == 1 and f"error: ModelLoadError: {tmp_path}" in result.stderr and said in result.stderr
