"""Tools and a JSON schema in one request: the answer is calls, or follows the schema, and nothing else."""

import functools
import json

import jsonschema
import pytest

from rapid_integrations import (
    Completion,
    ConfigurationError,
    IncompleteOutputError,
    SamplingParams,
    SpeculationConfig,
    StructuredOutput,
)
from tests.toys.tool_callers import SCHEMAS, TEMPLATES, TOOLS, assert_valid, engine, opening_engine

ANSWER = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 4}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}
CASES = [(family, marked) for family in TEMPLATES for marked in (True, False)]


def ask(running, choice="auto", *, schema=ANSWER, new=140, speculation=None, parallel=False, tools=TOOLS, **sampling):
    asked = StructuredOutput(json_schema=schema)
    with running.stream(
        "what is it?",
        sampling=SamplingParams(max_new_tokens=new, structured=asked, **sampling),
        speculation=speculation,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
    ) as stream:
        return Completion.join(list(stream))


def assert_either(answer):
    """Return which of the two it is."""
    assert_valid(answer)
    if answer.tool_calls:
        assert answer.text == "" and answer.finish_reason in ("tool_calls", "length")
        return "call"
    if answer.finish_reason == "length":
        return "cut"
    assert answer.finish_reason == "eos" and not answer.invalid_tool_calls
    jsonschema.validate(json.loads(answer.text), ANSWER)
    return "answer"


@pytest.mark.in_turn(2)
@pytest.mark.parametrize(("family", "marked"), CASES)
def test_either_and_nothing_else(family, marked):
    found = {assert_either(ask(engine(family, marked), temperature=1.5, seed=seed)) for seed in range(3)}
    assert "answer" in found or "call" in found
    begun = (
        '{"name": "'
        if family == "llama"
        else {"mistral": "[TOOL_CALLS]", "tagged": "<function="}.get(family, "<tool_call>")
    )
    if marked or family not in ("mistral",):
        kinds = {
            assert_either(ask(opening_engine(family, begun, marked, seed), temperature=1.0, seed=seed))
            for seed in range(2)
        }
        assert "call" in kinds or family == "llama"
    kinds = {
        assert_either(ask(opening_engine(family, '{"name":"a', marked, seed), temperature=1.0, seed=seed))
        for seed in range(2)
    }
    assert "answer" in kinds


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("choice", ["required", "add", "none"])
@pytest.mark.parametrize("family", TEMPLATES)
def test_a_choice_leaves_one_of_them(family, choice):
    answer = ask(engine(family), choice, temperature=1.0, seed=1, new=300)
    assert assert_either(answer) == ("answer" if choice == "none" else "call")
    assert choice != "add" or [call.name for call in answer.tool_calls] == ["add"]


WAYS = {
    "target": {"law": "target", "proposer": "drafter", "draft_length": 4},
    "augmented": {"law": "augmented", "proposer": "drafter", "draft_length": 3},
    "lookup": {"law": "augmented", "proposer": "prompt_lookup", "draft_length": 4},
    "hybrid": {"law": "augmented", "proposer": "hybrid", "draft_length": 4},
    "paper": {"law": "paper", "proposer": "drafter", "draft_length": 3},
}


@functools.cache
def plain(family, law):
    return ask(engine(family), speculation=SpeculationConfig(law=law, proposer="none")).token_ids


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["qwen2.5", "llama"])
def test_every_law_and_proposer(family, way):
    speculation = SpeculationConfig(**WAYS[way])
    greedy = ask(engine(family), speculation=speculation)
    assert_either(greedy)
    if way != "paper":
        assert greedy.token_ids == plain(family, speculation.law)
    assert_either(ask(engine(family), speculation=speculation, temperature=1.2, seed=3, parallel=True))


def test_several_calls_beside_a_schema():
    counts = set()
    for seed in range(5):
        running = opening_engine("qwen2.5", "<tool_call>", seed=seed)
        answer = ask(running, temperature=2.0, seed=seed, parallel=True, tools=TOOLS[1:], new=500)
        assert_valid(answer)
        counts.add(len(answer.tool_calls))
    assert max(counts) > 1


def test_a_call_whose_keys_are_the_schemas_own():
    """Where only its keys tell a call from an answer, both may begin alike."""
    running = opening_engine("llama", '{"name": "add", "par')
    answer = ask(running, temperature=1.0, seed=0)
    assert [call.name for call in answer.tool_calls] == ["add"]
    assert_valid(answer)
    other = ask(opening_engine("llama", '{"name": "addi", "o'), temperature=1.0, seed=0)
    assert assert_either(other) == "answer" and json.loads(other.text)["name"] == "addi"


def test_references_of_both_keep_to_themselves():
    answer = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
        "additionalProperties": False,
    }
    parameters = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"q": {"type": "boolean"}},
                                                       "required": ["q"], "additionalProperties": False}}}  # fmt: skip
    tool = {"type": "function", "function": {"name": "find", "parameters": parameters}}
    for seed in range(4):
        found = ask(engine("llama"), schema=answer, tools=[tool], temperature=1.0, seed=seed)
        if found.tool_calls:
            assert set(found.tool_calls[0].arguments) == {"q"}
        elif found.finish_reason == "eos":
            jsonschema.validate(json.loads(found.text), answer)


def test_the_answer_is_checked_for_what_no_grammar_says():
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"const": 1}, "minItems": 2,
              "uniqueItems": True}}, "required": ["a"], "additionalProperties": False}  # fmt: skip
    with pytest.raises(IncompleteOutputError, match="non-unique"):
        ask(opening_engine("qwen2.5", '{"a":[1,1]}'), schema=schema)


def test_a_regex_beside_tools_says_what_works():
    sampling = SamplingParams(structured=StructuredOutput(regex="a"))
    with pytest.raises(ConfigurationError, match="Use json_schema, tool_choice='none', or two requests"):
        engine("qwen2.5").stream("hello", tools=TOOLS, sampling=sampling)
    answer = engine("qwen2.5").generate("hello", tools=TOOLS, tool_choice="none", sampling=sampling)
    assert answer.text == "a" and SCHEMAS
