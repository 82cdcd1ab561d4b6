import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rapid_integrations.sampling import Law, augmented_target
from tests.toys.budget import examples
from tests.toys.reference_law import augmented, softmax
from tests.unit.sampling.strategies import distributions, logits

TAIL_RULES = ("mask", "restore")
tail_rules = st.sampled_from(TAIL_RULES)
etas = st.sampled_from([0.0, 0.5, 5.0, 10.0, 40.0])
alphas = st.sampled_from([0.0, 0.1, 0.5, 1.0])


def close(one: Tensor, other: Tensor | list[float], tolerance: float = 1e-6) -> bool:
    return torch.allclose(one.double(), torch.as_tensor(other, dtype=torch.float64), rtol=0, atol=tolerance)


def test_restore_gives_back_what_the_shift_took():
    # The worked example of the design: the shift moves everything to the second token, the tail rule takes it back.
    p_hat = augmented_target(torch.tensor([0.6, 0.4]), torch.tensor([0.0, 1.0]), eta=10.0, tail_rule="restore")
    # "Exactly" up to what p_hat had left for the first token: 1.5 * e^-12.
    assert close(p_hat, [0.375, 0.625], 1e-5)


def test_mask_does_not_take_from_tokens_that_the_drafter_rules_out():
    p_hat = augmented_target(torch.tensor([0.6, 0.4]), torch.tensor([0.0, 1.0]), eta=10.0, tail_rule="mask")
    lift = torch.tensor(10.0 * 0.6).exp()
    assert close(p_hat, [float(0.6 / (0.6 + 0.4 * lift)), float(0.4 * lift / (0.6 + 0.4 * lift))])


def test_the_mask_is_closed_at_its_threshold():
    p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.75, 0.1875, 0.0625])
    moved = augmented_target(p, q, eta=4.0, tail_alpha=0.25)  # 0.1875 = 0.25 * 0.75 stays in, 0.0625 is out
    shift = 4.0 * (q - p) * torch.tensor([1.0, 1.0, 0.0])
    assert close(moved, torch.softmax(p.log() + shift, -1))


@settings(max_examples=examples(100))
@given(z=logits(), drafter_logits=logits(), temperature=st.sampled_from([0.5, 1.0, 2.0]))
def test_the_shift_is_a_gradient_step_on_the_divergence_from_the_drafter(z, drafter_logits, temperature):
    # The paper's derivation of Eq. 6: one step of size eta on T^2 * KL(q || softmax(z / T)).
    q = torch.softmax(drafter_logits.double() / temperature, -1)
    z = z.double().requires_grad_()
    log_p = torch.log_softmax(z / temperature, -1)
    (gradient,) = torch.autograd.grad(temperature**2 * (q * (q.log() - log_p)).sum(), z)
    expected = torch.softmax((z - 3.0 * gradient) / temperature, -1)
    assert close(augmented_target(log_p.exp().detach(), q, eta=3.0, tail_alpha=0.0), expected.detach(), 1e-9)


@settings(max_examples=examples(200))
@given(z=logits(), drafter_logits=logits(), eta=etas, rule=tail_rules, alpha=alphas)
def test_it_is_the_reference(z, drafter_logits, eta, rule, alpha):
    p, q = (torch.softmax(x.double(), -1) for x in (z, drafter_logits))  # double: float32 may tip a threshold
    law = Law("augmented", temperature=1.0, eta=eta, tail_rule=rule, tail_alpha=alpha)
    near_a_threshold = any(
        abs(value - alpha * best) < 1e-9 * best and value != best
        for scores in (softmax(drafter_logits.tolist()), augmented(z.tolist(), drafter_logits.tolist(), law))
        for best in [max(scores)]
        for value in scores
    )
    p_hat = augmented_target(p, q, eta=eta, tail_rule=rule, tail_alpha=alpha)
    assert near_a_threshold or close(p_hat, augmented(z.tolist(), drafter_logits.tolist(), law), 1e-9)


@given(p=distributions(), q=distributions(), eta=etas, rule=tail_rules, alpha=alphas)
def test_it_is_a_distribution_within_the_target_s_support(p, q, eta, rule, alpha):
    p_hat = augmented_target(p, q, eta=eta, tail_rule=rule, tail_alpha=alpha)
    assert p_hat.shape == p.shape and bool((p_hat >= 0).all())
    assert float(p_hat.double().sum()) == pytest.approx(1.0, abs=1e-6)
    assert bool((p_hat[p == 0] == 0).all())


@given(p=distributions(), q=distributions(), rule=tail_rules, alpha=alphas)
def test_no_strength_is_the_target(p, q, rule, alpha):
    assert close(augmented_target(p, q, eta=0.0, tail_rule=rule, tail_alpha=alpha), p)


@given(p=distributions(), eta=etas, rule=tail_rules, alpha=alphas)
def test_a_drafter_that_agrees_changes_nothing(p, eta, rule, alpha):
    assert close(augmented_target(p, p, eta=eta, tail_rule=rule, tail_alpha=alpha), p)


@given(p=distributions(), q=distributions(), eta=etas)
def test_without_a_tail_rule_both_are_one(p, q, eta):
    mask, restore = (augmented_target(p, q, eta=eta, tail_rule=rule, tail_alpha=0.0) for rule in TAIL_RULES)
    assert close(mask, restore)
    assert close(mask, torch.softmax(p.log() + eta * (q - p), -1))


@given(p=distributions(zeros=False), q=distributions(), eta=etas, alpha=alphas)
def test_mask_keeps_the_target_s_ratios_among_tokens_that_do_not_move(p, q, eta, alpha):
    p_hat = augmented_target(p, q, eta=eta, tail_rule="mask", tail_alpha=alpha)
    still = q < alpha * q.max()
    ratio = p_hat[still] / p[still]
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)


@given(p=distributions(zeros=False), q=distributions(), eta=etas, alpha=alphas)
def test_restore_gives_the_tail_the_target_s_own_values(p, q, eta, alpha):
    shifted = augmented_target(p, q, eta=eta, tail_rule="restore", tail_alpha=0.0)
    p_hat = augmented_target(p, q, eta=eta, tail_rule="restore", tail_alpha=alpha)
    unnormalised = torch.where(shifted < alpha * shifted.max(), p, shifted)
    assert close(p_hat, unnormalised / unnormalised.sum())


@pytest.mark.parametrize("rule", TAIL_RULES)
def test_rows_do_not_know_of_each_other(rule):
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(2, 3, 7, generator=generator).softmax(-1) for _ in range(2))
    together = augmented_target(p, q, eta=8.0, tail_rule=rule)
    for row in range(2):
        for column in range(3):
            alone = augmented_target(p[row, column], q[row, column], eta=8.0, tail_rule=rule)
            torch.testing.assert_close(together[row, column], alone, rtol=1e-6, atol=0)
