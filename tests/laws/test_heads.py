"""Engines with a trained head answer as their target does, and samples do not depend on what was cached."""

from itertools import zip_longest

import pytest
import torch

from rapid_integrations import RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.errors import ConfigurationError, ModelLoadError
from tests.toys.engines import PROMPT, SHORT, engine
from tests.toys.heads import eagle1, eagle3, write
from tests.toys.models import VOCAB_SIZE, byte_tokenizer, tiny_model

HIDDEN, TWO_LAYERS = 32, {"num_hidden_layers": 2}


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Folders of heads for the tiny model."""
    folder = tmp_path_factory.mktemp("heads")
    levels = {"eagle_aux_hidden_state_layer_ids": [0, 1, 1]}
    return {
        "eagle": write(folder / "eagle", *eagle1(HIDDEN, VOCAB_SIZE)),
        "eagle3": write(folder / "eagle3", *eagle3(HIDDEN, VOCAB_SIZE, 130, **levels)),
    }


@pytest.mark.once
@pytest.mark.parametrize("law", ["target", "augmented"])
@pytest.mark.parametrize("kind", ["eagle", "eagle3"])
def test_greedy_answers_are_the_target_s(heads, kind, law):
    with engine(TWO_LAYERS, draft_head=heads[kind]) as rapid:
        expected = rapid.generate(PROMPT, speculation=SpeculationConfig(law=law, proposer="none"))
        for proposer in ("draft_head", "draft_head_tree", "hybrid", "tree_hybrid", "adaptive"):
            speculation = SpeculationConfig(law=law, proposer=proposer, draft_length=3)
            answer = rapid.generate(PROMPT, speculation=speculation)
            assert answer.token_ids == expected.token_ids
            assert answer.stats.drafted_tokens > 0 and answer.stats.draft_head == str(heads[kind])


def test_the_head_gives_right_tokens_if_it_is_the_model_itself(tmp_path):
    """A head that passes the last state on, behind which the target's head guesses the same token again."""
    tensors, config = eagle1(HIDDEN, VOCAB_SIZE, bias=False)
    tensors = {name: torch.zeros_like(each) for name, each in tensors.items()}
    tensors["fc.weight"][:, HIDDEN:] = torch.eye(HIDDEN)
    tensors["layers.0.post_attention_layernorm.weight"] += 1
    model = tiny_model("llama", 0)
    with torch.no_grad():  # every state is the same, and the likeliest token 65
        model.model.embed_tokens.weight[:] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight[65] = 9 * model.model.norm.weight
    head = write(tmp_path / "head", tensors, config)
    speculation = SpeculationConfig(law="target", proposer="draft_head", draft_length=3)
    with RapidEngine.from_models(model, byte_tokenizer(), draft_head=head, sampling=SHORT) as rapid:
        answer = rapid.generate("words", speculation=speculation)
    assert set(answer.token_ids) == {65}
    assert answer.stats.accepted_tokens == answer.stats.drafted_tokens > 0


@pytest.mark.parametrize("proposer", ["draft_head", "draft_head_tree", "hybrid"])
def test_a_seeded_sample_does_not_depend_on_caches(heads, proposer):
    sampling = SamplingParams(max_new_tokens=12, temperature=1.0, seed=3)
    speculation = SpeculationConfig(proposer=proposer)
    with engine(TWO_LAYERS, draft_head=heads["eagle3"], sampling=sampling, speculation=speculation) as rapid:
        first, second = (rapid.generate(PROMPT) for _ in range(2))
    assert second.stats.cached_prompt_tokens > 0
    assert first.token_ids == second.token_ids


def test_two_requests_at_once(heads):
    with engine(TWO_LAYERS, draft_head=heads["eagle3"]) as rapid:
        speculation = SpeculationConfig(proposer="draft_head_tree", draft_length=3)
        alone = [rapid.generate(each, speculation=speculation).token_ids for each in ("one word", "other words")]
        streams = [rapid.stream(each, speculation=speculation) for each in ("one word", "other words")]
        answers: list[list[int]] = [[], []]
        for chunks in zip_longest(*streams):
            for answer, chunk in zip(answers, chunks, strict=True):
                answer += chunk.token_ids if chunk is not None else ()
    assert answers == [list(each) for each in alone]


def test_what_is_wrong_is_said(heads, tmp_path):
    with engine() as rapid, pytest.raises(ConfigurationError, match="needs a trained head"):
        rapid.generate(PROMPT, speculation=SpeculationConfig(proposer="draft_head"))
    with pytest.raises(ModelLoadError, match="is no folder"):
        engine(TWO_LAYERS, draft_head=tmp_path / "nowhere")
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelLoadError, match="never opened"):
        engine(TWO_LAYERS, draft_head=tmp_path / "pickled")
    with pytest.raises(ConfigurationError, match="takes a folder or a name"):
        engine(TWO_LAYERS, draft_head=3)
