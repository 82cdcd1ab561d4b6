"""`rapid bench steps`: models of a shape with random weights, and what is modelled from their steps."""

import json

import pytest
import torch

from rapid_integrations.benchmarks import bandwidth, shapes
from rapid_integrations.benchmarks import steps as steps_module
from rapid_integrations.benchmarks.round_costs import expected_tokens
from rapid_integrations.benchmarks.shapes import (
    SHAPES,
    load_shape,
    random_cache,
    random_model,
)
from rapid_integrations.benchmarks.steps import Step, StepsResult
from rapid_integrations.cache import Rows
from rapid_integrations.errors import ConfigurationError
from tests.unit.benchmarks.conftest import summary

CPU = torch.device("cpu")
TINY = {
    "model_type": "qwen2",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY))
    return str(path)


@pytest.fixture
def steps(bench):
    def run(*arguments):
        from rapid_integrations.cli.app import app
        from tests.toys.command_line import CliRunner

        return CliRunner().invoke(app, ["bench", "steps", *arguments], env={"COLUMNS": "100"})

    return run


@pytest.fixture(autouse=True)
def little_to_copy(monkeypatch):
    monkeypatch.setattr("rapid_integrations.benchmarks.steps.copy_bandwidth", lambda device: 1e10)


def test_the_command(steps, tiny, tmp_path):
    picture = tmp_path / "plot.png"
    found = steps(
        *("--shape", tiny, "--contexts", "100,600", "--retrieval", "50", "--draft-lengths", "2,4"),
        *("--plot", str(picture)),
    )
    figures = summary(found)
    assert figures["modelled"] is True and "Modelled" in found.stdout
    assert figures["dtype"] == "bfloat16" and figures["layers"] == figures["layers_built"] == 4
    assert [(s["step"], s["context"], s["new_tokens"]) for s in figures["steps"]] == [
        *(("verify", context, new) for context in (100, 600) for new in (1, 3, 5)),
        ("draft", 50, 1),
        ("score", 50, 2),
        ("score", 50, 4),
    ]
    assert all(step["ms"] > 0 and step["gb_per_s"] > 0 for step in figures["steps"])
    assert {row["acceptance"] for row in figures["modelled_tps"]} == {None, 0.8, 0.9}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_drafter_of_another_shape_and_fewer_layers(steps, tiny, tmp_path):
    small = tmp_path / "small.json"
    small.write_text(json.dumps(TINY | {"num_hidden_layers": 1}))
    figures = summary(
        steps("--shape", tiny, "--drafter-shape", str(small), "--layers", "2", "--contexts", "64", "--json")
    )
    assert (figures["layers"], figures["layers_built"]) == (4, 2)
    assert figures["drafter_shape"] == str(small)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shape", "llama-4"), "no shape is called 'llama-4'; there are: llama-3.1-8b"),
        (("--shape", "missing.json"), "missing.json cannot be read"),
        (("--shape", "model/tokenizer_config.json"), "is not a model's configuration: it lacks model_type"),
        (("--shape", "qwen2.5-0.5b", "--contexts", "1k"), "--contexts='1k': give one or more numbers"),
        (("--shape", "qwen2.5-0.5b", "--dtype", "int8"), "dtype='int8'"),
        (("--shape", "qwen2.5-0.5b", "--device", "gpu"), "device='gpu' is unknown"),
    ],
)
def test_errors_are_taught(steps, arguments, said):
    result = steps(*arguments)
    assert result.exit_code == 1 and said in " ".join(result.stderr.split()), result.stderr


def test_what_does_not_fit_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr(shapes, "available_memory", lambda device: 40 * 2**30)
    with pytest.raises(ConfigurationError, match=r"80 layers of llama-3.1-70b need 131\.\d GiB.*give --layers 20 or"):
        random_model("llama-3.1-70b", load_shape("llama-3.1-70b"), torch.bfloat16, CPU, 80)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
    ],
)
def test_the_shapes_have_as_many_parameters_as_published(name, parameters):
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = dict(SHAPES[name])
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    with torch.device("meta"):
        assert AutoModelForCausalLM.from_config(config).num_parameters() == parameters


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_random_model_is_whole(quantization):
    lm = random_model("tiny", TINY, torch.bfloat16, CPU, 3, quantization)
    assert lm.dtype == torch.bfloat16
    assert all(p.dtype == torch.bfloat16 and p.isfinite().all() for p in lm.model.parameters())
    frequencies = lm.model.model.rotary_emb.inv_freq
    assert frequencies.dtype == torch.float32 and frequencies[0] == 1 and (frequencies.diff() < 0).all()
    cache = random_cache(lm, 70, 5)
    assert cache.length == 70 and cache.layers == 3
    assert lm.forward([Rows(torch.arange(5), cache, 5)])[0].isfinite().all()
    lm.close()


def test_what_is_modelled():
    result = StepsResult("s", "s", "bfloat16", "bfloat16", 4, 4, 10, [1, 4], 1e9, {})
    seconds = {("verify", 100, 1): 1.0, ("verify", 100, 2): 1.1, ("verify", 100, 5): 1.4}
    seconds |= {("draft", 10, 1): 0.1, ("score", 10, 1): 0.1, ("score", 10, 4): 0.2}
    result.steps = [Step(*key, value, 1) for key, value in seconds.items()]
    rows = {(row.method, row.acceptance): row for row in result.modelled()}
    assert rows["target", None].tps == 1
    drafted = expected_tokens(0.8, 4) / (1.4 + (4 + 0.8**4) * 0.1)
    assert rows["rapid", 0.8].tps == pytest.approx(drafted) and rows["rapid", 0.8].draft_length == 4
    assert rows["target_lookup", 0.8].tps == pytest.approx(expected_tokens(0.8, 4) / 1.4)
    assert rows["rapid_lookup", 0.9].tps == pytest.approx(expected_tokens(0.9, 4) / 1.6)


def test_target_and_drafter_are_quantised_apart(monkeypatch):
    """A bfloat16 target with an int4 drafter is the main configuration on a GPU."""
    made = []
    monkeypatch.setattr(steps_module, "copy_bandwidth", lambda device: 1e9)
    monkeypatch.setattr(
        steps_module,
        "_of_all_layers",
        lambda name, shape, built, wanted, dtype, device, form, progress: (
            made.append((name, form, {kind for kind, _, _ in wanted})) or []
        ),
    )
    options = {"contexts": [8], "retrieval": 4, "draft_lengths": [1], "dtype": torch.bfloat16}
    options |= {"device": torch.device("cpu"), "on_progress": lambda *_: None}
    for own, drafters in ((None, "int4"), ("int8", None)):
        result = steps_module.measure_steps("llama-3.1-8b", quantization=own, drafter_quantization=drafters, **options)
        assert (result.dtype, result.drafter_dtype) == (own or "bfloat16", drafters or own)
    assert made == [
        ("llama-3.1-8b", None, {"verify"}),
        ("llama-3.1-8b", "int4", {"draft", "score"}),
        ("llama-3.1-8b", "int8", {"verify", "draft", "score"}),
    ]


def test_what_is_copied_are_no_zeros(monkeypatch):
    """A GPU may compress zeros."""
    copied = []
    monkeypatch.setattr(bandwidth, "median_seconds", lambda step, device: copied.append(step()) or 1.0)
    assert bandwidth.copy_bandwidth(CPU) == 2.0 * 2**28
    assert copied[0][:4096].unique().numel() == 256
