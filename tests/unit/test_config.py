import json

import pytest

from rapid_integrations import CompressionConfig, ConfigurationError, SamplingParams, SpeculationConfig


@pytest.mark.parametrize(
    ("settings", "values", "said"),
    [
        (SamplingParams, {"temprature": 1.0}, "no option 'temprature': did you mean 'temperature'"),
        (SamplingParams, {"temperature": -1}, "temperature=-1"),
        (SamplingParams, {"temperature": float("nan")}, "temperature=nan"),
        (SamplingParams, {"top_p": 0.0}, "top_p=0.0"),
        (SamplingParams, {"top_p": 1.5}, "top_p=1.5"),
        (SamplingParams, {"min_p": 1.0}, "min_p=1.0"),
        (SamplingParams, {"top_k": -3}, "top_k=-3"),
        (SamplingParams, {"repetition_penalty": 0}, "repetition_penalty=0"),
        (SamplingParams, {"frequency_penalty": 2.1}, "frequency_penalty=2.1"),
        (SamplingParams, {"presence_penalty": -3}, "presence_penalty=-3"),
        (SamplingParams, {"presence_penalty": float("nan")}, "presence_penalty=nan"),
        (SamplingParams, {"logit_bias": {-1: 2}}, "logit_bias"),
        (SamplingParams, {"logit_bias": {1: 101}}, "logit_bias"),
        (SamplingParams, {"n": 2}, "no option 'n': an engine gives one answer to a request"),
        (SamplingParams, {"logprobs": True}, "no option 'logprobs': an answer's tokens are explained by"),
        (SamplingParams, {"max_new_tokens": 0}, "max_new_tokens=0"),
        (SamplingParams, {"min_new_tokens": -1}, "min_new_tokens=-1"),
        (SamplingParams, {"max_new_tokens": 8, "min_new_tokens": 9}, "min_new_tokens=9 is above max_new_tokens=8"),
        (SamplingParams, {"min_new_tokens": 1, "structured": {"regex": "a+"}}, "the form says where the answer ends"),
        (SamplingParams, {"ignore_eos": True}, "no option 'ignore_eos': min_new_tokens=max_new_tokens"),
        (SamplingParams, {"stop": [""]}, "must not be empty"),
        (SamplingParams, {"seed": -1}, "seed=-1"),
        (SpeculationConfig, {"law": "exact"}, "law='exact'"),
        (SpeculationConfig, {"eta": -0.1}, "eta=-0.1"),
        (SpeculationConfig, {"eta": 1001}, "eta=1001"),
        (SpeculationConfig, {"eta": "adaptive"}, "eta='adaptive'"),
        (SpeculationConfig, {"eta": "adaptive"}, "'auto'"),
        (SpeculationConfig, {"eta": float("nan")}, "eta=nan"),
        (SpeculationConfig, {"tail_rule": "clip"}, "tail_rule='clip'"),
        (SpeculationConfig, {"tail_alpha": 2}, "tail_alpha=2"),
        (SpeculationConfig, {"draft_length": 0}, "draft_length"),
        (SpeculationConfig, {"max_draft_length": 65}, "max_draft_length=65"),
        (CompressionConfig, {"chunk_tokens": 1}, "chunk_tokens=1"),
        (CompressionConfig, {"threshold": 2}, "threshold=2"),
        (CompressionConfig, {"ratio": -1}, "ratio=-1"),
        (CompressionConfig, {"min_chunks": 0}, "min_chunks=0"),
    ],
)
def test_wrong_values_say_what_was_given(settings, values, said):
    with pytest.raises(ConfigurationError) as caught:
        settings(**values)
    assert said in str(caught.value)
    name = said.startswith("no option")
    assert caught.value.code == ("configuration.unknown_name" if name else "configuration.wrong_value")


def test_settings_are_frozen_and_round_trip_through_json():
    params = SamplingParams(temperature=0.5, stop="END", seed=3)
    assert params.stop == ("END",)
    with pytest.raises(ValueError):
        params.temperature = 1.0
    assert SamplingParams(**json.loads(params.model_dump_json())) == params
    for eta in (None, 2, 2.5, "auto"):
        speculation = SpeculationConfig(eta=eta)
        assert SpeculationConfig(**json.loads(speculation.model_dump_json())) == speculation
        assert speculation.eta == eta


@pytest.mark.parametrize(
    ("tokens", "quarter", "paper"),
    [(600, 150, 100), (16_384, 4096, 2730), (24_000, 4096, 4000), (98_304, 4096, 4096), (120_000, 5000, 5000)],
)
def test_budget(tokens, quarter, paper):
    # max(len / 24, min(4096, len / 4)), and a sixth in place of the quarter for the paper's settings
    assert CompressionConfig().budget(tokens) == quarter
    assert CompressionConfig(preset="paper").budget(tokens) == paper


def test_a_preset_gives_what_is_not_given():
    paper = CompressionConfig(preset="paper")
    assert (paper.chunk_tokens, paper.search, paper.neighbours) == (512, "vectors", 0.0)
    assert CompressionConfig(preset="paper", chunk_tokens=256).chunk_tokens == 256
    assert CompressionConfig(**paper.model_dump()) == paper
    with pytest.raises(ConfigurationError, match="preset"):
        CompressionConfig(preset="published")
