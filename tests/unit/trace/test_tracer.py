"""What is recorded is what happened, and recording changes nothing."""

import asyncio
import time
from dataclasses import replace

import pytest

from rapid_integrations import Completion, Prompt, RapidEngine, SamplingParams, SpeculationConfig, StructuredOutput
from rapid_integrations.decoding import loop
from rapid_integrations.proposers.drafter import DrafterProposer
from rapid_integrations.sampling import Law, Randomness
from rapid_integrations.trace.tracer import Tracer
from tests.toys.embedder import HashEmbedder
from tests.toys.engines import DOCUMENT, PROMPT, SMALL, engine
from tests.toys.models import byte_tokenizer, tiny_model
from tests.toys.reference_law import augmented, penalised, softmax
from tests.toys.requests import LETTERS, ToyRequest

SEVERAL = ("drafter", "prompt_lookup", "hybrid", "draft_lm", "none")


def traced(request: ToyRequest, seed: int):
    """Return a toy run, and the trace of it."""
    made = []

    def observer(law, penalty, drafter):
        tracer = Tracer("question", ("context",), {}, ToyRequest._decode, lambda token: LETTERS[token])
        made.append(tracer)
        return tracer.begin(law, penalty, drafter)

    run = replace(request, observer=observer).run(Randomness(seed))
    return run, made[0].trace()


@pytest.fixture(scope="module")
def shared():
    return engine(prefix_cache_bytes=0)


# --- against the reference ------------------------------------------------------------------------------------------


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("proposer", SEVERAL)
@pytest.mark.parametrize("kind", ["target", "augmented", "paper"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_probabilities_are_those_of_the_reference(proposer, kind, temperature):
    if kind == "paper" and proposer != "drafter":
        pytest.skip("the published rule is defined for the drafter's drafts")
    law = Law(kind, temperature, eta=3.0, top_k=2, top_p=0.9)
    request = ToyRequest(law, proposer, draft_length=3, max_new_tokens=12, repetition_penalty=1.3)
    for seed in range(5):
        plain = request.tokens(Randomness(seed))
        run, trace = traced(request, seed)
        assert run.tokens == plain == tuple(token.token_id for token in trace.tokens)
        output: tuple[int, ...] = ()
        for token in trace.tokens:
            seen = {*request.target_prompt, *output}
            z, other = (
                penalised(model.logits_after((*prompt, *output))[:3], seen, 1.3)
                for model, prompt in (
                    (request.target, request.target_prompt),
                    (request.drafter, request.drafter_prompt),
                )
            )
            heat = temperature or 1.0
            p, q = softmax([x / heat for x in z]), softmax([x / heat for x in other])
            p_hat = augmented(z, other, law)
            assert token.p == pytest.approx(p[token.token_id], abs=1e-5)
            assert [each.probability for each in token.top_p] == pytest.approx(sorted(p, reverse=True), abs=1e-5)
            if token.q is not None:
                assert token.q == pytest.approx(q[token.token_id], abs=1e-5)
            assert (token.p_hat is not None) == (law.needs_drafter and token.q is not None)
            if law.needs_drafter and token.p_hat is not None:
                assert token.p_hat == pytest.approx(p_hat[token.token_id], abs=1e-5)
                assert token.top_p_hat[0].token_id == max(range(3), key=lambda index: p_hat[index])
            output = (*output, token.token_id)
        if law.needs_drafter and kind != "paper":
            assert all(token.q is not None for token in trace.tokens)


@pytest.mark.parametrize("proposer", SEVERAL)
def test_origins_add_up(proposer):
    request = ToyRequest(Law("augmented", 1.0, eta=2.0), proposer, draft_length=3, max_new_tokens=20)
    met = set()
    for seed in range(20):
        run, trace = traced(request, seed)
        recorder = run.recorder
        assert len(trace.rounds) == recorder.rounds
        assert sum(each.drafted for each in trace.rounds) == recorder.drafted
        assert sum(each.accepted for each in trace.rounds) == recorder.accepted
        assert "".join(token.text for token in trace.tokens) == run.text
        elapsed = [each.elapsed_s for each in trace.rounds]
        assert elapsed == sorted(elapsed) and elapsed[-1] <= recorder.decode_s
        for each in trace.rounds:
            origins = [token.origin for token in each.tokens]
            met |= set(origins)
            assert (
                origins.count("drafter") + origins.count("draft_lm") + origins.count("prompt_lookup") == each.accepted
            )
            assert set(origins[each.accepted :]) <= {"corrected", "bonus", "target"}
            for token in each.tokens:
                assert (token.rejected is not None) == (token.origin == "corrected")
                if token.rejected is not None:
                    assert len(token.rejected.discarded) == each.drafted - each.accepted - 1
            if "target" in origins:
                assert each.drafted == 0
    expected = {
        "drafter": {"drafter", "corrected", "bonus", "target"},
        "prompt_lookup": {"prompt_lookup", "corrected", "bonus", "target"},
        "hybrid": {"drafter", "prompt_lookup", "corrected", "bonus", "target"},
        "draft_lm": {"draft_lm", "corrected", "bonus", "target"},
        "none": {"target"},
    }[proposer]
    assert met == expected


def test_an_unknown_proposer_is_other():
    request = ToyRequest(Law("target", 0.0), draft_length=2)

    class Foreign:
        def __init__(self, inner):
            self._inner = inner

        def propose(self, limit, rng):
            proposal = yield from self._inner.propose(limit, rng)
            return replace(proposal, source="made elsewhere")

        def commit(self, token_ids):
            self._inner.commit(token_ids)

        def observe(self, times):
            self._inner.observe(times)

    def make(asked):
        return Foreign(DrafterProposer.from_request(asked))

    _, trace = traced(replace(request, proposer=make, drafter=request.target, drafter_prompt=request.target_prompt), 0)
    assert {token.origin for token in trace.tokens} <= {"other", "bonus", "target"}
    assert "other" in {token.origin for token in trace.tokens}


# --- through the engine ---------------------------------------------------------------------------------------------


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "hybrid", "tree_hybrid", "none"])
@pytest.mark.parametrize("law", ["target", "augmented"])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 3, "top_p": 0.9, "repetition_penalty": 1.2}])
def test_the_answer_is_the_same_with_and_without(shared, proposer, law, sampling):
    options = {
        "sampling": SamplingParams(max_new_tokens=24, **sampling),
        "speculation": SpeculationConfig(law=law, proposer=proposer),
    }
    plain = shared.generate(PROMPT, **options)
    recorded = shared.generate(PROMPT, trace=True, **options)
    assert recorded.token_ids == plain.token_ids and recorded.text == plain.text
    assert plain.trace is None
    trace = recorded.trace
    assert tuple(token.token_id for token in trace.tokens) == recorded.token_ids
    shown = "".join(token.text for token in trace.tokens)
    # A token that begins a character is shown as such; the answer ends with its last whole character.
    assert shown.startswith(recorded.text) and set(shown[len(recorded.text) :]) <= {"\ufffd"}
    assert trace.question == "which words?" and trace.contexts == (DOCUMENT,)
    assert trace.settings["law"] == law and trace.settings["max_new_tokens"] == 24


