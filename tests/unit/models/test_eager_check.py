"""The comparison with a model's own eager attention: which texts it takes."""

import pytest
import torch

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.models import eager_check
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.every_family import tiny


@pytest.fixture
def compared(monkeypatch):
    """Let the comparison fail for the given texts, and tell which ones were compared: by the step between their ids."""
    texts, wrong, compare = [], set(), eager_check.EagerCheck._compare

    def observed(self, expected):
        texts.append(self._step)
        if self._step in wrong:
            raise eager_check._DiffersError(f"text {self._step} differs")
        compare(self, expected)

    monkeypatch.setattr(eager_check.EagerCheck, "_compare", observed)
    return texts, wrong


@pytest.mark.parametrize("quantization", [None, "int4"])
def test_a_model_with_experts_has_further_texts(compared, quantization):
    texts, wrong = compared
    wrong.update(eager_check._STEPS[:2])
    lm = HuggingFaceLM(tiny("mixtral").bfloat16(), take_over=True, quantization=quantization)
    assert texts[:3] == list(eager_check._STEPS)
    assert set(texts[3:]) == {eager_check._STEPS[2]}  # the decoder is compared in the text that passed
    assert lm.kv_bytes_per_token > 0


def test_a_fault_shows_in_every_text(compared):
    texts, wrong = compared
    wrong.update(eager_check._STEPS)
    with pytest.raises(UnsupportedModelError, match=f"text {eager_check._STEPS[-1]} differs"):
        HuggingFaceLM(tiny("mixtral").bfloat16(), take_over=True)
    assert texts == list(eager_check._STEPS)


@pytest.mark.parametrize(("family", "dtype"), [("llama", torch.bfloat16), ("mixtral", torch.float32)])
def test_without_experts_or_rounding_there_is_one_text(compared, family, dtype):
    texts, wrong = compared
    HuggingFaceLM(tiny(family).to(dtype), take_over=True)
    assert set(texts) == {eager_check._STEPS[0]}
    wrong.add(eager_check._STEPS[0])
    with pytest.raises(UnsupportedModelError, match="differs"):
        HuggingFaceLM(tiny(family).to(dtype), take_over=True)


def test_the_texts_of_a_decoder_are_read_with_its_weights(monkeypatch):
    """A decoder that differs in its first text is compared in others, though the model has lent its weights by then."""
    compare, failed = eager_check.EagerCheck._compare, []

    def once(self, expected):
        if self._decoder and not failed:
            failed.append(self._step)
            raise eager_check._DiffersError("differs")
        compare(self, expected)

    monkeypatch.setattr(eager_check.EagerCheck, "_compare", once)
    lm = HuggingFaceLM(tiny("mixtral").bfloat16(), take_over=True)
    assert failed == [eager_check._STEPS[0]] and lm._fused is not None
