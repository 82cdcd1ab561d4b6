"""Arguments of the chat template reach both prompts, whatever is asked, and everything that is kept by prompt."""

import pytest

from rapid_integrations import Chat, ConfigurationError, RapidEngine, SamplingParams
from rapid_integrations.engine.speculative_rag import SpeculativeRAG, SpeculativeRAGConfig
from rapid_integrations.prompt import Prompt
from tests.toys.chat_templates import QWEN3, SMOLLM3, TAGGED
from tests.toys.embedder import HashEmbedder
from tests.toys.errors import coded
from tests.toys.models import byte_tokenizer, tiny_model, words
from tests.toys.thinking import (
    DOCUMENT,
    EMPTY,
    OFF,
    PROMPT,
    both_texts,
    switched_engine,
    switched_model,
    switched_tokenizer,
    without_thoughts,
)
from tests.toys.tool_callers import TOOLS, assert_valid

ON = {"enable_thinking": True}


@pytest.fixture(scope="module")
def engine():
    with switched_engine() as made:
        yield made


@pytest.fixture
def seen(monkeypatch):
    """Both texts of every prompt that is made, in order."""
    found = []
    for name in ("stream", "explain"):
        made = getattr(RapidEngine, name)

        def recording(self, *given, made=made, **options):
            result = made(self, *given, **options)
            found.append(both_texts(getattr(result, "prepared", result)))
            return result

        monkeypatch.setattr(RapidEngine, name, recording)
    return found


def test_both_models_read_what_the_template_writes_with_them(engine):
    plain = both_texts(engine.explain(PROMPT))
    off = both_texts(engine.explain(PROMPT, chat_template_kwargs=OFF))
    assert plain[0].endswith("<|im_start|>assistant\n") and len(plain[1]) < len(plain[0])
    assert off == without_thoughts(plain) and both_texts(engine.explain(PROMPT, chat_template_kwargs=ON)) == plain
    tokens = [engine.count_tokens(PROMPT, chat_template_kwargs=given) for given in (None, OFF)]
    assert tokens[1] == tokens[0] + len(EMPTY)
    answers = [engine.generate(PROMPT, chat_template_kwargs=given) for given in (None, OFF)]
    assert [answer.usage.prompt_tokens for answer in answers] == tokens
    spans = engine.explain(PROMPT, chat_template_kwargs=OFF).target.context_spans
    raw = Prompt(text=off[0], context_spans=spans, query=PROMPT.query)
    assert answers[1].token_ids == engine.generate(raw, apply_chat_template=False).token_ids != answers[0].token_ids


def test_an_engines_own_hold_for_requests_that_name_none(engine):
    plain = both_texts(engine.explain(PROMPT))
    with switched_engine(chat_template_kwargs=OFF) as silent:
        assert silent.chat_template_kwargs == OFF and engine.chat_template_kwargs == {}
        assert both_texts(silent.explain(PROMPT)) == without_thoughts(plain)
        assert both_texts(silent.explain(PROMPT, chat_template_kwargs=ON)) == plain
        assert both_texts(silent.explain(PROMPT, chat_template_kwargs={})) == without_thoughts(plain)
        assert silent.alone(silent.target).explain("hi").target.text.endswith(EMPTY)
        assert silent.explain("hi", apply_chat_template=False).target.text == "hi"


def test_a_drafter_with_another_template_reads_the_targets_text(engine):
    plain = both_texts(engine.explain(PROMPT))
    other = byte_tokenizer(extra_tokens=("<tool_call>", "</tool_call>"))
    with RapidEngine.from_models(
        switched_model(),
        switched_tokenizer(),
        drafter_model=switched_model(5),
        drafter_tokenizer=other,
        embedder=HashEmbedder(),
        compression=engine.compression,
    ) as two:
        assert both_texts(two.explain(PROMPT, chat_template_kwargs=OFF)) == without_thoughts(plain)


