"""eta = "auto": the line search, the share of it, and what follows for p_hat."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor

from rapid_integrations.sampling import Law, augmented_target
from rapid_integrations.sampling.adaptive_eta import ETA_MOST, adaptive_eta
from tests.toys.budget import examples
from tests.toys.fake_gpu import MPS, NoDoubles, fake_gpu
from tests.toys.reference_law import augmented, automatic_eta
from tests.unit.sampling.strategies import distributions, logits

TAIL_RULES = ("mask", "restore")


def strength(p, q, relevance=1.0, trust=0.0):
    p, q = (torch.as_tensor(each, dtype=torch.float64) for each in (p, q))
    return float(adaptive_eta(p, q, q - p, p.log(), relevance=relevance, trust=trust))


def divergence(q, p_hat):
    return float(torch.special.xlogy(q, q / p_hat).nansum())


@settings(max_examples=examples(200))
@given(
    p=distributions(zeros=False),
    q=distributions(),
    relevance=st.sampled_from([0.0, 0.3, 1.0]),
    trust=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_it_is_the_reference(p, q, relevance, trust):
    wanted = automatic_eta(p.tolist(), q.tolist(), [True] * 5, relevance, trust)
    eta = strength(p, q, relevance, trust)
    # Where p and q hardly differ, any eta does nothing, and rounding decides which one it is.
    assert eta == pytest.approx(wanted, rel=1e-4, abs=1e-4) or float((q - p).abs().max()) < 1e-4


@settings(max_examples=examples(100))
@given(
    z=logits(),
    drafter_logits=logits(),
    rule=st.sampled_from(TAIL_RULES),
    relevance=st.sampled_from([0.4, 1.0]),
    trust=st.sampled_from([0.0, 0.7]),
    eta=st.sampled_from(["auto", "nearest"]),
)
def test_p_hat_is_the_reference(z, drafter_logits, rule, relevance, trust, eta):
    options = {"eta": eta, "relevance": relevance, "trust": trust, "tail_rule": rule, "tail_alpha": 0.1}
    law = Law("augmented", temperature=1.0, **options)
    p, q = (torch.softmax(x.double(), -1) for x in (z, drafter_logits))
    p_hat = augmented_target(p, q, **options)
    slow = torch.tensor(augmented(z.tolist(), drafter_logits.tolist(), law), dtype=torch.float64)
    threshold = torch.minimum((q - 0.1 * q.max()).abs().min(), (p_hat - 0.1 * p_hat.max()).abs().min())
    assert torch.allclose(p_hat, slow, rtol=0, atol=1e-6) or float(threshold) < 1e-6


@given(p=distributions(zeros=False), q=distributions(zeros=False))
def test_the_search_ends_where_p_hat_is_all_but_nearest_to_q(p, q):
    p, q = p.double(), q.double()
    best = strength(p, q) / float(torch.minimum(p, q).sum())
    assert 0 <= best <= ETA_MOST + 1e-9
    begin, found = (divergence(q, torch.softmax(p.log() + eta * (q - p), -1)) for eta in (0.0, best))
    for eta in torch.linspace(0, ETA_MOST, 200):
        nearest = divergence(q, torch.softmax(p.log() + float(eta) * (q - p), -1))
        # A convex function with a hundredth of its first slope left lies that little above its minimum.
        assert found - nearest <= 0.01 * float(((q - p) ** 2).sum()) * max(0.0, float(eta) - best) + 1e-9
        assert found <= begin + 1e-9


@given(p=distributions(zeros=False), q=distributions())
def test_p_hat_lies_nearer_to_q_than_p_does(p, q):
    # A fixed eta may overshoot: on flat distributions it ends farther from q than it began.
    p, q = p.double(), q.double()
    p_hat = augmented_target(p, q, eta="auto", tail_alpha=0.0)
    assert divergence(q, p_hat) <= divergence(q, p) + 1e-9


@given(p=distributions(2, zeros=False), q=distributions(2))
def test_of_two_tokens_p_hat_lies_between_p_and_q(p, q):
    p_hat = augmented_target(p.double(), q.double(), eta="auto", tail_alpha=0.0)
    low, high = sorted((float(p[0]), float(q[0])))
    assert low - 1e-6 <= float(p_hat[0]) <= high + 1e-6


def test_a_fixed_strength_overshoots_where_both_are_flat_and_this_does_not():
    p, q = torch.tensor([0.40, 0.32, 0.28]), torch.tensor([0.38, 0.36, 0.26])  # both prefer the first token
    assert augmented_target(p, q, eta=10.0).argmax() == 1
    assert augmented_target(p, q, eta="auto").argmax() == 0


def test_the_drafter_settles_what_the_target_leaves_open():
    p, q = torch.tensor([0.35, 0.51, 0.14]), torch.tensor([0.98, 0.01, 0.01])
    assert augmented_target(p, q, eta="auto").argmax() == 0


def test_a_drafter_that_contradicts_a_target_that_knows_is_not_heard():
    p, q = torch.tensor([0.76, 0.001, 0.239]), torch.tensor([0.007, 0.95, 0.043])
    assert augmented_target(p, q, eta=10.0).argmax() == 1
    p_hat = augmented_target(p, q, eta="auto")
    assert torch.allclose(p_hat, p, rtol=0, atol=0.05) and p_hat.argmax() == 0


def test_a_drafter_that_retrieval_bears_out_is_heard_where_it_contradicts():
    p, q = torch.tensor([0.97, 0.001, 0.029]), torch.tensor([0.007, 0.95, 0.043])
    assert augmented_target(p, q, eta="auto", trust=0.0).argmax() == 0
    assert augmented_target(p, q, eta="auto", trust=1.0).argmax() == 1
    # The surer the target is, the more trust it takes.
    sure = torch.tensor([1 - 2e-6, 1e-6, 1e-6])
    assert augmented_target(p, q, eta="auto", trust=0.8).argmax() == 1
    assert augmented_target(sure, q, eta="auto", trust=0.8).argmax() == 0
    assert torch.equal(augmented_target(p, q, eta="auto", trust=1.0), augmented_target(p, q, eta="nearest"))


@pytest.mark.parametrize("rule", TAIL_RULES)
def test_nothing_in_common_or_nothing_relevant_leaves_the_target(rule):
    p, q = torch.tensor([0.7, 0.3, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.5, 0.5])
    assert torch.allclose(augmented_target(p, q, eta="auto", tail_rule=rule), p)
    p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.5, 0.3])
    assert torch.allclose(augmented_target(p, q, eta="auto", relevance=0.0, tail_rule=rule), p)
    assert not torch.allclose(augmented_target(p, q, eta="auto", relevance=0.5, tail_rule=rule), p)


def test_agreement_changes_nothing():
    p = torch.tensor([0.5, 0.3, 0.2])
    assert torch.allclose(augmented_target(p, p, eta="auto"), p, rtol=1e-6, atol=0)


def test_a_wide_vocabulary_is_searched_where_it_moves():
    generator = torch.Generator().manual_seed(0)
    z, drafter_logits = (4 * torch.randn(500, generator=generator) for _ in range(2))
    law = Law("augmented", temperature=1.0, eta="auto")  # the tail rule lets at most ten tokens move
    slow = augmented(z.tolist(), drafter_logits.tolist(), law)
    assert law.form(z, drafter_logits).tolist() == pytest.approx(slow, abs=1e-6)


def test_rows_do_not_know_of_each_other():
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(2, 3, 7, generator=generator).softmax(-1) for _ in range(2))
    together = adaptive_eta(p, q, q - p, p.log())
    assert together.shape == (2, 3, 1)
    for row in range(2):
        for column in range(3):
            one = (each[row, column] for each in (p, q, q - p, p.log()))
            assert torch.equal(together[row, column], adaptive_eta(*one))


@pytest.mark.parametrize("rule", TAIL_RULES)
def test_a_device_without_double_precision_is_asked_for_none(rule, monkeypatch):
    """Apple's GPUs refuse float64, which the search needs: it is made on the processor."""

    def numbers(tensor):
        assert tensor.device.type == "cpu"
        return [[0.1] * tensor.shape[1]] * tensor.shape[0] if tensor.ndim == 2 else [0.1] * tensor.shape[0]

    with fake_gpu(MPS, may_wait=True) as gpu, NoDoubles(gpu):
        monkeypatch.setattr(FakeTensor, "tolist", numbers)
        z, drafter_logits = (torch.empty(200, device=gpu) for _ in "zd")
        found = Law("augmented", temperature=0.7, tail_rule=rule, min_p=0.01).form(z, drafter_logits)
        assert found.device == gpu and found.dtype == torch.float32
