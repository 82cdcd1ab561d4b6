"""A model that computes NaN says so, whichever of the two it is; the next request works."""

import pytest
import torch

from rapid_integrations import ModelLoadError, NotANumberError, RapidEngine, RapidError, SpeculationConfig
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.embedder import HashEmbedder
from tests.toys.engines import PROMPT, SHORT, SMALL
from tests.toys.models import byte_tokenizer, tiny_model


@pytest.mark.parametrize("call", [0, 3])
@pytest.mark.parametrize("law", ["target", "augmented"])
def test_it_is_an_error_and_the_next_request_works(call, law):
    # Not taken over: there transformers' own last layer runs, in which a hook can be hung.
    settings = {"embedder": HashEmbedder(), "compression": SMALL, "sampling": SHORT}
    running = RapidEngine.from_models(tiny_model("llama", 0), byte_tokenizer(), **settings)
    speculation = SpeculationConfig(law=law)
    expected = running.generate(PROMPT, speculation=speculation).text
    calls = iter(range(10**6))

    def damage(module, given, logits):
        if next(calls) == call:
            return torch.where(torch.arange(logits.shape[-1]) == 7, float("nan"), logits)
        return logits

    hook = running.target.model.lm_head.register_forward_hook(damage)
    with pytest.raises(NotANumberError, match="NaN.*float32") as raised:
        running.generate(PROMPT, speculation=speculation)
    hook.remove()
    assert isinstance(raised.value, RapidError) and isinstance(raised.value, ArithmeticError)
    assert running.generate(PROMPT, speculation=speculation).text == expected


def test_damaged_weights_are_found_as_the_model_is_loaded():
    model = tiny_model("llama", 0)
    with torch.no_grad():
        model.lm_head.weight[7, 3] = float("nan")
    with pytest.raises(ModelLoadError, match="weights are damaged"):
        HuggingFaceLM(model)
