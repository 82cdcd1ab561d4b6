"""What a request will be done with, and what the law is told of the retrieval."""

import sys
from types import SimpleNamespace

import pytest
import torch

from rapid_integrations.compression import Compression
from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.engine.loaded_models import EngineModels
from rapid_integrations.engine.plan import Plan, plan_request
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.kernels.cpu.numpy_ops import NumPyOps
from rapid_integrations.proposers.suite.table_model import TableLM
from rapid_integrations.sampling import Law, TorchOps

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


@pytest.mark.parametrize(
    ("target", "drafters", "trust"),
    [
        (7, [7], 0.6),
        (7, [3], 0.6),  # a smaller one is not believed less: its passages are as good
        (7, [70], 0.96),
        (7, [70, 14], 0.8),
        (7, [sys.maxsize], 0.6),  # on another machine, which does not say how large it is
    ],
)
def test_a_larger_drafter_is_believed_more_where_it_contradicts(target, drafters, trust):
    first, *more = (sized(count) for count in drafters)
    models = EngineModels(sized(target), first, None, None, 512, more_drafters=tuple(more))
    plan = plan_request(SpeculationConfig(law="augmented"), SamplingParams(), models)
    law = plan.for_prompts(prepared(0.8, 0.7), self_speculation=False).law
    assert law.trust == pytest.approx(trust) and law.relevance == 0.7  # passages are as relevant as they are


def sized(parameters):
    lm = TableLM(0)
    lm.num_parameters = parameters
    return lm


def test_a_model_that_reads_the_same_twice_follows_the_target():
    plan = PLAN.for_prompts(prepared(None, 1.0, drafter_ids=(1, 2)), self_speculation=True)
    assert plan.law.kind == "target" and plan.proposer == "none"
    larger = PLAN.for_prompts(prepared(None, 1.0, drafter_ids=(1, 2)), self_speculation=False)
    assert larger.law.kind == "augmented" and larger.law.trust == 1.0


@pytest.mark.parametrize(
    ("law", "proposer", "planned"),
    [
        ("augmented", "auto", "tree_hybrid"),
        ("target", "auto", "tree_hybrid"),
        ("paper", "auto", "drafter"),
        ("augmented", "drafter", "drafter"),
        ("target", "none", "none"),
    ],
)
def test_auto_chooses_the_proposer_by_the_law(law, proposer, planned):
    models = EngineModels(TableLM(1), TableLM(2), None, None, 4)
    asked = SpeculationConfig(law=law, proposer=proposer)
    assert plan_request(asked, SamplingParams(), models).proposer == planned


@pytest.mark.parametrize("change", [{"device": torch.device("cuda")}, {"reads_trees": False}])
@pytest.mark.parametrize("which", [0, 1])
def test_auto_proposes_no_trees_to_models_that_read_none_or_on_a_gpu(monkeypatch, which, change):
    both = [TableLM(1), TableLM(2)]
    for name, value in change.items():
        monkeypatch.setattr(both[which], name, value)
    models = EngineModels(*both, None, None, 4)
    assert plan_request(SpeculationConfig(law="target"), SamplingParams(), models).proposer == "hybrid"


def test_auto_uses_a_model_that_only_proposes():
    models = EngineModels(TableLM(1), TableLM(2), TableLM(3), None, 4)
    plan = plan_request(SpeculationConfig(law="target"), SamplingParams(), models)
    assert plan.uses_draft_lm and not plan.uses_drafter


def test_what_computes_the_law_is_made_for_every_device_of_the_request():
    here, elsewhere = TableLM(1), SimpleNamespace(device=torch.device("cuda"), num_parameters=1)

    def ops(target, drafter, draft_lm=None):
        models = EngineModels(target, drafter, draft_lm, None, 4)
        return plan_request(SpeculationConfig(), SamplingParams(), models).law.ops

    assert isinstance(ops(here, here), NumPyOps) and isinstance(ops(here, here, here), NumPyOps)
    for models in ((here, elsewhere), (elsewhere, here), (here, here, elsewhere)):
        assert type(ops(*models)) is TorchOps
