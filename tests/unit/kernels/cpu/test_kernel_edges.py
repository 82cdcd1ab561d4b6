"""The kernels where they are hard to get right: thresholds, underflow, no number, no memory, what they do not serve."""

import re

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu.interface import SOURCES
from rapid_integrations.kernels.cpu.numpy_ops import NumPyOps
from rapid_integrations.kernels.cpu.ops import NativeOps
from rapid_integrations.sampling import Law, TorchOps, adaptive_eta, augmented_target, truncate
from tests.toys.budget import examples
from tests.unit.kernels.cpu.rounding import rounding_decides

LIBRARY = native.native_library()
NATIVE = NativeOps(LIBRARY)

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no compiler, or RAPID_NATIVE=0")

LOGITS = st.lists(st.sampled_from([-90.0, -30.0, -4.0, -1.0, 0.0, 0.5, 1.0, 3.0, 7.0, 20.0]), min_size=2, max_size=40)
ETAS = st.sampled_from([0.0, 0.3, 2.0, 10.0, 40.0, 1000.0, "auto", "nearest"])
ALPHAS = st.sampled_from([0.011, 0.1, 0.5, 1.0])
RELEVANCE = st.sampled_from([0.0, 0.4, 1.0])
TRUST = st.sampled_from([0.0, 0.7, 1.0])


def shift(eta, alpha=0.1, relevance=1.0, trust=0.0, tail_rule="mask"):
    return {"eta": eta, "relevance": relevance, "trust": trust, "tail_rule": tail_rule, "tail_alpha": alpha}


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
    found = NATIVE.p_hat(z, y, 1.0 / factor, **shift(eta, alpha, relevance, trust))
    assert float(found.double().sum()) == pytest.approx(1.0, abs=1e-5) and float(found.min()) >= 0.0
    strong = eta == 1000.0  # which multiplies what rounding leaves
    close = torch.allclose(found.double(), expected, rtol=2e-3, atol=2e-3 if strong else 1e-5)
    assert close or on_the_edge(factor * y, alpha)


@settings(max_examples=examples(300))
@given(LOGITS, LOGITS, ETAS, ALPHAS, RELEVANCE, TRUST)
def test_the_best_of_p_hat(first, second, eta, alpha, relevance, trust):
    size = min(len(first), len(second))
    z, y = logits(first[:size]), logits(second[:size], 2.0)
    options = shift(eta, alpha, relevance, trust)
    token = NATIVE.best_of_p_hat(z, y, **options)
    expected = slow(z, y, eta, relevance, trust, alpha)
    assert float(expected[token]) >= float(expected.max()) * (1 - 1e-3) or on_the_edge(y, alpha)
    whole = NATIVE.p_hat(z, y, 1.0, **options)
    assert float(whole[token]) >= float(whole.max()) * (1 - 1e-5)


