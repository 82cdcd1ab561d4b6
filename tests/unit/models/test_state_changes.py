"""Changes of recurrent states: chunks against the rule one token at a time."""

import pytest
import torch

from rapid_integrations.models.state_changes import changed, changed_by_gates, changed_by_number, changed_selectively


def one_by_one(query, key, value, log_decay, rate, state, *, delta):
    """The rule as it is published: a token after another, in float64. Decays are of a head or of a key's numbers."""
    given = []
    for t in range(query.shape[1]):
        state = state * log_decay[:, t].exp().reshape(len(state), -1, 1)
        found = delta * torch.einsum("hkv,hk->hv", state, key[:, t])
        added = rate[:, t, None] * (value[:, t] - found)
        state = state + torch.einsum("hk,hv->hkv", key[:, t], added)
        given.append(torch.einsum("hkv,hk->hv", state, query[:, t]))
    return torch.stack(given, dim=1), state


@pytest.mark.parametrize("tokens", [1, 2, 63, 64, 65, 200])
@pytest.mark.parametrize("delta", [True, False])
def test_chunks_are_the_recurrence_one_token_at_a_time(tokens, delta):
    torch.manual_seed(tokens)
    query, key = (torch.nn.functional.normalize(torch.randn(3, tokens, 16), dim=-1) for _ in range(2))
    value, rate = torch.randn(3, tokens, 8), torch.rand(3, tokens)
    # some of the decays forget at once: exp of their sums' differences would overflow if taken the wrong way round
    log_decay = -torch.rand(3, tokens) * torch.tensor([0.1, 5.0, 200.0])[:, None]
    inputs = query, key, value, log_decay, rate, torch.randn(3, 16, 8)
    found, expected = changed(*inputs, delta=delta), one_by_one(*(each.double() for each in inputs), delta=delta)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours.double(), theirs, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 2, 15, 16, 17, 100])
def test_chunks_with_a_decay_for_each_number_are_the_recurrence_one_token_at_a_time(tokens):
    torch.manual_seed(tokens)
    query, key = (torch.nn.functional.normalize(torch.randn(3, tokens, 16), dim=-1) for _ in range(2))
    value, rate, state = torch.randn(3, tokens, 8), 2 * torch.rand(3, tokens), torch.randn(3, 16, 8)
    # numbers that are kept beside some that are forgotten at once, in the same head
    log_decay = -torch.rand(3, tokens, 16) * torch.tensor([0.01, 0.1, 5.0, 400.0]).repeat(4)
    found = changed_by_number(query, key, value, log_decay.exp(), rate, state)
    inputs = query, key, value, log_decay, rate, state
    for ours, theirs in zip(found, one_by_one(*(each.double() for each in inputs), delta=True), strict=True):
        assert torch.allclose(ours.double(), theirs, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 2, 15, 16, 17, 100])
def test_a_selective_state_is_the_rule_one_token_at_a_time(tokens):
    torch.manual_seed(tokens)
    values, steps = torch.randn(tokens, 24), 3 * torch.rand(tokens, 24)
    key, query = torch.randn(2, tokens, 4)
    decay, state = -torch.rand(3, 4, 8) * torch.tensor([0.01, 1.0, 400.0])[:, None, None], torch.randn(3, 4, 8)
    found = changed_selectively(values, torch.cat([steps, key, query], dim=1), decay, state)
    now, given = state.double(), []
    for t in range(tokens):  # Gu and Dao 2023, arXiv 2312.00752, equation 2 and section 3.2
        step, value = (each[t].double().view(3, 1, 8) for each in (steps, values))
        now = (step * decay.double()).exp() * now + key[t].double()[:, None] * step * value
        given.append((query[t].double()[:, None] * now).sum(dim=1).flatten())
    assert torch.allclose(found[0].double(), torch.stack(given), atol=1e-4)
    assert torch.allclose(found[1].double(), now, atol=1e-4)


def test_a_state_by_gates_is_the_rule_one_token_at_a_time():
    torch.manual_seed(1)
    kept, added, state = torch.rand(50, 24), torch.randn(50, 24), torch.randn(3, 1, 8)
    found, last = changed_by_gates(kept, added, state)
    now, expected = state.flatten().double(), []
    for factor, more in zip(kept.double(), added.double(), strict=True):
        now = factor * now + more
        expected.append(now)
    assert torch.allclose(found.double(), torch.stack(expected), atol=1e-5)
    assert torch.allclose(last.double().flatten(), now, atol=1e-5)
