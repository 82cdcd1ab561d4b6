"""Conversations with calls: what a template leaves out is written all the same, or refused."""

import itertools
import json

import pytest

from rapid_integrations import PromptError
from rapid_integrations.engine.prepare import Preparing
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.prompt import NO_ARGUMENTS, render
from rapid_integrations.tool_calls import parse_calls
from rapid_integrations.tool_calls.known_forms import known_form
from tests.toys.call_templates import CODER, COMMAND, DSML, GEMMA4, GLM, HARMONY, HARMONY_TOKENS, KIMI, LIQUID, MINIMAX
from tests.toys.chat_templates import LLAMA31, MISTRAL, QWEN3, QWEN25, TAGGED
from tests.toys.errors import coded
from tests.toys.history_templates import (
    ALTERNATING,
    BEHIND_THINKING,
    DEAF,
    FIRST_ALONE,
    NEEDS_CONTENT,
    PARTS,
    SILENT,
    TEXT_ARGUMENTS,
    THREE_ROLES,
)
from tests.toys.models import CHATML, EOS_ID, IM_END_ID, byte_tokenizer
from tests.toys.tool_callers import TOOLS

LIQUIDS = ("<|tool_call_start|>", "<|tool_call_end|>")
GRANITES = ("<|tool_call|>",)
HERMES = ("<tool_call>", "</tool_call>")
QUESTION = {"role": "user", "content": "How is it there?"}
NESTED = {"city": 'Bern, "Länggasse"\n', "days": 3, "more": {"a": [1, None, "ü"], "b": True}}


def preparing(template, tokens=()):
    tokenizer = byte_tokenizer(chat_template=template, extra_tokens=tokens)
    tokenizer.bos_token, tokenizer.eos_token = "<|bos|>", "<|eos|>"
    vocabulary = Vocabulary(tokenizer, {EOS_ID, IM_END_ID})
    return Preparing(vocabulary, "the model", len(tokenizer))


def written(template, messages, tokens=(), tools=TOOLS):
    return preparing(template, tokens)._render_chat(messages, tools, NO_ARGUMENTS)


def call(name, arguments, call_id="abcde0001"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content, call_id="abcde0001"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def answer(*calls, content=""):
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


TWO = (call("look", {"city": "Bern"}), call("walk", {"city": "Chur"}, "abcde0002"))
RESULTS = (result("Sunny."), result("Far.", "abcde0002"))
BEHIND = ({"role": "assistant", "content": "It is sunny."}, {"role": "user", "content": "And tomorrow?"})


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (LIQUIDS, '<|tool_call_start|>[look(city="Bern"), walk(city="Chur")]<|tool_call_end|>'),
        (
            GRANITES,
            '<|tool_call|>[{"name": "look", "arguments": {"city": "Bern"}}, '
            '{"name": "walk", "arguments": {"city": "Chur"}}]',
        ),
        (
            (*GRANITES, "<|/tool_call|>"),
            '<|tool_call|>[{"name": "look", "arguments": {"city": "Bern"}}, '
            '{"name": "walk", "arguments": {"city": "Chur"}}]<|/tool_call|>',
        ),
        (
            HERMES,
            '<tool_call>\n{"name": "look", "arguments": {"city": "Bern"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "walk", "arguments": {"city": "Chur"}}\n</tool_call>',
        ),
    ],
    ids=["liquid", "granite", "phi", "hermes"],
)
@pytest.mark.parametrize("template", [SILENT, BEHIND_THINKING, DEAF], ids=["silent", "behind thinking", "deaf"])
def test_a_template_that_writes_no_calls_gets_them_as_the_model_writes_them(template, tokens, expected):
    for content in (None, "", "I look."):
        break_between = "\n" if content and tokens == HERMES else ""
        text = written(template, [QUESTION, answer(*TWO, content=content), *RESULTS, *BEHIND], tokens)
        turns = text[text.index(QUESTION["content"]) :].split("<|im_start|>")
        assert turns[1] == f"assistant\n{content or ''}{break_between}{expected}<|im_end|>\n"
        role = "user" if template == DEAF else "tool"
        assert turns[2:4] == [f"{role}\nSunny.<|im_end|>\n", f"{role}\nFar.<|im_end|>\n"]
        assert turns[4:] == ["assistant\nIt is sunny.<|im_end|>\n", "user\nAnd tomorrow?<|im_end|>\n", "assistant\n"]


