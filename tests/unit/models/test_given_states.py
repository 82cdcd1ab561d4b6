"""Passes give the hidden states that transformers' own forward pass has, on every path that computes them."""

from dataclasses import replace

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.cache.hidden_states import LAST, WantedStates
from rapid_integrations.models.causal_lm import GivesStates
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.every_family import tiny
from tests.toys.models import tiny_model

IDS = torch.tensor([7 * number % 200 for number in range(40)])
LEVELS = (1, LAST, 0)
# Widths that the kernels take.
SERVED = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}


def _expected(kind, dtype, **shape):
    with torch.inference_mode():
        read = tiny_model(kind, 1, **shape).to(dtype)(IDS[None], output_hidden_states=True).hidden_states
    return torch.cat([read[level][0] for level in LEVELS], dim=-1).float()


def _given(lm, parts, keep=None, parents=None):
    taken = []
    states = WantedStates(LEVELS, 0, lambda first, ids, tree, given: taken.append((first, given.float())))
    cache = lm.new_cache(64)
    for part in parts:
        kept = len(part) if keep is None else keep
        lm.forward([Rows(part, cache, kept, states=states, parents=parents if len(part) < 30 else None)])
    assert [first for first, _ in taken] == [0, *torch.tensor([len(part) for part in parts[:-1]]).cumsum(0).tolist()]
    return torch.cat([given for _, given in taken])


@pytest.mark.pairs
@pytest.mark.parametrize("take_over", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
@pytest.mark.parametrize("keep", [0, 1, None])
def test_states_are_those_of_transformers(kind, take_over, keep):
    lm = HuggingFaceLM(tiny_model(kind, 1), take_over=take_over)
    assert isinstance(lm, GivesStates)
    given = _given(lm, [IDS[:33], IDS[33:38], IDS[38:]], keep)
    torch.testing.assert_close(given, _expected(kind, torch.float32), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("keep", [0, 1])
def test_states_behind_the_last_layer_with_keys_of_its_own(keep):
    """Rows that nobody asks for end there, unless their states are wanted."""
    with torch.inference_mode():
        read = tiny("gemma4_text")(IDS[None], output_hidden_states=True).hidden_states
    lm = HuggingFaceLM(tiny("gemma4_text"), take_over=True)
    taken = []
    states = WantedStates((1, 4), 0, lambda first, ids, tree, given: taken.append(given))
    alone, wanted = (Rows(IDS, lm.new_cache(64), keep, states=each) for each in (None, states))
    without, logits = lm.forward([alone, wanted])
    torch.testing.assert_close(taken[0], torch.cat([read[1][0], read[4][0]], dim=-1), atol=2e-4, rtol=1e-3)
    assert len(logits) == keep
    torch.testing.assert_close(without, logits, atol=1e-4, rtol=1e-4)


def test_the_kernels_give_them_too():
    lm = HuggingFaceLM(tiny_model("llama", 1, **SERVED).bfloat16(), take_over=True)
    if lm.kernels.startswith("none"):
        pytest.skip(lm.kernels)
    given, expected = _given(lm, [IDS[:33], IDS[33:38], IDS[38:]]), _expected("llama", torch.bfloat16, **SERVED)
    assert (given - expected).norm() / expected.norm() < 0.06


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_of_a_tree(dtype):
    lm = HuggingFaceLM(tiny_model("llama", 1, **SERVED).to(dtype), take_over=True)
    # Rows 0, 2 and 4 are the text's next tokens, and the others lead elsewhere.
    tree = torch.stack([IDS[33], IDS[5], IDS[34], IDS[6], IDS[35]])
    given = _given(lm, [IDS[:33], tree], parents=(-1, -1, 0, 0, 2))
    expected = _expected("llama", dtype, **SERVED)[33:36]
    assert (given[[33, 35, 37]] - expected).norm() / expected.norm() < (1e-3 if dtype == torch.float32 else 0.06)


def test_nobody_is_told_before_the_position_that_is_wanted_and_company_does_not_matter():
    lm = HuggingFaceLM(tiny_model("llama", 1), take_over=True)
    taken = []
    states = WantedStates((LAST,), 20, lambda first, ids, tree, given: taken.append((first, given)))
    one, other = lm.new_cache(64), lm.new_cache(64)
    rows = Rows(IDS[:20], one, 0, states=states)
    lm.forward([rows, Rows(IDS[3:8], other, 1)])
    assert not taken
    lm.forward([replace(rows, token_ids=IDS[20:24], keep=1), Rows(IDS[8:12], other, 1)])
    assert [(first, given.shape) for first, given in taken] == [(20, (4, lm.hidden_size))]
    logits = lm.logits_of(taken[0][1])
    (again,) = lm.forward([Rows(IDS[20:24], _rolled_back(one), 4)])
    torch.testing.assert_close(logits, again, atol=1e-4, rtol=1e-4)
    assert torch.equal(lm.embedded(IDS[:2]), tiny_model("llama", 1).get_input_embeddings().weight[IDS[:2]])


def _rolled_back(cache):
    cache.rollback(20)
    return cache
