"""Calls whose arguments are no JSON object are enforced, read and rendered back, whatever the model."""

import json

import pytest

from rapid_integrations import RapidEngine, SpeculationConfig
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.vocabulary import Vocabulary
from tests.toys.call_formats import learn, write
from tests.toys.call_templates import HARMONY, HARMONY_TOKENS
from tests.toys.models import EOS_ID, IM_END_ID, byte_tokenizer
from tests.toys.opening_lm import OpeningLM
from tests.toys.tool_callers import NEWER, SCHEMAS, TOOLS, ask, assert_valid, engine, opening_engine, tokenizer_of, tool

WEATHER = {"city": "Bern", "unit": "°C"}


def plain(answer):
    return [(call.name, call.arguments) for call in answer.tool_calls]


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("marked", [True, False], ids=["tokens", "spelt out"])
@pytest.mark.parametrize("family", NEWER)
def test_a_required_call_is_made(family, marked):
    for seed in range(3):
        answer = ask(engine(family, marked), "required", temperature=1.0, seed=seed, parallel=False, new=300)
        assert_valid(answer)
        assert (answer.text, answer.finish_reason, len(answer.tool_calls)) == ("", "tool_calls", 1)


@pytest.mark.parametrize("family", NEWER)
def test_a_named_tool_is_called_once(family):
    for name in SCHEMAS:
        answer = ask(engine(family), name, new=300)
        assert [call.name for call in answer.tool_calls] == [name]
        assert_valid(answer)


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("marked", [True, False], ids=["tokens", "spelt out"])
@pytest.mark.parametrize("family", NEWER)
def test_auto_holds_a_call_to_its_schema_and_leaves_text_alone(family, marked):
    form = learn(NEWER[family])
    opening = "Well." + form.before + form.head
    for seed in range(2):
        answer = ask(opening_engine(family, opening, marked, seed), temperature=1.0, seed=seed, parallel=False, new=300)
        assert_valid(answer)
        assert (answer.text, answer.finish_reason, len(answer.tool_calls)) == ("Well.", "tool_calls", 1)
    answer = ask(opening_engine(family, "It is <tool five.<|im_end|>", marked))
    assert (answer.text, answer.tool_calls, answer.finish_reason) == ("It is <tool five.", (), "eos")


@pytest.mark.parametrize("marked", [True, False], ids=["tokens", "spelt out"])
@pytest.mark.parametrize("family", NEWER)
def test_what_a_model_writes_is_read_and_rendered_back(family, marked):
    form = learn(NEWER[family])
    wanted = [("get_weather", WEATHER), ("add", {"a": 3, "b": None}), ("now", {})]
    answer = ask(opening_engine(family, "So:" + write(form, *wanted) + "<|im_end|>", marked), new=900)
    assert (answer.text, plain(answer), answer.invalid_tool_calls) == ("So:", wanted, ())
    assert len({call.id for call in answer.tool_calls}) == 3
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for call in answer.tool_calls
    ]
    said = {"role": "assistant", "content": "So:", "tool_calls": calls}
    prompt = engine(family, marked).explain([{"role": "user", "content": "hello"}, said, said], tools=TOOLS)
    as_mappings = [{**each, "function": {**each["function"], "arguments": given}}
                   for each, (_, given) in zip(calls, wanted, strict=True)]  # fmt: skip
    theirs = [{"role": "user", "content": "hello"}, *[{**said, "tool_calls": as_mappings}] * 2]
    tokenizer = tokenizer_of(family, marked)
    assert prompt.target.text == tokenizer.apply_chat_template(
        theirs, tools=TOOLS, tokenize=False, add_generation_prompt=True
    )


@pytest.mark.parametrize("family", NEWER)
def test_a_call_that_max_new_tokens_cuts_is_no_text(family):
    whole = ask(engine(family), "add", parallel=False)
    for new in range(1, len(whole.token_ids) - 1, 5):
        answer = ask(engine(family), "add", new=new, parallel=False)
        assert answer.text == ""
        if answer.finish_reason == "tool_calls":  # nothing but what closes it is missing
            assert plain(answer) == plain(whole)
            continue
        (invalid,) = answer.invalid_tool_calls
        assert answer.finish_reason == "length" and invalid.error == "max_new_tokens cut it before its end"
        written = json.dumps(whole.tool_calls[0].arguments)
        assert "".join(written.split()).startswith("".join(invalid.arguments.split()))


