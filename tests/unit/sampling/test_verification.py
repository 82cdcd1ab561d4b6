"""The claim of `verify`: whoever drafts, the output follows the law. Every outcome is enumerated, none is sampled."""

import itertools
import operator
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rapid_integrations.proposers.suite.every_outcome import EnumeratedRandomness, enumerate_outcomes
from rapid_integrations.proposers.suite.table_model import TableLM
from rapid_integrations.sampling import (
    Law,
    TorchOps,
    Verdict,
    acceptance_probability,
    paper_residual,
    verify,
)
from tests.toys.budget import examples
from tests.toys.distributions import largest_difference, total_variation
from tests.toys.reference_law import joint_law, reference_law
from tests.unit.sampling.strategies import distributions

V = 3
TARGET, DRAFTER = TableLM(1, V), TableLM(2, V)
PROMPT = (0, 2)

Text = tuple[int, ...]


def laws(law: Law, text: Text) -> tuple[Tensor, Tensor, Tensor]:
    """Return (p, the law, q) after `text`, each truncated."""
    z, drafter_logits = (torch.tensor(model.logits_after((*PROMPT, *text))) for model in (TARGET, DRAFTER))
    formed = law.form(z, drafter_logits if law.needs_drafter else None)
    return law.form(z, None), formed, Law("target", temperature=law.temperature).form(drafter_logits, None)


def outcomes(
    law: Law, length: int, propose: Callable[[Text, Law, EnumeratedRandomness], tuple[int, Tensor | None]], paper: bool
) -> dict[Text, float]:
    """Return what `length` drafted tokens, their verification and one token more come to.

    A text that a rejection left short is completed from the law, so that all outcomes have length + 1 tokens.
    """

    def run(rng: EnumeratedRandomness) -> Text:
        draft: Text = ()
        rows = []
        for _ in range(length):
            token, row = propose(draft, law, rng)
            draft = (*draft, token)
            rows.append(row)
        proposed = None if rows[0] is None else torch.stack(rows)

        def residual_at(position: int) -> Tensor:
            p, p_hat, _ = laws(law, draft[:position])
            return paper_residual(p, p_hat, proposed[position])

        verdict = verify(draft, proposed, lambda at: laws(law, draft[:at])[1], rng, residual_at if paper else None)
        text = draft[: verdict.accepted]
        if verdict.correction is not None:
            text = (*text, verdict.correction)
        elif paper:
            text = (*text, rng.draw(laws(law, text)[0]))
        while len(text) <= length:
            text = (*text, rng.draw(laws(law, text)[1]))
        return text

    return enumerate_outcomes(run)


def expected(law: Law, length: int) -> dict[Text, float]:
    def after(text: Text) -> list[float]:
        return reference_law(*(model.logits_after((*PROMPT, *text)) for model in (TARGET, DRAFTER)), law)

    return joint_law(after, length + 1)


def from_the_drafter(text: Text, law: Law, rng: EnumeratedRandomness) -> tuple[int, Tensor]:
    q = laws(law, text)[2]
    return rng.draw(q), q


def from_the_truncated_drafter(text: Text, law: Law, rng: EnumeratedRandomness) -> tuple[int, Tensor | None]:
    logits = torch.tensor(DRAFTER.logits_after((*PROMPT, *text)))
    q = law.propose(logits)
    return (int(logits.argmax()), None) if q is None else (rng.draw(q), q)


def from_the_law(text: Text, law: Law, rng: EnumeratedRandomness) -> tuple[int, Tensor]:
    """Nothing remains of the residual."""
    p_hat = laws(law, text)[1]
    return rng.draw(p_hat), p_hat


def uniformly(text: Text, law: Law, rng: EnumeratedRandomness) -> tuple[int, Tensor]:
    row = torch.full((V,), 1 / V)
    return rng.draw(row), row


def from_few(text: Text, law: Law, rng: EnumeratedRandomness) -> tuple[int, Tensor]:
    """Some tokens are never drafted."""
    row = torch.tensor([0.75, 0.0, 0.25])
    return rng.draw(row), row


def certainly(text: Text, law: Law, rng: EnumeratedRandomness) -> tuple[int, None]:
    """A point mass that changes with the text."""
    return (2 * len(text) + sum(text) + 1) % V, None


def certainly_in_a_row(text: Text, law: Law, rng: EnumeratedRandomness) -> tuple[int, Tensor]:
    """The same point mass, reported as a distribution."""
    token, _ = certainly(text, law, rng)
    return token, torch.eye(V)[token]


