"""Every model family and every way of stretching rotary embeddings: greedy output is transformers' own `generate`.

Once with the model as it was passed in (transformers' layers on this package's cache and attention), once taken over
(where the family has a forward pass of our own, that one runs). Documents of 330 tokens lie beyond every window and
every original context length of the toys.
"""

import pytest
import torch

from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.models import loader
from rapid_integrations.models.fused_decoder import FAMILIES
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.budget import pairs
from tests.toys.embedder import HashEmbedder
from tests.toys.greedy_answers import COMPRESSION, DOCUMENTS, SHORT, ask, assert_same_answer, generated, text_of
from tests.toys.models import KINDS, ROPES, byte_tokenizer, tiny_model

SEED = 3
PROPOSERS = (
    ("drafter", 4),
    ("drafter", "auto"),
    ("prompt_lookup", 10),
    ("hybrid", 5),
    ("tree_hybrid", 5),
    ("none", "auto"),
)


FAMILIES_TESTED = (*KINDS, *ROPES)
ASKED = pairs(FAMILIES_TESTED, (False, True), (SHORT[3], *DOCUMENTS), PROPOSERS)


def engine_of(kind, take_over):
    target = loader.wrap(tiny_model(kind, SEED), byte_tokenizer(), take_over=take_over)
    return RapidEngine(target, embedder=HashEmbedder(threshold=-1.0), compression=COMPRESSION)


@pytest.mark.parametrize("take_over", [False, True], ids=["as it is", "taken over"])
@pytest.mark.parametrize("kind", FAMILIES_TESTED)
def test_greedy_output_is_what_transformers_generates(kind, take_over):
    with engine_of(kind, take_over) as running:
        ours = type(tiny_model(kind, SEED)).__name__ in FAMILIES
        assert (running.target._fused is not None) == (take_over and ours)
        for prompt, (proposer, length) in [each[2:] for each in ASKED if each[:2] == (kind, take_over)]:
            answer = ask(running, prompt, proposer, length)
            assert_same_answer(answer, *generated(kind, SEED, text_of(prompt)))
            if prompt in DOCUMENTS:
                assert answer.usage.prompt_tokens > 300 > answer.usage.drafter_prompt_tokens


@pytest.mark.parametrize("kind", ROPES)
def test_the_toys_rope_matters(kind):
    """A stretched model that answered as the plain one does would show nothing above."""
    family = kind.partition(",")[0]
    texts = [text_of(prompt) for prompt in (SHORT[3], *DOCUMENTS)]
    assert any(generated(kind, SEED, text)[0] != generated(family, SEED, text)[0] for text in texts)


@pytest.mark.parametrize(
    ("kind", "rope_type", "take_over"),
    [
        *((kind, "longrope", False) for kind in ("phi3", "llama", "qwen2", "gemma3")),
        ("gemma3", "longrope", True),  # its layers have two rotations
        *((kind, "dynamic", taken) for kind in ("llama", "qwen2", "gemma3") for taken in (False, True)),
    ],
)
def test_frequencies_that_follow_the_length_are_refused_with_the_reason(kind, rope_type, take_over):
    rope = {"rope_type": rope_type, "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
    if rope_type == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    if kind == "gemma3":
        rope = {"full_attention": rope, "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0}}
    model = tiny_model(kind, SEED, rope_parameters=rope)
    with pytest.raises(UnsupportedModelError, match=rf"follow the length read so far \({rope_type}\).*cached"):
        HuggingFaceLM(model, take_over=take_over)


def test_a_window_matters():
    with torch.inference_mode():
        for kind in ("mistral", "gemma3", "phi3"):
            wide = tiny_model(kind, SEED, sliding_window=2048)
            ids = torch.tensor([byte_tokenizer()(DOCUMENTS[0].text).input_ids])
            assert not torch.allclose(wide(ids).logits, tiny_model(kind, SEED)(ids).logits, atol=0.1)