def test_nothing_is_recorded_unless_asked_for(shared, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a round was put together for an observer that is not there")

    monkeypatch.setattr(loop, "Round", refuse)
    assert shared.generate(PROMPT).trace is None
    with pytest.raises(AssertionError, match="put together"):
        shared.generate(PROMPT, trace=True)


def test_a_trace_is_no_part_of_the_json(shared):
    completion = shared.generate(PROMPT, trace=True)
    assert "trace" not in completion.model_dump() and "trace" not in completion.model_dump_json()
    again = Completion.model_validate_json(completion.model_dump_json())
    assert again.trace is None and again.text == completion.text
    assert type(completion.trace).model_validate_json(completion.trace.model_dump_json()) == completion.trace


def test_a_stream_shows_its_trace_while_it_runs(shared):
    with shared.stream(PROMPT, trace=True) as stream:
        assert stream.trace.tokens == ()
        first = next(stream)
        while len(stream._tracer.trace().tokens) == len(first.token_ids):  # the engine runs ahead of its reader
            time.sleep(0.001)
        assert tuple(token.token_id for token in stream.trace.tokens) == first.token_ids
        rest = [token for chunk in stream for token in chunk.token_ids]
        assert tuple(token.token_id for token in stream.trace.tokens) == (*first.token_ids, *rest)
    with shared.stream(PROMPT) as stream:
        next(stream)
        assert stream.trace is None


def test_the_asynchronous_form_records_too(shared):
    completion = asyncio.run(shared.agenerate(PROMPT, trace=True))
    assert tuple(token.token_id for token in completion.trace.tokens) == completion.token_ids


def test_structured_output_and_its_forced_tokens(shared):
    pytest.importorskip("llguidance")
    sampling = SamplingParams(max_new_tokens=40, structured=StructuredOutput(regex="(yes|no), because [a-z]{4}"))
    completion = shared.generate(PROMPT, sampling=sampling, trace=True)
    assert "".join(token.text for token in completion.trace.tokens) == completion.text
    assert any(token.token_id != token.top_p[0].token_id for token in completion.trace.tokens)


@pytest.mark.parametrize("tokens", [40, 41, 42, 43])  # some end within a character
def test_a_smaller_drafter_and_tokens_that_are_parts_of_characters(tokens):
    own = RapidEngine.from_models(
        tiny_model("llama", 0),
        byte_tokenizer(),
        drafter_model=tiny_model("llama", 1, num_hidden_layers=1),
        embedder=HashEmbedder(),
        compression=SMALL,
    )
    prompt = Prompt.from_context("größer als 東京 🙂 " * 60, "was?")
    completion = own.generate(
        prompt, sampling=SamplingParams(max_new_tokens=tokens, temperature=2.0, seed=1), trace=True
    )
    assert completion.stats.law == "target"
    assert "".join(token.text for token in completion.trace.tokens) == completion.text
    assert any(token.text == "" for token in completion.trace.tokens)
