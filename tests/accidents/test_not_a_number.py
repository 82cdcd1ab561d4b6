"""A model that computes NaN says so, whichever of the two it is; the next request works."""

import pytest
import torch

from rapid_integrations import NotANumberError, RapidError, SpeculationConfig
from tests.test_engine import PROMPT, engine


@pytest.mark.parametrize("call", [0, 3])
@pytest.mark.parametrize("law", ["target", "augmented"])
def test_it_is_an_error_and_the_next_request_works(monkeypatch, call, law):
    running = engine()
    speculation = SpeculationConfig(law=law)
    expected = running.generate(PROMPT, speculation=speculation).text
    model = type(running.target)
    forward, calls = model.forward, iter(range(10**6))

    def damaged(self, token_ids, cache, keep):
        logits = forward(self, token_ids, cache, keep)
        if keep and next(calls) == call:
            logits = torch.where(torch.arange(logits.shape[-1]) == 7, float("nan"), logits)
        return logits

    with monkeypatch.context() as patch:
        patch.setattr(model, "forward", damaged)
        with pytest.raises(NotANumberError, match="NaN.*float32") as raised:
            running.generate(PROMPT, speculation=speculation)
    assert isinstance(raised.value, RapidError) and isinstance(raised.value, ArithmeticError)
    assert running.generate(PROMPT, speculation=speculation).text == expected
