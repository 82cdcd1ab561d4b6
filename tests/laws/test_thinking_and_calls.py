"""A model that thinks about calls before it makes one. What it thinks is free, and behind it calls are enforced."""

import json

import pytest

from rapid_integrations import Completion, SamplingParams
from rapid_integrations.models.thinking import Thinking
from rapid_integrations.models.thinking_marks import marks_of
from tests.toys.thinking import OPENED, showing, thinking_engine
from tests.toys.tool_callers import TOOLS

pytest.importorskip("llguidance")
BROKEN = '<tool_call>\n{"name": "no_tool", "arguments": [1, 2\n</tool_call>'
THOUGHT = f"I could write {BROKEN}, or not."
TEMPLATES = {"shown": showing(), "opened": OPENED}


def begun(template):
    return "" if template == OPENED else "<think>\n"


def answered(engine, new=300, **options):
    sampling = SamplingParams(max_new_tokens=new)
    with engine.stream("What now?", sampling=sampling, tools=TOOLS, **options) as stream:
        whole = Completion.join(list(stream))
        thought, said = Thinking(marks_of(engine.vocabulary, stream.prepared.target)).part(whole)
    return whole, thought, said.text


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_broken_call_is_thought_and_the_call_behind_it_is_held_to_its_schema(template):
    written = f'{begun(template)}{THOUGHT}\n</think>\n\n<tool_call>\n{{"name": "add", "arguments": {{"a": "no number"'
    with thinking_engine(written, template) as engine:
        whole, thought, said = answered(engine)
    assert (thought, said) == (THOUGHT, "")
    assert not whole.invalid_tool_calls or whole.finish_reason == "length"
    for call in whole.tool_calls:
        assert call.name == "add" and isinstance(call.arguments["a"], int)
    assert whole.tool_calls or '"a": ' in whole.invalid_tool_calls[0].arguments


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_thinking_that_never_ends_holds_no_call(template):
    call = f"<tool_call>\n{json.dumps({'name': 'now', 'arguments': {}})}\n</tool_call>"
    for text, reason in ((f"{begun(template)}{call} and so on", "eos"), (f"{begun(template)}{call * 20}", "length")):
        with thinking_engine(text, template) as engine:
            whole, thought, said = answered(engine, new=200)
        assert whole.finish_reason == reason
        assert not whole.tool_calls and not whole.invalid_tool_calls and said == ""
        assert thought.startswith(call)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_a_call_without_an_end_of_the_thinking_is_checked(template):
    for arguments, fine in (({"a": 7, "b": None}, True), ({"a": 99, "b": None}, False), ({}, False)):
        call = f"<tool_call>\n{json.dumps({'name': 'add', 'arguments': arguments})}\n</tool_call>"
        with thinking_engine(f"{begun(template)}I add.\n{call}", template) as engine:
            whole, thought, said = answered(engine)
        assert (thought, said) == ("I add.", "")
        assert [call.arguments for call in whole.tool_calls] == ([arguments] if fine else [])
        assert len(whole.invalid_tool_calls) == (0 if fine else 1)


def test_a_forced_call_has_no_thinking_before_it():
    with thinking_engine(f"<think>\n{THOUGHT}\n</think>\n\nNo.", showing()) as engine:
        whole, thought, said = answered(engine, tool_choice="now")
    assert [call.name for call in whole.tool_calls] == ["now"] and (thought, said) == ("", "")


def test_a_call_without_thinking_is_one_as_before():
    with thinking_engine('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', showing()) as engine:
        whole, thought, said = answered(engine)
    assert [call.name for call in whole.tool_calls] == ["now"] and (thought, said) == ("", "")
