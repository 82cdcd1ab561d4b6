"""What is learnt from each family's template."""

import pytest

from rapid_integrations import ConfigurationError
from tests.toys.call_formats import learn
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
