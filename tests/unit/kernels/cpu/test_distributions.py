"""The kernels' distributions against the mathematics in `sampling`, which is checked against the slow reference."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import distributions
from rapid_integrations.sampling import Law, augmented_target, truncate
from tests.toys.budget import examples

pytestmark = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")

LOGITS = st.lists(st.sampled_from([-90.0, -30.0, -4.0, -1.0, 0.0, 0.5, 1.0, 3.0, 7.0, 20.0]), min_size=2, max_size=40)
ETAS = st.sampled_from([0.0, 0.3, 2.0, 10.0, 40.0, 1000.0, "auto", "nearest"])
ALPHAS = st.sampled_from([0.011, 0.1, 0.5, 1.0])
RELEVANCE = st.sampled_from([0.0, 0.4, 1.0])
TRUST = st.sampled_from([0.0, 0.7, 1.0])


def logits(values, turn=0.0):
    return torch.tensor(values) + 0.01 * (turn + torch.arange(len(values)).float()).cos()  # no ties


def slow(z, y, eta, relevance, trust, alpha, factor=1.0):
    """In float64, whole vectors at a time."""
    z, y = factor * z.double(), factor * y.double()
    options = {"eta": eta, "relevance": relevance, "trust": trust, "tail_alpha": alpha}
    return augmented_target(z.softmax(-1)[None], y.softmax(-1)[None], logits=z[None], **options)[0]


def on_the_edge(y, alpha):
    """Whether rounding decides which tokens move."""
    shares = y.double().softmax(-1)
    return bool(((shares - alpha * shares.max()).abs() < 1e-6 * shares.max()).any()) and alpha < 1.0


@settings(max_examples=examples(300))
@given(LOGITS, LOGITS, ETAS, ALPHAS, RELEVANCE, TRUST, st.sampled_from([0.5, 1.0, 3.0]))
@example([3.0, 1.0, 3.0, 20.0], [3.0, 0.0, -90.0, 3.0], "nearest", 1.0, 1.0, 0.0, 1.0)  # a token with nearly all moves
@example([7.0, -30.0, -90.0], [3.0, -30.0, 3.0], "auto", 0.1, 1.0, 0.0, 0.5)
def test_p_hat(first, second, eta, alpha, relevance, trust, factor):
    size = min(len(first), len(second))
    z, y = logits(first[:size]), logits(second[:size], 2.0)
    expected = slow(z, y, eta, relevance, trust, alpha, factor)
    options = {"eta": eta, "relevance": relevance, "trust": trust, "tail_alpha": alpha}
    found = distributions.p_hat(z, y, factor=factor, **options)
    assert float(found.double().sum()) == pytest.approx(1.0, abs=1e-5) and float(found.min()) >= 0.0
    strong = eta == 1000.0  # which multiplies what rounding leaves
    close = torch.allclose(found.double(), expected, rtol=2e-3, atol=2e-3 if strong else 1e-5)
    assert close or on_the_edge(factor * y, alpha)


@settings(max_examples=examples(300))
@given(LOGITS, LOGITS, ETAS, ALPHAS, RELEVANCE, TRUST)
def test_the_best_of_p_hat(first, second, eta, alpha, relevance, trust):
    size = min(len(first), len(second))
    z, y = logits(first[:size]), logits(second[:size], 2.0)
    options = {"eta": eta, "relevance": relevance, "trust": trust, "tail_alpha": alpha}
    token = distributions.best_of_p_hat(z, y, **options)
    expected = slow(z, y, eta, relevance, trust, alpha)
    assert float(expected[token]) >= float(expected.max()) * (1 - 1e-3) or on_the_edge(y, alpha)
    whole = distributions.p_hat(z, y, factor=1.0, **options)
    assert float(whole[token]) >= float(whole.max()) * (1 - 1e-5)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 255, 256, 300, 5003])
@pytest.mark.parametrize("flat", [0.01, 1.0, 6.0])
def test_vocabularies_of_every_width(size, flat):
    generator = torch.Generator().manual_seed(size)
    z, y = (flat * torch.randn(size, generator=generator) for _ in range(2))
    assert torch.allclose(distributions.softmax(z, 0.7), (0.7 * z).softmax(-1), rtol=1e-5, atol=1e-9)
    for eta in ("auto", "nearest", 3.0):
        options = {"eta": eta, "relevance": 1.0, "trust": 0.3, "tail_alpha": 0.1}
        found = distributions.p_hat(z, y, factor=1.0, **options)
        expected = slow(z, y, eta, 1.0, 0.3, 0.1)
        assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-6)
        token = distributions.best_of_p_hat(z, y, **options)
        assert float(expected[token]) >= float(expected.max()) * (1 - 1e-5)


def test_a_token_whose_p_has_underflown_can_rise_and_one_that_falls_leaves_the_others():
    z = torch.tensor([0.0, -200.0, -90.0, -91.0])
    options = {"factor": 1.0, "eta": 1e3, "relevance": 1.0, "trust": 0.0}
    up = distributions.p_hat(z, torch.tensor([-50.0, 0.0, -50.0, -50.0]), tail_alpha=0.1, **options)
    assert up[1] == 1.0  # -200 + 1000
    # The first falls by some 500: the others are left, in their shares.
    down = distributions.p_hat(z, torch.tensor([1.0, 0.0, 0.0, 0.0]), tail_alpha=0.9, **options)
    assert torch.allclose(down, torch.tensor([0.0, 0.0, 0.73105858, 0.26894143]), atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("allowed", [None, torch.arange(3000) % 2 == 0])
@pytest.mark.parametrize("edges", [{"top_p": 0.9}, {"top_k": 40}, {"min_p": 0.02}, {"top_k": 60, "top_p": 0.8}])
def test_the_law_is_the_same_with_and_without_them(temperature, allowed, edges):
    generator = torch.Generator().manual_seed(0)
    z, y = (3 * torch.randn(3000, generator=generator) for _ in range(2))
    law = Law("augmented", temperature=temperature, **edges)
    ours = law.form(z, y, allowed), law.propose(y, allowed), Law("target", temperature).form(z, None)
    with native.without_kernels():
        theirs = law.form(z, y, allowed), law.propose(y, allowed), Law("target", temperature).form(z, None)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is other is None) or torch.allclose(mine, other, rtol=1e-3, atol=1e-6)


@settings(max_examples=examples(300))
@given(
    size=st.integers(1, 700),
    flat=st.sampled_from([0.0, 0.05, 1.0, 4.0, 20.0]),
    top_k=st.sampled_from([0, 1, 2, 20, 699, 5000]),
    top_p=st.one_of(st.sampled_from([1e-9, 0.5, 0.9, 0.999, 1.0]), st.floats(0.01, 1.0)),
    min_p=st.one_of(st.sampled_from([0.0, 1e-6, 0.05, 1.0]), st.floats(0.0, 1.0)),
)
def test_truncation(size, flat, top_k, top_p, min_p):
    generator = torch.Generator().manual_seed(size)
    probs = (flat * torch.randn(size, generator=generator)).softmax(-1)
    edges = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    expected = truncate(probs.double(), **edges)
    found = distributions.truncate_(probs.clone(), **edges)
    assert float(found.double().sum()) == pytest.approx(1.0, abs=1e-5)
    if flat:  # else all are equally likely, and which of them fill a nucleus is nobody's matter
        assert torch.allclose(found.double(), expected, rtol=1e-5, atol=0) or rounding_decides(probs, **edges)
    else:
        assert int((found > 0).sum()) == int((expected > 0).sum()) or rounding_decides(probs, **edges)


def rounding_decides(probs, top_k, top_p, min_p):
    """Whether a token lies on an edge."""
    best = probs.double().sort(descending=True).values
    if 0 < top_k < len(best):
        best = best[best >= best[top_k - 1]]
    on_an_edge = ((best.cumsum(-1) / best.sum() - top_p).abs() < 1e-6) & (top_p < 1.0)
    return bool(on_an_edge.any() or ((best / best[0] - min_p).abs() < 1e-6).any())


def test_truncation_by_hand():
    probs = torch.tensor([0.1, 0.4, 0.2, 0.1, 0.2])
    for edges, left in (
        ({"top_k": 2}, [0.0, 0.5, 0.25, 0.0, 0.25]),  # as likely as the second
        ({"top_p": 0.45}, [0.0, 2 / 3, 1 / 3, 0.0, 0.0]),  # of two the first
        ({"top_p": 0.85}, [1 / 9, 4 / 9, 2 / 9, 0.0, 2 / 9]),
        ({"min_p": 0.4}, [0.0, 0.5, 0.25, 0.0, 0.25]),
        ({"top_k": 1, "top_p": 0.9, "min_p": 0.9}, [0.0, 1.0, 0.0, 0.0, 0.0]),
    ):
        found = distributions.truncate_(probs.clone(), **{"top_k": 0, "top_p": 1.0, "min_p": 0.0} | edges)
        assert torch.allclose(found, torch.tensor(left)), edges
    for none in (torch.zeros(40), torch.full((40,), float("nan"))):
        assert (
            torch.equal(distributions.truncate_(none.clone(), top_k=3, top_p=0.5, min_p=0.1), none)
            or none.isnan().all()
        )


@settings(max_examples=examples(200))
@given(size=st.integers(1, 700), factor=st.floats(0.0, 1.0), same=st.booleans())
def test_residuals(size, factor, same):
    generator = torch.Generator().manual_seed(size)
    law, proposed = (torch.randn(size, generator=generator).softmax(-1) for _ in range(2))
    proposed = law if same else proposed
    left, found = distributions.residual(law, factor, proposed)
    rest = (factor * law.double() - proposed.double()).clamp(min=0.0)
    assert left == pytest.approx(float(rest.sum()), abs=1e-6)
    if left > 1e-3:
        assert torch.allclose(found.double(), rest / rest.sum(), rtol=1e-3, atol=1e-5)
    else:
        assert float(found.sum()) == pytest.approx(1.0, abs=1e-3) or (left == 0.0 and not found.any())


@settings(max_examples=examples(300))
@given(
    size=st.integers(1, 700),
    zeros=st.sampled_from([0.0, 0.5, 0.98]),
    share=st.one_of(st.sampled_from([0.0, 5e-324, 1 - 2.0**-53, 1.0]), st.floats(0, 1)),
)
def test_draws(size, zeros, share):
    generator = torch.Generator().manual_seed(size)
    probs = torch.rand(size, generator=generator) * (torch.rand(size, generator=generator) >= zeros)
    probs[size // 2] += 0.1
    drawn = distributions.draw(probs, share)
    assert probs[drawn] > 0
    values = probs.double()
    below, total = float(values[:drawn].sum()), float(values.sum())
    assert below - 1e-12 * size <= share * total <= below + float(values[drawn]) + 1e-12 * size


@pytest.mark.parametrize("size", [5, 64, 300, 3000])
@pytest.mark.parametrize("where", [0, -1])
def test_no_number_stays_none(size, where):
    z, y = torch.zeros(size), torch.arange(float(size))
    z[where] = float("nan")
    assert distributions.softmax(z, 1.0).isnan().any()
    assert distributions.p_hat(z, y, factor=1.0, eta=2.0, relevance=1.0, trust=0.0, tail_alpha=0.1).isnan().any()


def test_what_they_do_not_serve():
    z = torch.zeros(8)
    assert distributions.served(z) and not distributions.served(z.double()) and not distributions.served(z[None])
    assert not distributions.served(z, torch.zeros(9)) and not distributions.served(torch.zeros(0))
    assert not distributions.served(torch.zeros(8, device="meta"))
    assert torch.allclose(distributions.softmax(torch.arange(16.0)[::2], 1.0), torch.arange(16.0)[::2].softmax(-1))
    with native.without_kernels():
        assert not distributions.served(z)
    assert distributions.served(z)


def test_without_memory_it_is_an_error():
    class Library:
        def rapid_p_hat(self, *arguments):
            return -2

        def rapid_truncate(self, *arguments):
            return 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributions, "loaded_library", Library)
        with pytest.raises(MemoryError, match="no memory"):
            distributions.truncate_(torch.ones(4) / 4, top_k=2, top_p=1.0, min_p=0.0)
        with pytest.raises(MemoryError, match="no memory"):
            options = {"eta": 1.0, "relevance": 1.0, "trust": 0.0, "tail_alpha": 0.1}
            distributions.p_hat(torch.zeros(4), torch.zeros(4), factor=1.0, **options)
