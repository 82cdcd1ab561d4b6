"""OLMo hybrid with every setting of its configuration: as transformers has it, or refused."""

import pytest
import torch

from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.every_family import decoded, generated, tiny

SETTINGS = {
    "no rotations": {"rope_parameters": {"rope_type": "default", "rope_theta": None}},
    "rates up to one": {"linear_allow_neg_eigval": False},
    "as many heads": {"linear_num_key_heads": 4, "num_key_value_heads": 4, "linear_conv_kernel_dim": 3},
    "attention first": {"layer_types": ["full_attention", "linear_attention", "linear_attention"]},
    "tied, with biases": {"tie_word_embeddings": True, "attention_bias": True},
}


@pytest.mark.long
@pytest.mark.parametrize("name", SETTINGS)
def test_greedy_output_is_what_transformers_generates(name):
    lm = HuggingFaceLM(tiny("olmo_hybrid", 2, **SETTINGS[name]), take_over=True)
    assert lm._fused is not None and decoded(lm) == generated(tiny("olmo_hybrid", 2, **SETTINGS[name]))


@pytest.mark.parametrize("name", ["no rotations", "rates up to one"])
def test_the_settings_matter(name):
    """Or the test above would say nothing of them."""
    text = torch.arange(100, 140)[None]
    with torch.inference_mode():
        found, other = (tiny("olmo_hybrid", 2, **each)(text).logits for each in (SETTINGS[name], {}))
    assert not torch.allclose(found, other, atol=0.01)


def test_published_models_have_no_rotations():
    (attention,) = describe(tiny("olmo_hybrid", **SETTINGS["no rotations"])).attentions
    assert attention.rotation is None


def test_convolutions_with_another_activation_are_left_to_transformers():
    made = tiny("olmo_hybrid", hidden_act="gelu")
    with pytest.raises(NotDescribedError, match="another activation than SiLU"):
        describe(made)
    assert not FusedDecoder.serves(made)
