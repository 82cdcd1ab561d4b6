"""Schemas, regular expressions and grammars meant to end the process: it goes on, and so does the next request.

They run in a process of their own, where each is compiled, followed for a few tokens on a small stack, and then a
harmless request is answered.
"""

import json

import pytest

from rapid_integrations import ConfigurationError, StructuredOutput
from rapid_integrations.structured import deep_stack, grammar_of
from rapid_integrations.structured.closed import closed

SCRIPT = """
import json, sys, threading, time
from rapid_integrations import RapidError, StructuredOutput
from rapid_integrations.structured import GrammarConstraint, grammar_of
from tests.hostile.test_grammars import CASES
from tests.toys.grammar_walk import VOCABULARY, random_answer

def follow(constraint):
    for _ in range(10):
        token = int(constraint.allowed().nonzero().flatten()[0])
        constraint.commit([token])

def attempt(name):
    began = time.process_time()
    try:
        grammar = grammar_of(StructuredOutput(**CASES[name]()))
        constraint = GrammarConstraint(VOCABULARY, VOCABULARY.highest_token_id + 1, grammar)
        errors = []
        def run():
            try:
                follow(constraint)
            except RapidError as error:
                errors.append(error)
        threading.stack_size(256 * 1024)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        threading.stack_size(0)
        said = f"stopped: {errors[0]}" if errors else "followed"
    except RapidError as error:
        said = f"refused: {error}"
    print(json.dumps([name, said[:300], time.process_time() - began]), flush=True)

for name in sys.argv[1:]:
    attempt(name)
    assert random_answer(StructuredOutput(regex="yes|no"), 0) in ("yes", "no")
"""  # fmt: skip


def nested(depth, step, leaf):
    for _ in range(depth):
        leaf = step(leaf)
    return leaf


