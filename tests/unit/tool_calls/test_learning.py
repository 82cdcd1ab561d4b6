"""What is learnt from each family's template."""

import pytest

from rapid_integrations import ConfigurationError
from rapid_integrations.tool_calls.harmony import HARMONY as FORMAT_OF_CHANNELS
from rapid_integrations.tool_calls.literals import LiteralArguments
from rapid_integrations.tool_calls.tagged import TaggedArguments
from tests.toys.call_formats import learn
from tests.toys.call_templates import (
    CODER,
    COMMAND,
    DEEPSEEK,
    DSML,
    GEMMA4,
    GLM,
    GLM47,
    HARMONY,
    KIMI,
    KIMI_BY_ID,
    LIQUID,
    MINIMAX,
    NAME_FIRST,
    SEED,
    SMALL,
    TYPED,
)
from tests.toys.chat_templates import LLAMA31, MISTRAL, PYTHONIC, QWEN3, QWEN25, TAGGED
from tests.toys.models import CHATML


@pytest.mark.parametrize("template", [QWEN25, QWEN3], ids=["qwen2.5", "qwen3"])
def test_qwen(template):
    found = learn(template)
    assert found.head == '<tool_call>\n{"name": "'
    assert found.middle == '", "arguments": '
    assert found.tail == "}\n</tool_call>"
    assert (found.before, found.between, found.after, found.id_tail) == ("", "\n", "", None)
    assert (found.marker, found.keys, found.closing) == ("<tool_call>\n", ("name", "arguments", None), "\n</tool_call>")
    assert found.parallel and found.marked and not found.arguments_as_text
    assert found.opening == "<tool_call>{"


def test_llama():
    found = learn(LLAMA31)
    assert (found.head, found.middle, found.tail) == ('{"name": "', '", "parameters": ', "}")
    assert (found.before, found.between, found.after, found.id_tail) == ("", "", "", None)
    assert found.keys == ("name", "parameters", None)
    assert not found.parallel and not found.marked
    assert found.opening == '{"name":"'


def test_mistral():
    found = learn(MISTRAL)
    assert (found.before, found.between, found.after) == ("[TOOL_CALLS] [", ", ", "]")
    assert (found.head, found.middle, found.tail, found.id_tail) == (
        '{"name": "',
        '", "arguments": ',
        ', "id": "',
        '"}',
    )
    assert (found.marker, found.keys, found.closing) == ("", ("name", "arguments", "id"), "")
    assert found.parallel and found.marked
    assert found.opening == "[TOOL_CALLS][{"


def test_name_and_arguments_apart():
    found = learn(TAGGED)
    assert (found.head, found.middle, found.tail) == ("<function=", ">", "</function>")
    assert (found.before, found.between, found.after) == ("", "", "")
    assert found.keys is None and found.arguments_as_text and found.parallel and found.marked


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (CHATML, "the same text with tools and without"),
        (PYTHONIC, "does not write a call's arguments as JSON"),
        ("{{ raise_exception('no tools here') if tools else messages[0].content }}", "fails on a message with tools"),
    ],
)
def test_templates_that_cannot(template, said):
    with pytest.raises(ConfigurationError, match="the model cannot call tools") as caught:
        learn(template)
    assert said in str(caught.value)


PARAMETER, KEY_VALUE = "<parameter=", "</arg_key>\n<arg_value>"
NAMED_DSML = '<｜DSML｜parameter name="'
ARGUMENTS = {
    "coder": (CODER, ">\n", TaggedArguments(PARAMETER, ">\n", ">\n", "\n</parameter>\n", "")),
    "glm": (GLM, "\n", TaggedArguments("<arg_key>", KEY_VALUE, KEY_VALUE, "</arg_value>\n", "")),
    "glm4.7": (GLM47, "", TaggedArguments("<arg_key>", *["</arg_key><arg_value>"] * 2, "</arg_value>", "")),
    "minimax": (MINIMAX, '">\n', TaggedArguments('<parameter name="', '">', '">', "</parameter>\n", "")),
    "seed": (SEED, ">\n", TaggedArguments(PARAMETER, ">", ">", "</parameter>\n", "")),
    "dsml": (
        DSML,
        '">\n',
        TaggedArguments(NAMED_DSML, '" string="true">', '" string="false">', "</｜DSML｜parameter>\n", ""),
    ),
    "liquid": (LIQUID, "(", LiteralArguments("=", ", ", "'")),
    "gemma4": (GEMMA4, "{", LiteralArguments(":", ",", '<|"|>', by_name=True)),
}


@pytest.mark.parametrize("family", ARGUMENTS)
def test_arguments_that_are_written_one_by_one(family):
    template, middle, arguments = ARGUMENTS[family]
    found = learn(template)
    assert (found.middle, found.tagged) == (middle, arguments)
    assert found.parallel and found.marked and found.keys is None and not found.arguments_as_text


def test_marks_that_begin_alike_stay_whole():
    """`<｜tool▁calls▁end｜>` and `<｜tool▁call▁begin｜>` may each be one token."""
    found = learn(DEEPSEEK)
    assert (found.before, found.head, found.middle) == (
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
    )
    assert (found.tail, found.between, found.after) == ("<｜tool▁call▁end｜>", "", "<｜tool▁calls▁end｜>")
    minimax = learn(MINIMAX)
    assert (minimax.head, minimax.tail, minimax.after) == ('<invoke name="', "</invoke>\n", "</minimax:tool_call>")


@pytest.mark.parametrize("template", [KIMI, KIMI_BY_ID], ids=["name and number", "id"])
def test_a_call_that_carries_its_number(template):
    found = learn(template)
    assert (found.head, found.middle) == ("<|tool_call_begin|>functions.", ":")
    assert (found.identity, found.identity_tail) == ("number", "<|tool_call_argument_begin|>")
    assert found.parallel and found.identified("look", "3") == "functions.look:3"


def test_an_id_before_the_arguments():
    found = learn(SMALL)
    assert (found.head, found.middle, found.identity) == ("[TOOL_CALLS]", "[CALL_ID]", "id")
    assert (found.identity_tail, found.tail, found.parallel) == ("[ARGS]", "", True)


def test_a_number_before_the_name():
    found = learn(COMMAND)
    assert (found.before, found.head) == ('<|START_ACTION|>[\n    {"tool_call_id": "', '", "tool_name": "')
    assert (found.between, found.tail, found.after) == (',\n    {"tool_call_id": "', "}", "\n]<|END_ACTION|>")
    assert found.numbered and found.parallel and found.marked and found.keys is None


def test_channels_are_known():
    assert learn(HARMONY) is FORMAT_OF_CHANNELS


def test_a_template_that_renders_nothing_without_tools():
    strict = QWEN25.replace("{%- if tools %}", "{%- if tools is none %}{{ raise_exception('x') }}{%- elif tools %}", 1)
    assert learn(strict) == learn(QWEN25)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            QWEN25.replace("{{- '\\n<tool_call>", "{{- '<|im_end|>\\n<tool_call>"),
            "begins a call with the token that ends an answer",
        ),
        (QWEN25.replace("\\n</tool_call>' }}", "\\n</tool_call>' + 'And so on. ' * 30 }}"), "writes more than its end"),
        (NAME_FIRST, "begins a call with nothing but its name"),
        (TYPED, "does not write a call's arguments as JSON, as literals or between marks"),
    ],
)
def test_calls_that_could_be_misread_are_refused(template, said):
    with pytest.raises(ConfigurationError, match="cannot call tools") as caught:
        learn(template)
    assert said in str(caught.value)