@pytest.mark.parametrize("family", ["coder", "gemma4"])
def test_drafts_change_nothing(family):
    texts = set()
    for proposer, length in (("none", 1), ("drafter", 4), ("prompt_lookup", 4)):
        speculation = SpeculationConfig(proposer=proposer, draft_length=length)
        with engine(family).stream("hi", speculation=speculation, tools=TOOLS, tool_choice="required") as stream:
            texts.add(tuple(token for piece in stream for token in piece.token_ids))
    assert len(texts) == 1


NESTED = tool(
    "save",
    {
        "rows": {"type": "array", "items": {"$ref": "#/$defs/Row"}, "minItems": 1, "maxItems": 2},
        "kind": {"const": "a<b"},
        "note": {"type": "string", "minLength": 2, "maxLength": 4},
        "day": {"type": "string", "format": "date"},
    },
    required=["rows", "kind", "note"],
    **{"$defs": {"Row": {"type": "object", "properties": {"n": {"enum": [1, 2]}, "t": {"type": "boolean"}},
                         "required": ["n"], "additionalProperties": False}}},
)  # fmt: skip


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("marked", [True, False], ids=["tokens", "spelt out"])
@pytest.mark.parametrize("family", NEWER)
def test_nested_and_bounded_values(family, marked):
    for seed in range(2):
        answer = ask(engine(family, marked), "save", tools=[NESTED], temperature=1.0, seed=seed, new=900)
        for call in answer.tool_calls:
            assert call.arguments["kind"] == "a<b" and 2 <= len(call.arguments["note"]) <= 4
            assert all(row["n"] in (1, 2) for row in call.arguments["rows"])
        # A date in Python's quotation marks is the only rule that no grammar holds: such a string may go on, too.
        for invalid in answer.invalid_tool_calls:
            assert family == "liquid" and ("day" in invalid.error or "max_new_tokens" in invalid.error), invalid
        assert len(answer.tool_calls) + len(answer.invalid_tool_calls) == 1


@pytest.mark.parametrize("family", ["coder", "glm", "dsml", "gemma4", "liquid"])
@pytest.mark.parametrize("parameters", [{"type": "object"}, {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}])
def test_arguments_that_no_schema_names(family, parameters):
    odd = {"type": "function", "function": {"name": "odd", "parameters": parameters}}
    answer = ask(engine(family), "odd", tools=[odd], temperature=1.0, seed=1, new=400)
    assert len(answer.tool_calls) + len(answer.invalid_tool_calls) == 1
    assert all(isinstance(name, str) for call in answer.tool_calls for name in call.arguments)


# --- channels ------------------------------------------------------------


def channels(opening="", seed=0):
    tokenizer = byte_tokenizer(chat_template=HARMONY, extra_tokens=HARMONY_TOKENS)
    header = "is it?<|end|><|start|>assistant"
    begins = [tokenizer(text, add_special_tokens=False).input_ids for text in (header, opening)]
    ends = {EOS_ID, IM_END_ID, *(tokenizer.convert_tokens_to_ids(each) for each in ("<|call|>", "<|return|>"))}
    return RapidEngine(LoadedModel(OpeningLM(seed, len(tokenizer), *begins), Vocabulary(tokenizer, ends)))


THOUGHT = "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant"


def test_a_required_call_in_a_channel():
    for seed in range(3):
        answer = ask(channels(seed=seed), "required", temperature=1.0, seed=seed, new=300)
        assert_valid(answer)
        assert (answer.text, len(answer.tool_calls)) == ("", 1)


def test_auto_allows_other_channels_before_a_call():
    for seed in range(3):
        running = channels(THOUGHT + "<|channel|>commentary to=functions.", seed)
        answer = ask(running, temperature=1.0, seed=seed, new=300)
        assert_valid(answer)
        assert (answer.text, len(answer.tool_calls)) == (THOUGHT, 1)
    answer = ask(channels(THOUGHT + "<|channel|>final<|message|>Five.<|return|>"))
    assert (answer.text, answer.tool_calls) == (THOUGHT + "<|channel|>final<|message|>Five.", ())
