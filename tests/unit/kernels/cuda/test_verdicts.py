"""Verdicts on drafts and the tokens behind them, against the verification of a single round."""

import pytest
import torch

from rapid_integrations.kernels.cuda.verdicts import draw_rows, verify_rounds
from rapid_integrations.sampling import Randomness, TorchOps, verify
from tests.unit.kernels.cuda.waits import NoWaits

OPS = TorchOps()
K, V = 4, 150


class Given(Randomness):
    """Randomness whose uniform numbers are given, which counts how many were used."""

    def __init__(self, uniforms):
        super().__init__(0)
        self.left = list(uniforms)
        self.used = 0

    def _uniform(self):
        self.used += 1
        return self.left.pop(0)


def rounds(count, draft=K, width=V, seed=0, sharp=2.0):
    """Return laws, drafts, what they were drawn from, and uniform numbers, of rounds of which many accept something."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharp * torch.randn(count, draft + 1, width, generator=generator)
    laws = torch.softmax(logits, -1)
    near = logits[:, :draft] + torch.randn(count, draft, width, generator=generator)
    proposed = torch.softmax(near, -1)
    laws[laws < 1e-3] = 0.0  # as truncation leaves it
    laws /= laws.sum(-1, keepdim=True)
    tokens = torch.multinomial(proposed.flatten(0, 1), 1, generator=generator).view(count, draft)
    return laws, tokens, proposed, torch.rand(count, draft + 2, generator=generator, dtype=torch.float64)


def expected_of(laws, tokens, proposed, uniforms):
    rng = Given(uniforms.tolist())
    draft = tokens.tolist()
    verdict = verify(draft, None if proposed is None else list(proposed), lambda at: laws[at], rng)
    token = rng.draw(laws[len(draft)]) if verdict.correction is None else verdict.correction
    return [verdict.accepted, token, rng.used]


def check(laws, tokens, proposed, uniforms, block=64):
    found = verify_rounds(laws, tokens, proposed, uniforms, block=block).tolist()
    given = (None,) * len(laws) if proposed is None else proposed
    expected = [expected_of(*each) for each in zip(laws, tokens, given, uniforms, strict=True)]
    assert found == expected
    return found


def test_blocks_of_drawn_tokens():
    found = check(*rounds(60))
    assert {accepted for accepted, *_ in found} == set(range(K + 1))
    assert {used for *_, used in found} >= {2, 3}


def test_point_masses():
    laws, tokens, _, uniforms = rounds(60)
    laws[:, :K].scatter_add_(2, tokens[..., None], torch.full((60, K, 1), 1.5))
    laws /= laws.sum(-1, keepdim=True)
    found = check(laws, tokens, None, uniforms)
    assert {accepted for accepted, *_ in found} == set(range(K + 1))


@pytest.mark.parametrize(("draft", "width", "block"), [(1, 5, 64), (7, 64, 64), (2, 65, 64), (3, 300, 512)])
def test_shapes(draft, width, block):
    check(*rounds(6, draft, width, seed=draft), block)


@pytest.mark.parametrize("drawn", [True, False])
def test_only_the_first_tokens_of_a_draft_count(drawn):
    laws, tokens, proposed, uniforms = rounds(30)
    lengths = torch.arange(30) % (K + 1)
    found = verify_rounds(laws, tokens, proposed if drawn else None, uniforms, lengths, block=64).tolist()
    for row, own in enumerate(lengths.tolist()):
        cut = proposed[row, :own] if drawn and own else None
        assert found[row] == expected_of(laws[row], tokens[row, :own], cut, uniforms[row])


def test_greedy_laws_use_no_chance_to_accept():
    laws, tokens, _, uniforms = rounds(12)
    best = torch.zeros_like(laws).scatter_(2, laws.argmax(-1, keepdim=True), 1.0)
    tokens[::2] = best[::2, :K].argmax(-1)
    tokens[1::2, 0] = best[1::2, 0].argmax(-1)
    found = check(best, tokens, None, uniforms)
    assert all(used == 1 for *_, used in found)  # the draw from a point mass
    assert all(accepted == K for accepted, *_ in found[::2])


def test_certain_and_impossible_tokens():
    laws, tokens, proposed, uniforms = rounds(8)
    proposed[:4] = laws[:4, :K]  # all of it stands
    tokens[:4] = laws[:4, :K].argmax(-1)
    laws[4:, 0].scatter_(1, tokens[4:, :1], 0.0)  # the first token cannot
    found = check(laws, tokens, proposed, uniforms)
    assert all(accepted == K for accepted, *_ in found[:4]) and all(accepted == 0 for accepted, *_ in found[4:])


def test_a_law_of_one_token_that_is_rejected_by_rounding():
    laws = torch.zeros(1, 2, 70)
    laws[0, :, 66] = 1 - 2**-20
    uniforms = torch.full((1, 3), 1 - 2**-30, dtype=torch.float64)
    assert check(laws, torch.tensor([[66]]), None, uniforms) == [[0, 66, 2]]


def test_draws():
    probs = torch.rand(50, V, generator=torch.Generator().manual_seed(1))
    probs[probs < 0.5] = 0.0
    shares = torch.rand(50, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    shares[:3] = torch.tensor([0.0, 1 - 2**-53, 0.5])
    found = draw_rows(probs, shares, block=64).tolist()
    assert found == [OPS.draw(row, share) for row, share in zip(probs, shares.tolist(), strict=True)]


def test_nothing_waits_for_the_device():
    laws, tokens, proposed, uniforms = rounds(2)
    with NoWaits():
        verify_rounds(laws, tokens, proposed, uniforms, block=64)


@pytest.mark.slow
def test_thousands_of_random_rounds():
    for seed in range(10):
        laws, tokens, proposed, uniforms = rounds(100, seed=seed, sharp=(0.5, 2.0, 5.0)[seed % 3])
        check(laws, tokens, proposed, uniforms)
        check(laws, tokens, None, uniforms)
