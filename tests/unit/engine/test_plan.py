"""What the law is told of the retrieval."""

from types import SimpleNamespace

import pytest

from rapid_integrations.compression import Compression
from rapid_integrations.engine.plan import Plan
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.sampling import Law

PLAN = Plan(Law("augmented"), "drafter", "auto", 16)


def prepared(coverage, relevance, drafter_ids=(1,)):
    compression = None
    if relevance is not None:
        compression = Compression(("kept",), ((),), 10, 1, shortened=coverage is not None, relevance=relevance)
    rendered = SimpleNamespace()
    return PreparedPrompt(rendered, rendered, [1, 2], list(drafter_ids), compression, coverage)


@pytest.mark.parametrize(
    ("coverage", "relevance", "trust", "told"),
    [
        (0.0, 0.4, 0.0, 0.4),
        (0.5, 0.0, 0.0, 0.0),
        (0.8, 0.4, 0.6, 0.6),  # what holds the question's words is relevant
        (0.8, 0.7, 0.6, 0.7),
        (1.0, 0.0, 1.0, 1.0),
        (None, 1.0, 1.0, 1.0),  # nothing was left out
        (None, None, 1.0, 1.0),  # there was nothing to retrieve from
    ],
)
def test_the_law_is_told_how_far_to_trust_what_was_retrieved(coverage, relevance, trust, told):
    law = PLAN.for_prompts(prepared(coverage, relevance), self_speculation=False).law
    assert (law.trust, law.relevance) == (pytest.approx(trust), pytest.approx(told))


def test_a_model_that_reads_the_same_twice_follows_the_target():
    plan = PLAN.for_prompts(prepared(None, 1.0, drafter_ids=(1, 2)), self_speculation=True)
    assert plan.law.kind == "target" and plan.proposer == "none"
    larger = PLAN.for_prompts(prepared(None, 1.0, drafter_ids=(1, 2)), self_speculation=False)
    assert larger.law.kind == "augmented" and larger.law.trust == 1.0
