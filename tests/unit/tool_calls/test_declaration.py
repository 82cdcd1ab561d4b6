"""Declarations as people write them: one odd tool breaks no call."""

import json

import pytest

from rapid_integrations import ConfigurationError, SamplingParams
from rapid_integrations.tool_calls.declaration import declaration
from tests.toys.chat_templates import QWEN25
from tests.toys.light_model import light_engine
from tests.toys.models import byte_tokenizer
from tests.toys.tool_callers import TOOLS, ask, engine

SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}


@pytest.mark.parametrize(
    "written",
    [
        {"name": "find", "description": "Finds.", "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}},  # MCP
        {"name": "find", "description": "Finds.", "input_schema": SCHEMA},  # Anthropic
        {"type": "function", "name": "find", "description": "Finds.", "parameters": SCHEMA},  # OpenAI, Responses
        {"name": "find", "description": "Finds.", "parameters": SCHEMA},
    ],
)
def test_every_form_becomes_openais(written):
    function = {"name": "find", "description": "Finds.", "parameters": SCHEMA}
    assert declaration(written) == {"type": "function", "function": function}
    answer = ask(engine("qwen2.5"), "find", tools=[written], parallel=False)
    assert answer.tool_calls[0].name == "find" and set(answer.tool_calls[0].arguments) == {"a"}


ODD = {
    "no parameters": ({}, set()),
    "empty": ({"parameters": {}}, set()),
    "none": ({"parameters": None}, set()),
    "true": ({"parameters": True}, None),
    "false": ({"parameters": False}, set()),
    "a title only": ({"parameters": {"title": "Find"}}, set()),
    "no type": ({"parameters": {"properties": {"a": {"type": "boolean"}}, "required": ["a"]}}, {"a"}),
    "strict": ({"strict": True, "parameters": SCHEMA}, {"a"}),
    "a reference at its top": ({"parameters": {"$ref": "#/$defs/A",
                                               "$defs": {"A": {**SCHEMA, "additionalProperties": False}}}}, {"a"}),
    "a reference to nowhere": ({"parameters": {"type": "object", "properties": {"a": {"$ref": "#/components/X"}},
                                               "required": ["a"]}}, {"a"}),
    "required, not declared": ({"parameters": {"type": "object", "properties": {}, "required": ["a"]}}, {"a"}),
    "null or an object": ({"parameters": {"type": ["object", "null"], "properties": {"a": {"type": "null"}},
                                          "required": ["a"]}}, {"a"}),
    "unsatisfiable": ({"parameters": {"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]}}, None),
    "a file": ({"parameters": {"type": "object", "required": ["a", "b"],
                               "properties": {"a": {"type": "string", "format": "path", "maxLength": 3},
                                              "b": {"type": "array", "uniqueItems": False, "maxItems": 1}}}},
               {"a", "b"}),
    "not": ({"parameters": {"type": "object", "properties": {"a": {"type": "boolean", "not": {"const": 3}}},
                            "required": ["a"]}}, {"a"}),
    "a name of MCP": ({"name": "server/find:all", "parameters": SCHEMA}, {"a"}),
}  # fmt: skip


@pytest.mark.in_turn(2)
@pytest.mark.long
@pytest.mark.parametrize("family", ["qwen2.5", "llama"])
@pytest.mark.parametrize("name", ODD)
def test_an_odd_tool_can_be_called_and_breaks_no_other(name, family):
    given, keys = ODD[name]
    odd = {"type": "function", "function": {"name": "odd", **given}}
    called = odd["function"]["name"]
    running = engine(family)
    other = ask(running, "auto", tools=[*TOOLS, odd], parallel=False, new=2)
    assert other.finish_reason == "length"
    answer = ask(running, called, tools=[*TOOLS, odd], parallel=False, temperature=0.7, seed=1)
    if name == "unsatisfiable":
        assert answer.tool_calls == () and answer.stats.unenforced[0].startswith("odd: all of it: ")
    elif keys is not None and (answer.finish_reason != "length" or answer.tool_calls):
        assert [call.name for call in answer.tool_calls] == [called]
        assert set(answer.tool_calls[0].arguments) == keys


def test_arguments_that_no_grammar_can_hold_to_their_schema_make_an_invalid_call():
    items = {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2, "uniqueItems": True}
    tool = {"type": "function", "function": {"name": "sum", "parameters": {"type": "object", "properties": {"a": items},
                                                                           "required": ["a"]}}}  # fmt: skip
    answer = ask(engine("qwen2.5"), "sum", tools=[tool], parallel=False)
    assert answer.tool_calls == () and answer.finish_reason == "eos" and answer.text == ""
    (invalid,) = answer.invalid_tool_calls
    assert (invalid.name, json.loads(invalid.arguments)) == ("sum", {"a": [1, 1]})
    assert invalid.error == "its arguments do not satisfy their schema: /a: [1, 1] has non-unique elements"
    assert answer.stats.unenforced == ("sum: /properties/a: uniqueItems",)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ({"name": "a\ud800"}, "with a name of at most 128 letters"),
        (
            {"name": "a", "parameters": {"properties": {"\ud800": {}}}},
            "of tool 'a' cannot be used: a name in .*properties",
        ),
        ({"name": "a", "parameters": {"properties": {"b": {"type": "strin"}}}}, "tool 'a' .*Invalid type: strin"),
        ({"name": "a", "parameters": {"type": "array"}}, "tool 'a' have the type 'array', and arguments are an object"),
        ({"name": "a", "parameters": {"properties": 3, "x": [[]] * 200_000}}, "declaration of tool 'a' has more than"),
    ],
)
def test_what_cannot_be_used_is_named(function, said):
    with pytest.raises(ConfigurationError, match=said):
        engine("qwen2.5").stream("hello", tools=[*TOOLS, {"type": "function", "function": function}])


def test_a_description_that_is_no_text_is_harmless():
    tool = {"type": "function", "function": {"name": "odd", "description": "x\ud800", "parameters": SCHEMA}}
    assert ask(engine("qwen2.5"), "odd", tools=[tool], parallel=False).tool_calls[0].name == "odd"


def test_a_stop_string_that_is_no_text_is_refused():
    with pytest.raises(ConfigurationError, match="stop string 1 is not valid text: its character 0"):
        SamplingParams(stop=("a", "\udc00"))


def test_a_template_that_reads_what_a_declaration_lacks():
    """As GPT-OSS's does. Where a template takes the declaration as it is, the prompt does not change."""
    strict = QWEN25.replace(
        "{{- tool | tojson }}",
        "{{- tool.function.description + (tool.function.parameters.properties | length | string) }}",
    )
    tools = [{"type": "function", "function": {"name": "now"}}]
    with light_engine(0, byte_tokenizer(chat_template=strict), {"max_position_embeddings": 8192}) as running:
        assert "<tools>\n0\n</tools>" in running.explain("hi", tools=tools).target.text
        wrong = [{"type": "function", "function": {"name": "now", "parameters": {"properties": {"a": True}}}}]
        assert "<tools>\n1\n</tools>" in running.explain("hi", tools=wrong).target.text
    assert json.dumps(tools[0]) in engine("qwen2.5").explain("hi", tools=tools).target.text
