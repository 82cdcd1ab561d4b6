"""Servers of other engines as drafters: real HTTP servers that answer as vLLM and llama.cpp do, over a small model."""

import math

import pytest
import torch

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from rapid_integrations import (
    ConfigurationError,
    RapidEngine,
    RemoteDrafter,
    RemoteError,
    SamplingParams,
    SpeculationConfig,
    VocabularyMismatchError,
)
from rapid_integrations.sampling import Law
from rapid_integrations.server.remote.openai_back_end import OpenAIBackEnd, _choice
from tests.toys.errors import coded
from tests.toys.foreign_servers import Writer, routes
from tests.toys.light_model import light_model, light_weights
from tests.toys.loopback import served
from tests.toys.models import byte_tokenizer
from tests.toys.remote_drafters import DRAFTER, NEW, PROMPT, TARGET, drafting_here, drafting_there, model

KINDS = [("vllm", "openai"), ("llama.cpp", "openai"), ("sglang", "sglang")]


@pytest.fixture(scope="module")
def writer():
    return Writer(light_weights(DRAFTER), model().vocabulary)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kinds: kinds[0])
def drafter(request, writer):
    server, kind = request.param
    with served(routes(writer, server)) as url:
        yield RemoteDrafter(f"{url}/v1" if kind == "openai" else url, kind)


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("proposer", ["drafter", "prompt_lookup", "none"])
@pytest.mark.parametrize("law", ["augmented", "target"])
def test_greedy_answers_are_those_of_a_drafter_cut_to_20(drafter, law, proposer):
    options = {
        "sampling": SamplingParams(max_new_tokens=NEW, frequency_penalty=0.3),
        "speculation": SpeculationConfig(law=law, proposer=proposer, draft_length=3, eta=8.0),
    }
    with drafting_here(20) as here, drafting_there(drafter) as there:
        mine, theirs = here.generate(PROMPT, **options), there.generate(PROMPT, **options)
    assert theirs.token_ids == mine.token_ids
    if theirs.stats.remote is not None:
        assert theirs.stats.remote.best == 20 and 0.0 < theirs.stats.remote.distance < 1.0


def test_samples_of_the_joint_law(drafter):
    # A server draws by itself: its tokens are point masses, and a draft of them ends no token earlier.
    options = {
        "sampling": SamplingParams(max_new_tokens=NEW, temperature=0.8, seed=1),
        "speculation": SpeculationConfig(law="augmented", proposer="drafter", draft_length=3),
    }
    with drafting_there(drafter) as engine:
        found = engine.generate(PROMPT, **options)
    assert found.stats.drafted_tokens > 0 and found.stats.remote.calls == found.stats.rounds


def test_a_draft_is_scored_behind_a_prompt_that_the_server_knows(writer, drafter):
    writer.asked.clear()
    with drafting_there(drafter, draft_lm=model(TARGET)) as engine:
        engine.generate(
            PROMPT,
            sampling=SamplingParams(max_new_tokens=NEW),
            speculation=SpeculationConfig(law="augmented", proposer="draft_lm", draft_length=3),
        )
    first, *others = writer.asked
    prompts = first.get("prompt") or first["input_ids"]
    for body in others:
        for ids in body.get("prompt") or body["input_ids"]:
            assert ids[: len(prompts[0])] == prompts[0]
    if "prompt" in first:
        assert {each["max_tokens"] for each in others} == {1}
        assert max(len(each["prompt"]) for each in others) == 4  # a draft of three, and the position behind it
    else:
        assert all(len(each["input_ids"]) == 1 for each in others)


def test_the_bodies_switch_off_what_a_server_would_do_by_itself(writer, drafter):
    with drafting_there(drafter) as engine:
        engine.generate(PROMPT, sampling=SamplingParams(max_new_tokens=2))
    body = writer.asked[-1]
    said = body if "prompt" in body else body["sampling_params"][0]
    assert (said["top_k"], said["top_p"], said["min_p"], said["repetition_penalty"]) == (20, 1.0, 0.0, 1.0)
    assert said["ignore_eos"] is True