def test_a_token_whose_p_has_underflown_can_rise_and_one_that_falls_leaves_the_others():
    z = torch.tensor([0.0, -200.0, -90.0, -91.0])
    up = NATIVE.p_hat(z, torch.tensor([-50.0, 0.0, -50.0, -50.0]), 1.0, **shift(1e3))
    assert up[1] == 1.0  # -200 + 1000
    # The first falls by some 500: the others are left, in their shares.
    down = NATIVE.p_hat(z, torch.tensor([1.0, 0.0, 0.0, 0.0]), 1.0, **shift(1e3, 0.9))
    assert torch.allclose(down, torch.tensor([0.0, 0.0, 0.73105858, 0.26894143]), atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("allowed", [None, torch.arange(3000) % 2 == 0])
@pytest.mark.parametrize("edges", [{"top_p": 0.9}, {"top_k": 40}, {"min_p": 0.02}, {"top_k": 60, "top_p": 0.8}])
def test_the_law_is_the_same_with_and_without_them(temperature, allowed, edges):
    generator = torch.Generator().manual_seed(0)
    z, y = (3 * torch.randn(3000, generator=generator) for _ in range(2))
    ours, theirs = (
        (law.form(z, y, allowed), law.propose(y, allowed), law.form(z, None))
        for law in (Law("augmented", temperature, **edges, ops=ops) for ops in (NATIVE, TorchOps()))
    )
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
    found = NATIVE.truncate(probs.clone(), **edges)
    assert float(found.double().sum()) == pytest.approx(1.0, abs=1e-5)
    if flat:  # else all are equally likely, and which of them fill a nucleus is nobody's matter
        assert torch.allclose(found.double(), expected, rtol=1e-5, atol=0) or rounding_decides(probs, **edges)
    else:
        assert int((found > 0).sum()) == int((expected > 0).sum()) or rounding_decides(probs, **edges)


def test_truncation_by_hand():
    probs = torch.tensor([0.1, 0.4, 0.2, 0.1, 0.2])
    for edges, left in (
        ({"top_k": 2}, [0.0, 0.5, 0.25, 0.0, 0.25]),  # as likely as the second
        ({"top_p": 0.45}, [0.0, 2 / 3, 1 / 3, 0.0, 0.0]),  # of two the first
        ({"top_p": 0.85}, [1 / 9, 4 / 9, 2 / 9, 0.0, 2 / 9]),
        ({"min_p": 0.4}, [0.0, 0.5, 0.25, 0.0, 0.25]),
        ({"top_k": 1, "top_p": 0.9, "min_p": 0.9}, [0.0, 1.0, 0.0, 0.0, 0.0]),
    ):
        found = NATIVE.truncate(probs.clone(), **{"top_k": 0, "top_p": 1.0, "min_p": 0.0} | edges)
        assert torch.allclose(found, torch.tensor(left)), edges
    for none in (torch.zeros(40), torch.full((40,), float("nan"))):
        assert torch.equal(NATIVE.truncate(none.clone(), top_k=3, top_p=0.5, min_p=0.1), none) or none.isnan().all()


@settings(max_examples=examples(200))
@given(size=st.integers(1, 700), factor=st.floats(0.0, 1.0), same=st.booleans())
def test_residuals(size, factor, same):
    generator = torch.Generator().manual_seed(size)
    law, proposed = (torch.randn(size, generator=generator).softmax(-1) for _ in range(2))
    proposed = law if same else proposed
    left, found = NATIVE.residual(law, factor, proposed)
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
    drawn = NATIVE.draw(probs, share)
    assert probs[drawn] > 0
    values = probs.double()
    below, total = float(values[:drawn].sum()), float(values.sum())
    assert below - 1e-12 * size <= share * total <= below + float(values[drawn]) + 1e-12 * size


@pytest.mark.parametrize("size", [5, 64, 300, 3000])
@pytest.mark.parametrize("where", [0, -1])
def test_no_number_stays_none(size, where):
    z, y = torch.zeros(size), torch.arange(float(size))
    z[where] = float("nan")
    assert NATIVE.softmax(z, 1.0).isnan().any()
    assert NATIVE.p_hat(z, y, 1.0, **shift(2.0)).isnan().any()


class Serving:
    """Stands in for the kernels: whoever calls another one than these fails."""

    def __init__(self, *names):
        self._names = names

    def __getattr__(self, name):
        assert name in self._names, f"{name} does not serve this"
        return getattr(LIBRARY, name)


@pytest.mark.parametrize("how", [{"tail_rule": "restore"}, {"alpha": 0.0099}], ids=str)
def test_shifts_that_they_do_not_serve_are_left_to_torch(how):
    z, y, options = torch.arange(8.0), torch.ones(8), shift(2.0, **how)
    ops = NativeOps(Serving("rapid_softmax"))  # q is theirs
    assert torch.allclose(ops.p_hat(z, y, 0.7, **options), TorchOps().p_hat(z, y, 0.7, **options))
    assert ops.best_of_p_hat(z, y, **options) == TorchOps().best_of_p_hat(z, y, **options)


def test_distributions_of_another_kind_are_left_to_numpy():
    ops, theirs = NativeOps(Serving()), NumPyOps()
    law = torch.tensor([0.1, 0.2, 0.7])
    proposed = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)  # as a proposer may report it
    left, rest = ops.residual(law, 0.9, proposed)
    assert left == pytest.approx(0.43) and torch.allclose(rest, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    assert ops.draw(proposed, 0.6) == theirs.draw(proposed, 0.6) == 1
    assert ops.truncate(proposed, top_k=1, top_p=1.0, min_p=0.0).tolist() == [1.0, 0.0, 0.0]
    assert torch.equal(ops.softmax(proposed, 1.0), proposed.softmax(-1))
    assert torch.equal(ops.softmax(proposed[None], 1.0), proposed[None].softmax(-1))


def test_without_memory_it_is_an_error():
    class Library:
        def rapid_p_hat(self, *arguments):
            return -2

        def rapid_truncate(self, *arguments):
            return 1

    ops = NativeOps(Library())
    with pytest.raises(MemoryError, match="no memory"):
        ops.truncate(torch.ones(4) / 4, top_k=2, top_p=1.0, min_p=0.0)
    for ask in (ops.best_of_p_hat, lambda z, y, **how: ops.p_hat(z, y, 1.0, **how)):
        with pytest.raises(MemoryError, match="no memory"):
            ask(torch.zeros(4), torch.zeros(4), **shift(1.0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ETA_MOST", adaptive_eta.ETA_MOST),
        ("SLOPE_LEFT", adaptive_eta._SLOPE_LEFT),
        ("CLOSE", adaptive_eta._CLOSE),
        ("SEEN", adaptive_eta._MOVED),
    ],
)
def test_the_constants_of_auto_are_the_same_in_both_languages(name, value):
    sources = "".join(path.read_text() for path in SOURCES)
    assert [float(number) for number in re.findall(rf"\b{name} = ([\d.e-]+)", sources)] == [value]