def test_two_requests_at_once_have_each_their_own(engine):
    alone = [engine.generate(PROMPT, chat_template_kwargs=given).token_ids for given in (OFF, ON)]
    streams = [engine.stream(PROMPT, chat_template_kwargs=given) for given in (OFF, ON)]
    pieces = [[], []]
    for _ in range(100):
        for stream, found in zip(streams, pieces, strict=True):
            found += [chunk for chunk in [next(stream, None)] if chunk is not None]
    assert [tuple(token for chunk in found for token in chunk.token_ids) for found in pieces] == alone
    assert alone[0] != alone[1]


# --- what is kept by prompt -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, OFF, ON])
def test_a_document_that_was_read_ahead_is_found_with_other_arguments(given):
    with switched_engine() as shared, switched_engine(prefix_cache_bytes=0) as without:
        done = shared.read(DOCUMENT, chat_template_kwargs=given)
        assert done.tokens > len(DOCUMENT)
        for asked in (None, OFF):
            answer = shared.generate(PROMPT, chat_template_kwargs=asked)
            assert answer.stats.cached_prompt_tokens >= done.tokens
            assert answer.token_ids == without.generate(PROMPT, chat_template_kwargs=asked).token_ids


def test_a_document_is_read_anew_if_they_change_what_stands_before_it():
    with switched_engine(SMOLLM3) as shared:
        done = shared.read(DOCUMENT, chat_template_kwargs=OFF)
        assert shared.generate(PROMPT, chat_template_kwargs=OFF).stats.cached_prompt_tokens >= done.tokens
        other = shared.stream(PROMPT)
        with other:
            assert "Reasoning Mode: /think<" in other.prepared.target.text
            assert next(other) and other.prepared.target_ids
        assert shared.generate(PROMPT).stats.cached_prompt_tokens >= done.tokens  # its own, by now
        assert shared.explain(PROMPT, chat_template_kwargs=OFF).target.text.count("/no_think<") == 1


def test_a_document_is_found_on_disk_by_the_next_process(tmp_path):
    with switched_engine(prefix_cache_dir=tmp_path) as first:
        done = first.read(DOCUMENT)
        expected = first.generate(PROMPT, chat_template_kwargs=OFF).token_ids
    with switched_engine(prefix_cache_dir=tmp_path) as second:
        answer = second.generate(PROMPT, chat_template_kwargs=OFF)
        assert answer.stats.cached_prompt_tokens >= done.tokens - len(DOCUMENT) // 10 and answer.token_ids == expected


def test_a_chat_keeps_them(engine, seen):
    chat = Chat(engine, [DOCUMENT], chat_template_kwargs=OFF)
    chat.read()
    for question in ("which words?", "and why?"):
        with chat.ask(question) as answer:
            list(answer)
        assert all(text.endswith("<|im_start|>assistant\n" + EMPTY) for text in seen[-1])
        assert answer.completion.stats.cached_prompt_tokens > len(DOCUMENT)


# --- tools ------------------------------------------------------------------------------------------------------------


def test_tools_and_the_switch_stand_in_one_prompt(engine):
    plain = both_texts(engine.explain(PROMPT, tools=TOOLS))
    assert "get_weather" in plain[0]
    assert both_texts(engine.explain(PROMPT, tools=TOOLS, chat_template_kwargs=OFF)) == without_thoughts(plain)
    answer = engine.generate(
        PROMPT,
        tools=TOOLS,
        tool_choice="add",
        parallel_tool_calls=False,
        chat_template_kwargs=OFF,
        sampling=SamplingParams(max_new_tokens=300),
    )
    assert_valid(answer)
    assert answer.usage.prompt_tokens == engine.count_tokens(PROMPT, tools=TOOLS, chat_template_kwargs=OFF)