PROPOSALS = [
    from_the_drafter,
    from_the_truncated_drafter,
    from_the_law,
    uniformly,
    from_few,
    certainly,
    certainly_in_a_row,
]

LAWS = [
    Law("target", temperature=1.0),
    Law("target", temperature=0.5, top_k=2),
    Law("target", temperature=1.3, top_p=0.7),
    Law("augmented", temperature=1.0, eta=0.0),
    Law("augmented", temperature=1.0, eta=5.0),
    Law("augmented", temperature=0.7, eta=20.0, tail_rule="restore"),
    Law("augmented", temperature=1.0, eta=5.0, tail_rule="restore", tail_alpha=0.5, min_p=0.2),
    Law("augmented", temperature=1.0, eta=3.0, tail_alpha=0.0, top_k=2, top_p=0.9),
    Law("augmented", temperature=0.0, eta=10.0),
]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("propose", PROPOSALS, ids=lambda propose: propose.__name__)
@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("length", [1, 2])
def test_the_output_follows_the_law(law, length, propose):
    assert largest_difference(outcomes(law, length, propose, False), expected(law, length)) < 1e-6


@pytest.mark.parametrize("propose", [from_the_drafter, certainly], ids=lambda propose: propose.__name__)
@pytest.mark.parametrize("law", [LAWS[1], LAWS[4]], ids=repr)
def test_three_drafted_tokens(law, propose):
    assert largest_difference(outcomes(law, 3, propose, False), expected(law, 3)) < 1e-6


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("eta", [5.0, 20.0])
def test_the_published_rule_follows_neither_p_nor_p_hat(length, eta):
    law = Law("augmented", temperature=1.0, eta=eta)
    published = outcomes(law, length, from_the_drafter, True)
    assert sum(published.values()) == pytest.approx(1.0)
    assert total_variation(published, expected(law, length)) > 0.01
    assert total_variation(published, expected(Law("target", temperature=1.0), length)) > 0.01


@pytest.mark.parametrize(
    "wrong",
    [
        lambda law, proposed: law,
        lambda law, proposed: proposed,
        lambda law, proposed: (law - proposed).abs() / (law - proposed).abs().sum(),
    ],
)
def test_the_enumeration_rejects_wrong_residuals(wrong):
    law = LAWS[4]

    def run(rng: EnumeratedRandomness) -> int:
        token, q = from_the_drafter((), law, rng)
        p_hat = laws(law, ())[1]
        verdict = verify((token,), q[None], lambda at: p_hat, rng, lambda at: wrong(p_hat, q))
        return token if verdict.correction is None else verdict.correction

    first = {(x,): 0.0 for x in range(V)}
    for text, probability in expected(law, 0).items():
        first[text] += probability
    assert total_variation({(x,): p for x, p in enumerate_outcomes(run).items()}, first) > 0.01


# --- the parts ------------------------------------------------------------


@given(law=distributions(), proposed=distributions())
def test_one_token_in_formulas(law, proposed):
    """Sum over drafts x of q(x) * (accept x, or else the correction) is the law."""
    output = torch.zeros(len(law), dtype=torch.float64)

    def run(rng: EnumeratedRandomness) -> int:
        token = rng.draw(proposed)
        verdict = verify((token,), proposed[None], lambda at: law, rng)
        return token if verdict.correction is None else verdict.correction

    for token, probability in enumerate_outcomes(run).items():
        output[token] += probability
    assert torch.allclose(output, law.double(), rtol=0, atol=1e-6)


@settings(max_examples=examples(50))
@given(rows=st.lists(st.tuples(distributions(), distributions()), min_size=2, max_size=3))
def test_a_block_accepts_no_fewer_tokens_than_one_by_one(rows):
    """On average; laws and proposals here do not depend on the text."""

    def accepted(rng: EnumeratedRandomness) -> int:
        draft = [rng.draw(proposed) for _, proposed in rows]
        return verify(draft, [proposed for _, proposed in rows], lambda at: rows[at][0], rng).accepted

    block = sum(count * probability for count, probability in enumerate_outcomes(accepted).items())
    alike = [float(torch.minimum(law, proposed).double().sum()) for law, proposed in rows]
    assert block >= sum(itertools.accumulate(alike, operator.mul)) - 1e-5