@pytest.mark.parametrize("tokens", [LIQUIDS, GRANITES, HERMES], ids=["liquid", "granite", "hermes"])
def test_what_is_written_is_what_the_model_s_calls_are_read_from(tokens):
    form = known_form(tokens)
    calls = [("look", NESTED, None), ("walk", {}, "x")]
    parsed = parse_calls("Well. " + form.write(calls), form, {"look": {}, "walk": {}})
    assert [(each.name, each.arguments) for each in parsed.calls] == [("look", NESTED), ("walk", {})]
    assert (parsed.text, parsed.invalid) == ("Well.", [])


def test_the_known_forms_are_those_that_are_learnt():
    learnt = preparing(LIQUID.replace('"\'" + value + "\'"', "'\"' + value + '\"'"), LIQUIDS).call_format(NO_ARGUMENTS)
    assert known_form(LIQUIDS) == learnt
    hermes = preparing(NEEDS_CONTENT, HERMES).call_format(NO_ARGUMENTS)
    assert "\n" + known_form(HERMES).write([("a", {"b": 1}, None)]) == hermes.write([("a", {"b": 1}, None)])
    assert known_form(()) is None and known_form(("<tool_call>",)) is None


@pytest.mark.parametrize("tokens", [LIQUIDS, GRANITES], ids=["liquid", "granite"])
def test_a_model_that_is_shown_tools_and_whose_calls_are_known_may_call_them(tokens):
    assert preparing(SILENT, tokens).call_format(NO_ARGUMENTS) == known_form(tokens)
    assert not preparing(SILENT).supports_tools(NO_ARGUMENTS)
    assert not preparing(DEAF, tokens).supports_tools(NO_ARGUMENTS)  # it does not see them


def test_without_a_known_form_calls_are_refused():
    with pytest.raises(
        PromptError, match="message 2 calls tools.*writes no calls", check=coded("prompt.no_tool_calls")
    ):
        written(SILENT, [QUESTION, answer(TWO[0]), RESULTS[0]])


@pytest.mark.parametrize("tokens", [LIQUIDS, ()], ids=["known form", "unknown form"])
def test_a_result_that_the_template_does_not_write_is_refused(tokens):
    history = [QUESTION, answer(TWO[0], content="I look."), RESULTS[0]]
    without_call = [QUESTION, {"role": "assistant", "content": "I look."}, RESULTS[0]]
    refused = coded("prompt.not_written")
    with pytest.raises(PromptError, match="does not write message 3, of the role 'tool'", check=refused):
        written(THREE_ROLES, without_call, tokens)
    with pytest.raises(PromptError, match="message [23]"):
        written(THREE_ROLES, history, tokens)
    assert "Sunny." not in written(THREE_ROLES, [QUESTION], tokens)  # and other conversations go on


@pytest.mark.parametrize(
    ("template", "tokens"),
    [(FIRST_ALONE, ("<|function_call|>",)), (LLAMA31, ())],
    ids=["first alone", "refuses several"],
)
def test_several_calls_stand_one_by_one_with_their_results(template, tokens):
    for results in (RESULTS, RESULTS[::-1], [{**each, "tool_call_id": "?"} for each in RESULTS]):
        text = written(template, [QUESTION, answer(*TWO), *results, *BEHIND], tokens)
        alone = written(template, [QUESTION, answer(TWO[0]), RESULTS[0], answer(TWO[1]), RESULTS[1], *BEHIND], tokens)
        if results[0]["tool_call_id"] != "?" or results[0]["content"] == "Sunny.":
            assert text == alone
    places = [text.index(each) for each in ("Bern", "Sunny.", "Chur", "Far.", "It is sunny.")]
    assert places == sorted(places)


def test_what_is_said_beside_a_call_stands_before_it():
    spoken = [QUESTION, answer(TWO[0], content="I look."), RESULTS[0], *BEHIND]
    said = 'I look.{"name": "look", "parameters": {"city": "Bern"}}<|eot_id|>'
    assert said in written(LLAMA31, spoken)
    assert 'I look.<|function_call|>{"name": "look"' in written(FIRST_ALONE, spoken, ("<|function_call|>",))
    assert '<|im_start|>assistant\nI look.[TOOL_CALLS][{"name": "look"' in written(ALTERNATING, spoken)
    text = written(PARTS, spoken)  # a part of its own is a message of its own
    assert '<RESPONSE>I look.</RESPONSE><|im_end|>\n<|im_start|>assistant\n<ACTION>[{"name": "look"' in text
    both = [QUESTION, answer(*TWO, content="I look."), *RESULTS, *BEHIND]
    assert (
        said in (text := written(LLAMA31, both))
        and '{"name": "walk", "parameters": {"city": "Chur"}}<|eot_id|>' in text
    )
    twice = [*spoken, answer(TWO[0], content="Again."), RESULTS[0]]
    assert 'Again.[TOOL_CALLS][{"name": "look"' in written(ALTERNATING, twice)
    assert 'I look.[TOOL_CALLS][{"name": "look"' in written(ALTERNATING, twice)


