"""The short cut for greedy decoding says nothing, or what p_hat says; and few tokens moving is all tokens moving."""

from types import SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.sampling import Law
from rapid_integrations.sampling.augmented_target import augmented_target, settled_token
from rapid_integrations.sampling.vectors import places, point_mass

LOGITS = st.lists(st.sampled_from([-30.0, -4.0, -1.0, 0.0, 0.5, 1.0, 3.0, 7.0, 20.0]), min_size=2, max_size=8)
ETAS = st.sampled_from([0.0, 0.3, 2.0, 10.0, 40.0, 1000.0, "auto"])
ALPHAS = st.sampled_from([0.01, 0.1, 0.5, 1.0])


def logits(values):
    return torch.tensor(values) + 0.01 * torch.arange(len(values)).cos()  # no ties


@settings(deadline=None)
@given(LOGITS, LOGITS, ETAS, ALPHAS, st.sampled_from([0.0, 0.4, 1.0]))
def test_it_is_the_best_token_of_p_hat(first, second, eta, alpha, relevance):
    size = min(len(first), len(second))
    z, y = logits(first[:size]), logits(second[:size])
    token = settled_token(z.softmax(-1), y.softmax(-1), z, eta=eta, relevance=relevance, tail_alpha=alpha)
    options = {"eta": eta, "relevance": relevance, "tail_alpha": alpha}
    p_hat = augmented_target(z.softmax(-1), y.softmax(-1), logits=z, **options)
    assert token is None or token == int(p_hat.argmax())


@settings(deadline=None)
@given(LOGITS, LOGITS, ETAS, ALPHAS)
def test_looking_at_what_moves_only(first, second, eta, alpha):
    size = min(len(first), len(second))
    p, q = logits(first[:size]).softmax(-1), logits(second[:size]).softmax(-1)
    sparse = augmented_target(p, q, eta=eta, tail_alpha=alpha)
    dense = augmented_target(p[None], q[None], eta=eta, tail_alpha=alpha)[0]
    torch.testing.assert_close(sparse, dense, rtol=5e-3, atol=1e-5)  # where p leaves little, eta is only as exact


def test_most_positions_are_settled():
    """Where both are sure and agree; where they are not, p_hat is formed."""
    z, y = torch.zeros(1000), torch.zeros(1000)
    z[3], y[3] = 16.0, 15.0
    assert settled_token(z.softmax(-1), y.softmax(-1), z, eta="auto") == 3
    assert settled_token(z.softmax(-1), y.roll(1).softmax(-1), z, eta="auto") is None
    law = Law("augmented").form(z, y)
    assert law[3] == 1.0 and law.sum() == 1.0


def test_a_third_token_is_not_overlooked():
    """p and q have the same best token, and yet another one is p_hat's."""
    p, q = torch.tensor([0.5, 0.4, 0.1]), torch.tensor([0.4, 0.3, 0.3])
    assert augmented_target(p, q, eta=10.0).argmax() == 2
    assert settled_token(p, q, p.log(), eta=10.0) is None
    assert Law("augmented", eta=10.0).form(p.log(), q.log()).argmax() == 2


def test_vectors():
    like = torch.tensor([0.5, float("nan"), float("inf"), -2.0])
    assert point_mass(2, like).tolist() == [0.0, 0.0, 1.0, 0.0] and like[3] == -2.0
    assert places(torch.tensor([True, False, True])).tolist() == [0, 2]
    assert places(torch.zeros(3, dtype=torch.bool)).shape == (0,)


def test_vectors_on_another_device():
    assert point_mass(1, torch.zeros(3, device="meta")).device.type == "meta"
    condition = SimpleNamespace(device=torch.device("cuda"), nonzero=lambda: torch.tensor([[0], [2]]))
    assert places(condition).tolist() == [0, 2]


def test_many_tokens_that_move():
    """A flat q: the search sees the 64 that would move most, here as there."""
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(300, generator=generator).softmax(-1), torch.rand(300, generator=generator).softmax(-1)
    sparse = augmented_target(p, q, eta="auto", tail_alpha=0.1)
    torch.testing.assert_close(sparse, augmented_target(p[None], q[None], eta="auto", tail_alpha=0.1)[0])


def test_without_a_tail_rule_nothing_is_settled():
    assert (
        settled_token(
            torch.tensor([0.9, 0.1]), torch.tensor([0.9, 0.1]), torch.tensor([0.9, 0.1]).log(), eta=1.0, tail_alpha=0.0
        )
        is None
    )