def test_a_repetition_penalty_needs_logits(drafter):
    with drafting_there(drafter) as engine, pytest.raises(ConfigurationError, match="probabilities"):
        engine.generate(PROMPT, sampling=SamplingParams(max_new_tokens=2, repetition_penalty=1.2))


def test_another_tokenizer_is_refused(drafter):
    other = byte_tokenizer(merges=[("t", "h")])
    with pytest.raises(VocabularyMismatchError, match="split"):
        RapidEngine(light_model(tokenizer=other), drafter)


def test_more_tokens_than_the_server_allows(writer):
    with served(routes(writer, "vllm")) as url:
        with drafting_there(RemoteDrafter(url, "openai", best=30)) as engine:
            with pytest.raises(RemoteError, match="greater than max allowed: 20", check=coded("remote.failed")):
                engine.generate(PROMPT)


def test_a_model_by_its_name(writer):
    with served(routes(writer, "vllm")) as url:
        with drafting_there(RemoteDrafter(url, "openai", model="tiny")) as engine:
            assert engine.drafter.name == f"tiny at {url}" and engine.drafter.context_window == 2048
        with pytest.raises(RemoteError, match="no model 'huge'"):
            drafting_there(RemoteDrafter(url, "openai", model="huge"))


def test_a_server_that_does_not_tokenize_is_taken_with_a_warning(writer):
    some = [each for each in routes(writer, "vllm") if each.path != "/tokenize"]
    with served(some) as url, pytest.warns(RuntimeWarning, match="was not compared"):
        drafting_there(RemoteDrafter(url, "openai")).close()


def test_tokens_by_their_text_are_refused(writer):
    # As OpenAI's own server and llama-cpp-python's name them: two tokens may have one text.
    found = {"index": 0, "logprobs": {"tokens": ["a"], "top_logprobs": [{"a": -0.1}]}}
    with pytest.raises(RemoteError, match="return_tokens_as_token_ids"):
        _choice(found, 0, 0)


def test_rows_are_a_distribution_over_the_best(writer, drafter):
    engine = drafting_there(drafter)
    back_end = engine.drafter._back_end
    prompt = [1, 2, 3, 4]
    text = back_end.text(prompt, 8, Law("target"), 260, frozenset())
    text.open().result()
    got = text.read([], [7, 8], 0, 2, []).result()
    expected = writer.logprobs([*prompt, 7, 8, *got.written])[len(prompt) - 1 :]
    assert len(got.rows) == len(got.outside) == 5 and len(got.written) == 2
    for row, full, outside in zip(got.rows, expected, got.outside, strict=True):
        best = full.topk(20)
        assert row.isfinite().sum() == 20
        torch.testing.assert_close(row[best.indices], best.values, atol=1e-5, rtol=1e-5)
        assert math.isclose(outside, 1 - float(best.values.exp().sum()), abs_tol=1e-4)
    again = text.read([7], [8], 1, 0, []).result()  # the row behind 7 is known
    torch.testing.assert_close(again.rows[-1], got.rows[2])
    assert len(again.rows) == 1
    text.close()
    engine.close()


def test_what_several_texts_want_goes_together(writer):
    with served(routes(writer, "vllm")) as url:
        engine = drafting_there(RemoteDrafter(url, "openai"))
        back_end = engine.drafter._back_end
        assert isinstance(back_end, OpenAIBackEnd)
        texts = [back_end.text([1, 2, place], 8, Law("target"), 260, frozenset()) for place in range(4)]
        for future in [text.open() for text in texts]:
            future.result()
        writer.asked.clear()
        for future in [text.read([], [5], 0, 0, []) for text in texts]:
            assert len(future.result().rows) == 2
        assert sum(len(body["prompt"]) for body in writer.asked) == 8 and len(writer.asked) <= 3
        engine.close()