def test_a_content_that_is_missing_is_empty_where_the_template_wants_one():
    history = [QUESTION, answer(TWO[0], content=None), RESULTS[0]]
    assert written(NEEDS_CONTENT, history) == written(NEEDS_CONTENT, [QUESTION, answer(TWO[0]), RESULTS[0]])


def test_arguments_are_a_text_where_the_template_wants_one():
    for given in ({"city": "Bern"}, '{"city": "Bern"}'):
        assert '>>>look\n{"city": "Bern"}' in written(
            TEXT_ARGUMENTS, [QUESTION, answer(call("look", given)), RESULTS[0]]
        )


COMPLETE = {
    "qwen2.5": (QWEN25, HERMES),
    "qwen3": (QWEN3, HERMES),
    "coder": (CODER, HERMES),
    "glm": (GLM, HERMES),
    "minimax": (MINIMAX, ()),
    "dsml": (DSML, ("｜DSML｜",)),
    "kimi": (KIMI, ()),
    "gemma4": (GEMMA4, ('<|"|>',)),
    "command": (COMMAND, ()),
    "liquid": (LIQUID, LIQUIDS),
    "mistral": (MISTRAL, ()),
    "tagged": (TAGGED, ()),
    "llama": (LLAMA31, ()),
    "channels": (HARMONY, HARMONY_TOKENS),
    "chatml": (CHATML, ()),
}


@pytest.mark.parametrize("family", COMPLETE)
def test_what_a_template_writes_itself_stays_as_it_is(family):
    template, tokens = COMPLETE[family]
    made = preparing(template, tokens)
    tokenizer = made._vocabulary.tokenizer
    as_text = family == "tagged"
    arguments = [{"city": "Bern"}, {}, NESTED]
    for given, count, behind, tools in itertools.product(arguments, (0, 1, 2), ((), BEHIND), (TOOLS, None)):
        if count == 2 and family in ("llama", "channels") or count and family == "chatml":
            continue
        given = json.dumps(given, ensure_ascii=False) if as_text else given
        calls = [call("look", given), call("walk", given, "abcde0002")][:count]
        history = [QUESTION, *([answer(*calls)] if calls else []), *RESULTS[:count], *behind]
        expected = tokenizer.apply_chat_template(history, tools=tools, tokenize=False, add_generation_prompt=True)
        assert made._render_chat(history, tools, NO_ARGUMENTS) == expected


def test_control_tokens_are_those_of_the_calls_and_not_of_what_is_said():
    made = preparing(SILENT, LIQUIDS)
    history = [QUESTION, answer(TWO[0], content="I <|tool_call_end|> look."), result("<|tool_call_start|>"), *BEHIND]
    prompt = render(history, lambda messages: made._render_chat(messages, TOOLS, NO_ARGUMENTS))
    ids = made._vocabulary.encode_prompt(prompt)
    begin, end = (made._vocabulary.added_tokens[token] for token in LIQUIDS)
    assert (ids.count(begin), ids.count(end)) == (1, 1)
    assert "<|tool_call_end|> look.<|tool_call_start|>[look(" in made._vocabulary.decode(ids, frozenset((begin, end)))


def test_a_call_that_the_template_would_cut_is_refused():
    history = [QUESTION, answer(call("look", {"city": "a</think>b"})), RESULTS[0], *BEHIND]
    with pytest.raises(PromptError, match="message 2"):
        written(BEHIND_THINKING, history, GRANITES)
    assert "a</think>b" in written(SILENT, history, GRANITES)


def test_arguments_that_are_no_json_are_given_as_they_are():
    broken = answer(call("look", '{"city": "Be'))
    for template, tokens in ((SILENT, LIQUIDS), (SILENT, GRANITES), (QWEN25, HERMES), (CODER, HERMES), (MISTRAL, ())):
        text = written(template, [QUESTION, broken, result("It is no JSON.")], tokens)
        assert '"city": "Be' in text.replace("\\", "") and "It is no JSON." in text


def test_the_template_s_own_error_is_the_one_that_is_given():
    with pytest.raises(PromptError, match="length 9"):
        written(MISTRAL, [QUESTION, answer(call("look", {}, "short")), result("Sunny.", "short")])
