"""Arguments between marks are read as their schemas say, and never as something else."""

import pytest

from rapid_integrations.tool_calls import parse_calls
from rapid_integrations.tool_calls.tagged_types import BOTH, kinds_of
from tests.toys.call_formats import learn, write
from tests.toys.call_templates import CODER, DSML, GLM, MINIMAX

FORM = learn(CODER)
SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "flag": {"type": "boolean"},
        "list": {"$ref": "#/$defs/List"},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "any": {},
    },
    "$defs": {"List": {"type": "array"}},
}
TOOLS = {"do": SCHEMA}


def call(*parameters):
    inner = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in parameters)
    return f"<tool_call>\n<function=do>\n{inner}</function>\n</tool_call>"


def read(*parameters, tools=TOOLS):
    text, calls, invalid = parse_calls(call(*parameters), FORM, tools)
    assert text == ""
    return calls[0].arguments if calls else invalid[0]


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("text", "5", "5"),
        ("text", "true", "true"),
        ("text", '{"a": 1}', '{"a": 1}'),
        ("text", "", ""),
        ("text", "\n two\nlines \n", "\n two\nlines \n"),
        ("text", "a </parameter> b <parameter=x>", "a </parameter> b <parameter=x>"),
        ("count", " 5 ", 5),
        ("flag", "True", True),
        ("flag", "false", False),
        ("list", '["a", {"b": null}]', ["a", {"b": None}]),
        ("maybe", "null", None),
        ("maybe", "None", None),
        ("maybe", "nullable", "nullable"),
        ("maybe", '"quoted"', '"quoted"'),
        ("any", "[1]", [1]),
        ("any", "word", "word"),
    ],
)
def test_a_value_is_what_its_schema_says(name, written, value):
    assert read((name, written)) == {name: value}


@pytest.mark.parametrize(("name", "written"), [("count", "five"), ("list", "['a']"), ("flag", "yes")])
def test_a_value_that_is_not_json_makes_no_call(name, written):
    invalid = read((name, written), ("text", "kept"))
    assert invalid.name == "do" and invalid.error == f"the argument {name!r} is not JSON: {written}"
    assert invalid.arguments == '{"text": "kept"'


def test_white_space_around_marks_may_differ():
    parameters = "<parameter=text>a</parameter><parameter=count>\n5</parameter>"
    text = f"<tool_call> <function=do>\n\n{parameters}</function></tool_call>"
    assert parse_calls(text, FORM, TOOLS).calls[0].arguments == {"text": "a", "count": 5}


def test_the_first_of_two_tags_may_be_missing():
    for text, shown in ((call(("count", 5)).removeprefix("<tool_call>\n"), ""), ("So " + call()[12:] + call(), "So")):
        left, calls, invalid = parse_calls(text, FORM, TOOLS)
        assert (left, calls[0].name, invalid) == (shown, "do", []) and len(calls) == text.count("<function=")


@pytest.mark.parametrize("template", [CODER, GLM, MINIMAX, DSML])
def test_a_string_that_quotes_a_call_of_its_own(template):
    form = learn(template)
    quoted = {"text": f"Write {form.head}do{form.middle} and {form.tail} then {form.before}."}
    assert parse_calls(write(form, ("do", quoted)), form, TOOLS).calls[0].arguments == quoted


def test_a_mark_that_says_what_follows_is_believed():
    form = learn(DSML)
    for value in ("5", 5, None, "null", ["a"], '["a"]'):
        assert parse_calls(write(form, ("do", {"any": value})), form, TOOLS).calls[0].arguments == {"any": value}


@pytest.mark.parametrize(
    ("text", "arguments", "error"),
    [
        (call(("text", "a"))[:-30], '{"text": "a', "the answer ended before it: the argument 'text' does not end"),
        (call(("text", "a"))[:-20], '{"text": "a"', "the answer ended before it: an argument"),
        (call(("count", 5)).replace("</function>", "well"), '{"count": 5', "an argument does not begin as it should"),
    ],
)
def test_a_call_that_does_not_end(text, arguments, error):
    _, calls, (invalid,) = parse_calls(text, FORM, TOOLS)
    assert not calls and (invalid.name, invalid.arguments) == ("do", arguments) and error in invalid.error


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [
        ({"type": "string"}, {"text"}),
        ({"type": ["string", "null"]}, {"text", "other"}),
        ({"enum": ["a", "b"]}, {"text"}),
        ({"enum": ["a", 1]}, {"text", "other"}),
        ({"const": 3}, {"other"}),
        ({"type": "str"}, {"text"}),
        ({"type": "string", "nullable": True}, {"text", "other"}),
        ({"oneOf": [{"type": "integer"}, {"type": "array"}]}, {"other"}),
        ({"allOf": [{"$ref": "#/$defs/Word"}]}, {"text"}),
        ({"$ref": "#/$defs/Loop"}, BOTH),
        ({"$ref": "https://example.org/x"}, BOTH),
        (True, BOTH),
        ({}, BOTH),
    ],
)
def test_the_kinds_of_value_that_a_schema_allows(schema, kinds):
    root = {"$defs": {"Word": {"type": "string"}, "Loop": {"$ref": "#/$defs/Loop"}}}
    assert kinds_of(schema, root) == kinds
