"""Structured output end to end: a random model writes whatever it is allowed to, and it is always valid."""

import itertools
import json
import re
import threading

import jsonschema
import pytest

from rapid_integrations import (
    ConfigurationError,
    RapidEngine,
    SamplingParams,
    SpeculationConfig,
    StructuredOutput,
)
from tests.toys.budget import examples, in_turn
from tests.toys.models import byte_tokenizer, tiny_model
from tests.toys.structured_requests import PROMPT, engine

TEXT = {"type": "string", "maxLength": 6}
SMALL_INT = {"type": "integer", "minimum": -20, "maximum": 300}

SCHEMAS = {
    "flat": {
        "type": "object",
        "properties": {"name": TEXT, "age": SMALL_INT, "member": {"type": "boolean"}, "nothing": {"type": "null"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "nested": {
        "type": "object",
        "properties": {
            "outer": {
                "type": "object",
                "properties": {"inner": {"type": "array", "items": SMALL_INT, "minItems": 1, "maxItems": 3}},
                "required": ["inner"],
                "additionalProperties": False,
            }
        },
        "required": ["outer"],
        "additionalProperties": False,
    },
    "enum and const": {"type": "array", "prefixItems": [{"enum": ["re\"d", "grün", 3, None]}, {"const": {"k": [1]}}],
                       "items": False, "minItems": 2},
    "numbers": {"type": "array", "items": {"type": "number", "minimum": -1.5, "maximum": 2.5}, "minItems": 2,
                "maxItems": 2},
    "unicode": {"enum": ["東京", "naïve 🙂", "Ω\n"]},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "any of": {"anyOf": [SMALL_INT, {"type": "object", "properties": {"x": TEXT}, "required": ["x"],
                                     "additionalProperties": False}]},
    "recursive": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"v": {"type": "boolean"}, "next": {"anyOf": [{"$ref": "#/$defs/node"},
                                                                            {"type": "null"}]}},
                "required": ["v", "next"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    "pydantic's": {
        "$defs": {"Kind": {"enum": ["a", "b"], "title": "Kind", "type": "string"}},
        "properties": {
            "kind": {"$ref": "#/$defs/Kind"},
            "note": {"anyOf": [TEXT, {"type": "null"}], "default": None, "title": "Note"},
        },
        "required": ["kind"],
        "title": "Thing",
        "type": "object",
        "additionalProperties": False,
    },
    "free strings": {"type": "object", "properties": {"s": {"type": "string"}}, "required": ["s"]},
}  # fmt: skip

WAYS = {
    "greedy": ({}, {}),
    "sampled": ({"temperature": 1.0, "seed": 1}, {"proposer": "drafter", "draft_length": 4}),
    "sampled, truncated": ({"temperature": 1.5, "seed": 2, "top_k": 3}, {"law": "target", "draft_length": 3}),
    "lookup": ({"temperature": 0.8, "seed": 3, "top_p": 0.7}, {"proposer": "prompt_lookup"}),
    "paper": ({"temperature": 1.0, "seed": 4}, {"law": "paper"}),
    "penalised": ({"repetition_penalty": 1.5, "seed": 5}, {"proposer": "none"}),
}


def ask(prompt=PROMPT, speculation=None, new=150, running=None, **sampling):
    asked = StructuredOutput(
        **{name: sampling.pop(name) for name in ("json_schema", "regex", "grammar") if name in sampling}
    )
    return (running or engine()).generate(
        prompt,
        sampling=SamplingParams(structured=asked, max_new_tokens=new, **sampling),
        speculation=SpeculationConfig(**(speculation or {})),
    )


def assert_valid(answer, schema):
    if answer.finish_reason == "eos":
        jsonschema.validate(json.loads(answer.text), schema, jsonschema.Draft202012Validator)
    else:
        assert answer.finish_reason == "length"


# By day each schema meets half of the ways, and each way half of the schemas.
CASES = [(name, way) for number, name in enumerate(SCHEMAS) for way in in_turn(tuple(WAYS), number)]


@pytest.mark.in_turn(3)
@pytest.mark.parametrize(("name", "way"), CASES)
def test_a_finished_answer_satisfies_the_schema(name, way):
    sampling, speculation = WAYS[way]
    answer = ask(json_schema=SCHEMAS[name], speculation=speculation, new=250, **sampling)
    assert_valid(answer, SCHEMAS[name])
    if name not in ("recursive", "free strings"):  # which need not end
        assert answer.finish_reason == "eos", answer.text


def test_greedy_output_depends_on_no_proposer():
    ways = (("drafter", 5), ("drafter", 1), ("prompt_lookup", 1), ("prompt_lookup", 5))
    for number, name in enumerate(("flat", "any of", "free strings")):
        texts = {
            ask(
                json_schema=SCHEMAS[name], speculation={"law": "augmented", "proposer": proposer, "draft_length": k}
            ).text
            for proposer, k in [("none", 1), *in_turn(ways, number)]
        }
        assert len(texts) == 1


def test_drafts_are_within_the_grammar():
    for temperature, seed in [(0.0, 0), *((1.0, seed) for seed in range(examples(50)))]:
        answer = ask(
            regex="forced from end to end",
            speculation={"proposer": "drafter", "draft_length": 5},
            temperature=temperature,
            seed=seed,
        )
        stats = answer.stats
        # The last token alone is a choice: the vocabulary has two that end an answer.
        assert (stats.rounds, stats.drafted_tokens) == (4, 20)
        assert stats.accepted_tokens >= 19


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("seed", range(4))
def test_a_regex_is_matched(seed):
    for regex in (r"[A-C]{2,4}(-[0-9]+){1,2}x", r"(yes|no), because [a-z ]{1,20}\.", "é+Ω|東京"):
        answer = ask(regex=regex, temperature=1.0, seed=seed)
        assert answer.finish_reason != "eos" or re.fullmatch(regex, answer.text)
    assert answer.finish_reason == "eos"


@pytest.mark.parametrize("text", ["<|im_end|>", "a<|im_start|>b", "<|bos|><|eos|>"])
def test_text_that_spells_a_control_token_is_text(text):
    for asked in ({"json_schema": {"const": text}}, {"json_schema": {"enum": [text, "x"]}}, {"regex": re.escape(text)}):
        answer = ask(temperature=1.0, seed=0, **asked)
        assert answer.finish_reason == "eos" and text in (answer.text, answer.text[1:-1]) or answer.text == '"x"'


@pytest.mark.parametrize("seed", range(4))
def test_a_grammar_is_followed(seed):
    sums = 'start: term ("+" term)*\nterm: NUMBER | "(" start ")"\nNUMBER: /[1-9][0-9]{0,2}/'
    answer = ask(grammar=sums, temperature=1.0, seed=seed, new=300)
    assert re.fullmatch(r"[0-9+()]+", answer.text)
    if answer.finish_reason == "eos":
        eval(answer.text)


def test_a_cut_answer_says_so():
    answer = ask(json_schema=SCHEMAS["flat"], new=5)
    assert answer.finish_reason == "length" and len(answer.token_ids) == 5
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.text)


def test_stop_strings_still_end_the_answer():
    answer = ask(json_schema=SCHEMAS["flat"], stop=('"age"',))
    assert answer.finish_reason == "stop" and '"name"' in answer.text and '"age"' not in answer.text


def test_padded_models_never_write_padding():
    with RapidEngine.from_models(
        tiny_model("llama", 1, vocab_size=320), byte_tokenizer(), drafter_model=tiny_model("llama", 2)
    ) as wide:
        answer = ask("which?", running=wide, json_schema=SCHEMAS["flat"], temperature=1.0, seed=0)
    assert_valid(answer, SCHEMAS["flat"])
    assert max(answer.token_ids) < 260


def test_a_refused_schema_is_refused_before_the_first_piece():
    with pytest.raises(ConfigurationError, match="Invalid type"):
        engine().stream(PROMPT, sampling=SamplingParams(structured=StructuredOutput(json_schema={"type": "strin"})))


def test_requests_share_no_state():
    answers = {}

    def run(number):
        schema = SCHEMAS["flat" if number % 2 else "nested"]
        answers[number] = ask(json_schema=schema, temperature=1.0, seed=number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        schema = SCHEMAS["flat" if number % 2 else "nested"]
        assert_valid(answers[number], schema)
        assert answers[number].text == ask(json_schema=schema, temperature=1.0, seed=number).text


def test_two_streams_in_step():
    sampling = [SamplingParams(structured=StructuredOutput(regex=regex)) for regex in ("a{30}", "(bc){15}")]
    streams = [engine().stream(PROMPT, sampling=each) for each in sampling]
    texts = ["", ""]
    for pieces in itertools.zip_longest(*streams):
        texts = [text + (piece.text if piece else "") for text, piece in zip(texts, pieces, strict=True)]
    assert texts == ["a" * 30, "bc" * 15]
