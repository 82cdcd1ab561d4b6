"""Speculative RAG on tiny models: what is drafted, how drafts are scored, and which one is chosen."""

import asyncio

import pytest

from rapid_integrations import Prompt, PromptError, RapidEngine, SamplingParams
from rapid_integrations.engine.speculative_rag import ScoredDraft, SpeculativeRAG, SpeculativeRAGConfig
from rapid_integrations.engine.speculative_rag.drafting import ALONE
from rapid_integrations.errors import ConfigurationError
from tests.toys.embedder import HashEmbedder
from tests.toys.engines import SMALL
from tests.toys.models import byte_tokenizer, tiny_model, words

PASSAGES = [words(seed, 8) for seed in range(6)]
QUESTION = "which words?"
SHORT = SamplingParams(max_new_tokens=6)


def prompt_of(text):
    return Prompt.without_context(f"Read: {text}\nQuestion: {QUESTION}\nAnswer:", QUESTION)


@pytest.fixture(scope="module", params=[False, True], ids=["drafts for itself", "another drafter"])
def own(request):
    other = {"drafter_model": tiny_model("llama", 1)} if request.param else {}
    settings = {"embedder": HashEmbedder(), "compression": SMALL, "sampling": SHORT, **other}
    with RapidEngine.from_models(tiny_model("llama", 0), byte_tokenizer(), **settings) as own:
        yield own


def test_the_drafter_answers_from_each_subset(own):
    config = SpeculativeRAGConfig(drafts=3, passages=2)
    found = SpeculativeRAG(own, config).answer(PASSAGES, QUESTION, prompt_of)
    alone = own if own.self_speculation else own.alone(own.drafter)
    assert len({draft.passages for draft in found.drafts}) == 3
    for draft in found.drafts:
        text = "\n\n".join(PASSAGES[place] for place in draft.passages)
        answer = alone.generate(prompt_of(text), speculation=ALONE)
        assert draft.completion.text == answer.text and draft.rationale == text
        assert 0 < draft.draft < 1 and 0 < draft.self_contained < 1 and 0 < draft.self_reflected < 1
    assert found.best.score == max(draft.score for draft in found.drafts)
    assert found.text == found.drafts[found.chosen].completion.text


def test_a_written_rationale_is_read_before_the_answer(own):
    config = SpeculativeRAGConfig(drafts=2, passages=1, rationale="written", rationale_tokens=8)
    read = []

    def recording(text):
        read.append(text)
        return prompt_of(text)

    found = SpeculativeRAG(own, config).answer(PASSAGES, QUESTION, recording)
    assert len(read) == 2
    for draft in found.drafts:
        (place,) = draft.passages
        written = next(text for text in read if text.startswith(PASSAGES[place])).removeprefix(PASSAGES[place])
        assert draft.rationale == (written.strip() or PASSAGES[place])
        assert 0 < draft.score < 1


def test_the_settings_of_a_call_are_those_of_its_drafts(own):
    found = SpeculativeRAG(own).answer(PASSAGES, QUESTION, prompt_of, sampling=SamplingParams(max_new_tokens=2))
    assert all(len(draft.completion.token_ids) <= 2 for draft in found.drafts)


def test_blank_passages_are_left_out(own):
    found = SpeculativeRAG(own).answer(["", PASSAGES[0], " \n", PASSAGES[1]], QUESTION, prompt_of)
    assert [draft.passages for draft in found.drafts] == [(1, 3)]
    with pytest.raises(PromptError, match="2 were given, and none holds any text"):
        SpeculativeRAG(own).answer(["", " "], QUESTION, prompt_of)


def test_asynchronously(own):
    drafting = SpeculativeRAG(own, SpeculativeRAGConfig(drafts=2))
    found = asyncio.run(drafting.aanswer(PASSAGES, QUESTION, prompt_of))
    assert found.text == drafting.answer(PASSAGES, QUESTION, prompt_of).text


def test_an_error_of_a_draft_is_raised(own):
    with pytest.raises(ConfigurationError, match="logit_bias"):
        SpeculativeRAG(own).answer(PASSAGES, QUESTION, prompt_of, sampling=SamplingParams(logit_bias=((999, 1.0),)))


def test_the_product_decides():
    one = ScoredDraft((0,), "", None, 0.5, 0.5, 0.5)
    assert one.score == 0.125 and ScoredDraft((1,), "", None, 0.0, 1.0, 1.0).score == 0.0


@pytest.mark.parametrize(
    ("passages", "options", "error", "words"),
    [
        ("one text", {}, PromptError, "give a list of texts"),
        (PASSAGES, {"temprature": 1.0}, ConfigurationError, "temprature"),
        (PASSAGES, {"speculation": ALONE}, ConfigurationError, "takes no speculation"),
    ],
)
def test_what_it_does_not_take_is_refused(own, passages, options, error, words):
    with pytest.raises(error, match=words):
        SpeculativeRAG(own).answer(passages, QUESTION, prompt_of, **options)
