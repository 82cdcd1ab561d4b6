"""Whole answers of an engine whose rounds are decided where the logits lie: in company, with grammars, traced."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from rapid_integrations import SamplingParams, SpeculationConfig, StructuredOutput
from rapid_integrations.decoding import device_rounds
from rapid_integrations.kernels.ops import ops_for
from rapid_integrations.sampling import TorchOps
from rapid_integrations.sampling.rows import TorchRows
from tests.toys.greedy_answers import DOCUMENTS, engine

SEEDED = {"temperature": 0.8, "top_p": 0.9, "seed": 3}
KEPT = ("rounds", "drafted_tokens", "accepted_tokens", "law", "eta", "proposer", "scored_with_target", "drafter")


@pytest.fixture
def decided(monkeypatch):
    """Return a function that asks with rounds on the device or on the host, and the number of those on the device."""
    rounds = []
    read = device_rounds.numbers_of

    def counted(verdict):
        rounds.append(verdict)
        return read(verdict)

    monkeypatch.setattr(device_rounds, "numbers_of", counted)

    def ask(prompts, on_device, sampling, **speculation):
        with monkeypatch.context() as patched:
            ops = TorchOps(TorchRows()) if on_device else TorchOps()
            patched.setattr("rapid_integrations.engine.plan.ops_for", lambda *devices: ops)
            running = engine("llama", 1, speculation.pop("drafter", None))
            params = SamplingParams(**{"max_new_tokens": 16, **sampling})
            options = {"sampling": params, "trace": speculation.pop("trace", False)}
            options["speculation"] = SpeculationConfig(**speculation)
            with ThreadPoolExecutor() as company:
                return list(company.map(lambda prompt: running.generate(prompt, **options), prompts))

    return ask, rounds


def facts(answers):
    return [
        (each.token_ids, each.text, each.finish_reason, *(getattr(each.stats, k) for k in KEPT)) for each in answers
    ]


PENALISED = {"logit_bias": {101: 3.0}, "frequency_penalty": 0.5}
OTHER = ("qwen2", 3, ())
# By day each value once or twice, by night all together.
BY_DAY = {("augmented", "drafter", 0, 0), ("augmented", "hybrid", 1, 1), ("target", "drafter", 1, 1)}
CASES = [
    pytest.param(law, proposer, sampling, drafter, marks=() if case in BY_DAY else pytest.mark.slow)
    for law in ("target", "augmented")
    for proposer in ("drafter", "hybrid")
    for i, sampling in enumerate(({}, SEEDED, PENALISED))
    for j, drafter in enumerate((None, OTHER))
    for case in [(law, proposer, i, j)]
]


@pytest.mark.parametrize(("law", "proposer", "sampling", "drafter"), CASES)
def test_answers_and_statistics_are_the_hosts(decided, law, proposer, sampling, drafter):
    ask, rounds = decided
    options = {"law": law, "proposer": proposer, "draft_length": 4, "drafter": drafter}
    expected = facts(ask(DOCUMENTS, False, sampling, **options))
    assert not rounds
    found = facts(ask(DOCUMENTS, True, sampling, **options))
    assert found == expected and len(rounds) == sum(each[3] for each in found)


def test_a_grammar_is_the_hosts(decided):
    ask, rounds = decided
    sampling = {"structured": StructuredOutput(regex="[ab]{3,9}c"), **SEEDED}
    expected, found = (facts(ask(DOCUMENTS, on_device, sampling, draft_length=4)) for on_device in (False, True))
    assert found == expected and not rounds


def test_a_trace_shows_the_same(decided):
    ask, rounds = decided
    shown = []
    for on_device in (False, True):
        (answer,) = ask(DOCUMENTS[:1], on_device, SEEDED, law="augmented", draft_length=4, trace=True)
        shown.append(
            [(r.drafted, r.accepted, [(t.token_id, t.origin, t.p) for t in r.tokens]) for r in answer.trace.rounds]
        )
    assert shown[0] == shown[1] and rounds


def test_processors_decide_on_the_host():
    running = engine("llama", 1)
    assert ops_for(running.target.device).rows is None