def test_a_block_by_hand():
    """The example of arXiv 2403.10444: 10/9 of two tokens one by one, 11/9 as a block."""
    law, proposed = torch.tensor([1 / 3, 2 / 3]), torch.tensor([2 / 3, 1 / 3])

    def accepted(rng: EnumeratedRandomness) -> int:
        draft = [rng.draw(proposed), rng.draw(proposed)]
        return verify(draft, [proposed, proposed], lambda at: law, rng).accepted

    found = enumerate_outcomes(accepted)
    assert sum(count * probability for count, probability in found.items()) == pytest.approx(11 / 9, abs=1e-6)


@given(law=distributions(), token=st.integers(0, 4))
def test_a_point_mass_is_a_row_with_a_single_one(law, token):
    row = torch.eye(5)[token]
    assert acceptance_probability(law, token, None) == acceptance_probability(law, token, row) == float(law[token])
    ends = [
        enumerate_outcomes(lambda rng, rows=rows: verify((token,), rows, lambda at: law, rng))
        for rows in (None, row[None])
    ]
    assert largest_difference(*ends) < 1e-6


@given(p=distributions(), p_hat=distributions(), proposed=distributions(), token=st.integers(0, 4))
def test_residuals_are_distributions_and_change_nothing(p, p_hat, proposed, token):
    before = [x.clone() for x in (p, p_hat, proposed)]
    for rest in (TorchOps().without(p_hat, token), paper_residual(p, p_hat, proposed)):
        assert bool((rest >= 0).all()) and float(rest.double().sum()) == pytest.approx(1.0, abs=1e-6)
    enumerate_outcomes(lambda rng: verify((rng.draw(proposed), rng.draw(p)), (proposed, p), lambda at: p_hat, rng))
    assert all(torch.equal(x, y) for x, y in zip((p, p_hat, proposed), before, strict=True))


def corrections(law: Tensor, token: int, proposed: Tensor | None) -> list[float]:
    """Return the distribution of the correction where `token` was rejected."""

    def run(rng: EnumeratedRandomness) -> int | None:
        return verify((token,), None if proposed is None else proposed[None], lambda at: law, rng).correction

    found = {token: probability for token, probability in enumerate_outcomes(run).items() if token is not None}
    return [found.get(token, 0.0) / sum(found.values()) for token in range(len(law))]


def test_the_correction_is_never_what_was_rejected():
    law, proposed = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.6, 0.2, 0.2])
    assert corrections(law, 0, proposed) == pytest.approx([0.0, 0.75, 0.25])
    assert corrections(law, 0, None) == pytest.approx([0.0, 0.625, 0.375])


def test_a_correction_where_nothing_remains_follows_the_law():
    law = torch.tensor([0.25, 0.75, 0.0])
    point = torch.tensor([0.0, 1.0, 0.0])
    assert TorchOps().without(point, 1).tolist() == point.tolist()
    assert paper_residual(law, law, law).tolist() == law.tolist()
    # Law and proposal that differ by rounding only: accepted almost surely, and never out of the law's support.
    nearly = torch.tensor([0.25, 0.7500001, 0.0])
    assert acceptance_probability(law, 1, nearly) == pytest.approx(1.0, abs=1e-6)
    assert corrections(law, 1, nearly) == pytest.approx(law.tolist())


def test_the_published_residual_is_equation_10():
    p, p_hat, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.6, 0.2]), torch.tensor([0.4, 0.1, 0.5])
    # max(p - p_hat, p - q, 0) = (0.3, 0.2, 0.0)
    assert paper_residual(p, p_hat, q).tolist() == pytest.approx([0.6, 0.4, 0.0])


def test_laws_are_formed_in_order_and_none_behind_a_rejection():
    asked: list[int] = []

    def law_at(position: int) -> Tensor:
        asked.append(position)
        return torch.eye(V)[[0, 2, 1][position]]

    rng = EnumeratedRandomness()
    assert verify((0, 1, 1), None, law_at, rng) == Verdict(1, 2)
    assert asked == [0, 1]
    assert rng.probability == 1.0
    assert verify((0, 2, 1), None, law_at, rng) == Verdict(3, None)
    assert verify((), None, law_at, rng) == Verdict(0, None)


def test_a_greedy_law_leaves_nothing_to_chance():
    for token, best in itertools.product(range(V), repeat=2):
        rng = EnumeratedRandomness()
        verdict = verify((token,), None, lambda at, best=best: torch.eye(V)[best], rng)
        assert verdict == (Verdict(1, None) if token == best else Verdict(0, best))
        assert rng.probability == 1.0