def chain(length, step):
    definitions = {f"d{at}": step({"$ref": f"#/$defs/d{at + 1}"}) for at in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{length}": {"type": "string"}}}


def endless():
    schema = {"type": "object", "properties": {}}
    schema["properties"]["again"] = schema
    return schema


def rules(count):
    return "start: r0\n" + "\n".join(f"r{at}: r{at + 1}" for at in range(count)) + f'\nr{count}: "a"'


CASES = {
    "properties, 5,000 deep": lambda: {"json_schema": nested(5000, lambda x: {"properties": {"a": x}}, {})},
    "items, 100,000 deep": lambda: {"json_schema": nested(100_000, lambda x: {"items": x}, {})},
    "not, 5,000 deep": lambda: {"json_schema": nested(5000, lambda x: {"not": x}, {})},
    "a default 5,000 deep": lambda: {"json_schema": {"default": nested(5000, lambda x: [x], 1)}},
    "a schema within itself": lambda: {"json_schema": endless()},
    "48 deep": lambda: {"json_schema": nested(48, lambda x: {"type": "object", "properties": {"a": x}}, {})},
    "100,000 references": lambda: {"json_schema": chain(100_000, lambda x: x)},
    "4,000 references": lambda: {"json_schema": chain(4000, lambda x: {**x, "title": "on"})},
    "4,000 references in objects": lambda: {
        "json_schema": chain(4000, lambda x: {"type": "object", "properties": {"a": x}})
    },
    "4,000 references beside others": lambda: {"json_schema": chain(4000, lambda x: {**x, "minLength": 1})},
    "references without an end": lambda: {
        "json_schema": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    },
    "references that double": lambda: {"json_schema": chain(60, lambda x: {"allOf": [x, x]})},
    "an enum of 50,000": lambda: {"json_schema": {"enum": [f"v{at}" for at in range(50_000)]}},
    "an enum of 200,000": lambda: {"json_schema": {"enum": list(range(200_000))}},
    "a union of 5,000": lambda: {
        "json_schema": {"anyOf": [{"type": "object", "required": [f"k{at}"]} for at in range(5000)]}
    },
    "2,000 properties": lambda: {"json_schema": {"type": "object", "properties": {f"k{at}": {} for at in range(2000)}}},
    "20,000 properties": lambda: {"json_schema": {"properties": {f"k{at}": {} for at in range(20_000)}}},
    "20,000 required": lambda: {"json_schema": {"required": [f"k{at}" for at in range(20_000)]}},
    "a million items of a million": lambda: {
        "json_schema": {"type": "array", "minItems": 10**6, "items": {"type": "array", "minItems": 10**6}}
    },
    "lengths": lambda: {"json_schema": {"type": "string", "minLength": 10**18, "maxLength": 10**18}},
    "a name of megabytes": lambda: {"json_schema": {"properties": {"k" * 2_000_000: {}}}},
    "a constant of megabytes": lambda: {"json_schema": {"const": "k" * 2_000_000}},
    "a description of megabytes": lambda: {"json_schema": {"description": "k" * 20_000_000}},
    "pattern, long": lambda: {"json_schema": {"type": "string", "pattern": "a" * 500_000}},
    "pattern, parentheses": lambda: {"json_schema": {"type": "string", "pattern": "(" * 10**5 + "a" + ")" * 10**5}},
    "pattern, repeats": lambda: {"json_schema": {"type": "string", "pattern": r"^(\w{1,1000000}x){1,1000000}$"}},
    "300 patternProperties": lambda: {"json_schema": {"patternProperties": {f"a{at}": {} for at in range(300)}}},
    "multiples": lambda: {"json_schema": {"allOf": [{"type": "integer", "multipleOf": at} for at in (9973, 9967)]}},
    "x-guidance, a bomb": lambda: {"json_schema": {"x-guidance": {"whitespace_pattern": "(" * 5000}, "type": "object"}},
    "x-guidance, repeats": lambda: {
        "json_schema": {"x-guidance": {"whitespace_pattern": "(((a{1,1000}){1,1000}){1,1000}){1,1000}"}}
    },
    "x-guidance, no object": lambda: {"json_schema": {"x-guidance": [1]}},
    "100,000 rules": lambda: {"grammar": rules(100_000)},
    "4,900 rules": lambda: {"grammar": rules(4900)},
    "grammar, parentheses": lambda: {"grammar": "start: " + "(" * 90_000 + '"a"' + ")" * 90_000},
    "grammar, alternatives": lambda: {"grammar": "start: " + " | ".join(f'"a{at}"' for at in range(15_000))},
    "grammar, repeats": lambda: {"grammar": 'start: x{1,1000000}\nx: y{1,1000000}\ny: z{1,1000000}\nz: "a" | "b"'},
    "grammar, %json": lambda: {"grammar": "start: %json " + '{"items":' * 3000 + "{}" + "}" * 3000},
    "grammar, %lark": lambda: {"grammar": "start: %lark {\n" * 300 + 'start: "a"\n' + "}" * 300},
    "grammar, intersections": lambda: {"grammar": "start: X\nX: " + " & ".join(f"/.*a{at}.*/" for at in range(30))},
    "grammar, ten intersections": lambda: {"grammar": "start: X\nX: " + " & ".join(f"/.*{at}.*/" for at in range(10))},
    "grammar, ambiguous": lambda: {"grammar": 'start: s\ns: s s | "a" | "ab" | ""' + " | s s s" * 30},
    "grammar, left recursion": lambda: {"grammar": "start: " + "start " * 1000 + '| "a"'},
    "grammar, endless": lambda: {"grammar": "start: start"},
    "regex, parentheses": lambda: {"regex": "(" * 40_000 + "a" + ")" * 40_000},
    "regex, repeats": lambda: {"regex": "((((a{1,1000}){1,1000}){1,1000}){1,1000}){1,1000}"},
    "regex, optional": lambda: {"regex": "a?" * 1000 + "a" * 1000},
    "regex, exponential": lambda: {"regex": "(a|b)*a(a|b){500}c"},
    "regex, long": lambda: {"regex": "a" * 3_000_000},
    "regex, class": lambda: {"regex": "[" + "".join(chr(0x4E00 + 2 * at) for at in range(10_000)) + "]*"},
}
MUST_WORK = {"48 deep", "4,000 references", "4,000 references in objects", "2,000 properties", "an enum of 50,000"}
MUST_BE_REFUSED = {"properties, 5,000 deep", "100,000 references", "100,000 rules", "20,000 properties", "regex, long"}
SECONDS = 40  # of the processor


@pytest.mark.parametrize("part", range(3))
def test_the_process_goes_on(children, part):
    names = list(CASES)[part::3]
    done = children.run(SCRIPT, *names, seconds=300)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (done.returncode, found[-1:], done.stderr[-2000:])
    assert [name for name, _, _ in found] == names
    for name, said, seconds in found:
        assert seconds < SECONDS, (name, seconds)
        if name in MUST_WORK:
            assert said == "followed", (name, said)
        if name in MUST_BE_REFUSED:
            assert said.startswith("refused: ") and any(digit.isdigit() for digit in said), (name, said)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("properties, 5,000 deep", "nested more than 100 levels deep. Flatten it, or use \\$ref"),
        ("100,000 references", "more than 100,000 values"),
        ("20,000 properties", "20,000 properties at /; 2,000 are the most"),
        ("a name of megabytes", "a name of 2,000,000 characters at /properties; 1,000 are the most"),
        ("100,000 rules", "the grammar has 1,[0-9,]* characters; 200,000 are the most"),
        ("grammar, intersections", "29 operators '&' and '~'; 10 are the most"),
        ("regex, parentheses", "more than 200 brackets within one another"),
    ],
)
def test_an_error_says_the_bound_and_what_was_given(asked, said):
    with pytest.raises(ConfigurationError, match=said):
        grammar_of(StructuredOutput(**CASES[asked]()))


def test_what_hosts_do_with_a_schema_does_not_recurse_either():
    with pytest.raises(ConfigurationError, match="100 levels deep"):
        closed(CASES["properties, 5,000 deep"]()["json_schema"])
    with pytest.raises(ConfigurationError, match="100 levels deep"):
        closed(endless())


def test_what_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(deep_stack, "SECONDS", 0.05)
    with pytest.raises(ConfigurationError, match="takes longer than 0 seconds to compile: simplify it"):
        deep_stack.on_a_deep_stack(lambda: __import__("time").sleep(0.5))
