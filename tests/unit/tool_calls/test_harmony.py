"""Calls of GPT-OSS are read in every order in which models write them."""

import pytest

from rapid_integrations.tool_calls import parse_calls
from rapid_integrations.tool_calls.call_stream import ToolCallStream
from rapid_integrations.tool_calls.harmony import HARMONY

TOOLS = {"look": {"type": "object", "properties": {"q": {"type": "string"}}}}
THOUGHT = "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant"
HEADERS = [
    "<|channel|>commentary to=functions.look <|constrain|>json<|message|>",
    "<|channel|>commentary to=functions.look<|message|>",
    "<|channel|>analysis to=functions.look<|message|>",
    " to=functions.look<|channel|>commentary json<|message|>",
    " to=functions.look<|channel|>analysis <|constrain|>json<|message|>",
    " to=functions.look<|channel|>commentary<|message|>",
]


@pytest.mark.parametrize("thought", ["", THOUGHT])
@pytest.mark.parametrize("header", HEADERS)
def test_every_order(header, thought):
    text, calls, invalid = parse_calls(f'{thought}{header}{{"q": "to=x"}}', HARMONY, TOOLS)
    assert text == thought and not invalid
    assert [(call.name, call.arguments) for call in calls] == [("look", {"q": "to=x"})]


@pytest.mark.parametrize("header", HEADERS)
def test_no_part_of_a_call_is_shown(header):
    whole = f'{THOUGHT}{header}{{"q": "x"}}'
    stream = ToolCallStream(HARMONY, TOOLS, parallel=False)
    shown = "".join(map(stream.push, whole))
    rest, calls, _ = stream.finish()
    assert shown + rest == THOUGHT and calls[0].arguments == {"q": "x"}


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        (HEADERS[0] + '{"q": "cut', "look", '{"q": "cut'),
        (HEADERS[0][:-15], "look", ""),
        (HEADERS[0].replace("look", "other") + "{}", "other", "{}"),
    ],
)
def test_a_call_that_cannot_be_made(text, name, arguments):
    left, calls, (invalid,) = parse_calls(THOUGHT + text, HARMONY, TOOLS, cut=True)
    assert (left, calls) == (THOUGHT, []) and (invalid.name, invalid.arguments) == (name, arguments)


def test_other_channels_are_text():
    for text in (f"{THOUGHT}<|channel|>final<|message|>It is to=functions, I think.", "to=functions."):
        assert parse_calls(text, HARMONY, TOOLS) == (text, [], [])