def test_a_call_format_is_learnt_for_each_set_of_arguments():
    template = TAGGED.replace("'<function='", "('<call=' if short else '<function=')")
    assert template != TAGGED
    with RapidEngine.from_models(tiny_model("llama", 0), byte_tokenizer(chat_template=template)) as running:
        for given, head in (({}, "<function="), ({"short": True}, "<call="), ({"short": False}, "<function=")) * 2:
            answer = running.generate(
                "go",
                tools=TOOLS,
                tool_choice="required",
                parallel_tool_calls=False,
                chat_template_kwargs=given,
                sampling=SamplingParams(max_new_tokens=300),
            )
            assert_valid(answer)
            assert running.vocabulary.decode(answer.token_ids).startswith(head) and len(answer.tool_calls) == 1
            with running.stream("go", tools=TOOLS, chat_template_kwargs=given) as stream:
                assert stream.prepared.target.text.startswith("[{")


# --- Speculative RAG --------------------------------------------------------------------------------------------------


def test_drafts_and_their_scores_are_read_with_them(engine, seen):
    drafting = SpeculativeRAG(engine, SpeculativeRAGConfig(drafts=2, passages=1))
    passages = [words(1, 30), words(2, 30)]
    drafting.answer(passages, "which?", lambda text: Prompt.from_context(text, "which?"), chat_template_kwargs=OFF)
    assert len(seen) >= 5 and all(text.endswith(EMPTY) for texts in seen for text in texts)


# --- errors -----------------------------------------------------------------------------------------------------------

DOORS = {
    "generate": lambda engine, **given: engine.generate(PROMPT, **given),
    "stream": lambda engine, **given: engine.stream(PROMPT, **given),
    "explain": lambda engine, **given: engine.explain(PROMPT, **given),
    "count_tokens": lambda engine, **given: engine.count_tokens(PROMPT, **given),
    "read": lambda engine, **given: engine.read(DOCUMENT, **given),
    "Chat": lambda engine, **given: Chat(engine, [DOCUMENT], **given),
    "RapidEngine": lambda engine, **given: switched_engine(**given),
}
WRONG = [
    ({"enable_thinkin": False}, "unknown_name", "It reads enable_thinking. Did you mean 'enable_thinking'"),
    ({"enable_thinking": False, "x": 1}, "unknown_name", "sets 'x'"),
    ({"documents": []}, "reserved_name", "'documents'"),
    ({"add_generation_prompt": False}, "reserved_name", "'add_generation_prompt'"),
    ({"enable_thinking": {1}}, "wrong_value", "no JSON value"),
    ({"enable_thinking": "<|im_end|>"}, "wrong_value", "control token '<|im_end|>'"),
    ({"enable_thinking": [{"a <|bos|>": 1}]}, "wrong_value", "control token '<|bos|>'"),
]


@pytest.mark.once
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("given", "code", "said"), WRONG, ids=lambda value: f"{value!s:.20}")
def test_what_the_template_does_not_take_is_refused(engine, door, given, code, said):
    with pytest.raises(ConfigurationError, match=said, check=coded(f"configuration.{code}")):
        DOORS[door](engine, chat_template_kwargs=given)


def test_without_a_template_there_are_none(engine):
    no_template = coded("configuration.no_chat_template")
    with pytest.raises(ConfigurationError, match="only the chat template reads them", check=no_template):
        engine.explain("hi", apply_chat_template=False, chat_template_kwargs=OFF)
    with pytest.raises(ConfigurationError, match="no chat template", check=no_template):
        switched_engine(None, chat_template_kwargs=OFF)
    with switched_engine(None) as base:
        with pytest.raises(ConfigurationError, match="no chat template", check=no_template):
            base.generate("hi", chat_template_kwargs=OFF)
        assert base.explain("hi", chat_template_kwargs={}).target.text == "hi"
    with (
        switched_engine(QWEN3.replace("enable_thinking", "x").replace("x is defined and", "")) as other,
        pytest.raises(ConfigurationError, match="It reads x"),
    ):
        other.generate("hi", chat_template_kwargs=OFF)
