"""Arguments that are literals, Python's, JSON's or Gemma's."""

import pytest

from rapid_integrations.tool_calls import parse_calls
from tests.toys.call_formats import learn
from tests.toys.call_templates import GEMMA4, LIQUID

LFM, GEMMA = learn(LIQUID), learn(GEMMA4)
TOOLS = {"do": {}, "Calendar.make": {}}
Q = '<|"|>'


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ("", {}),
        ("n=1", {"n": 1}),
        ('city="Bern"', {"city": "Bern"}),
        ("city='it\\'s', on=True, off=None", {"city": "it's", "on": True, "off": None}),
        ('c={"on": True, "n": [1, -2.5e3, null]}', {"c": {"on": True, "n": [1, -2500.0, None]}}),
        ('code="a\\n\\"b\\""', {"code": 'a\n"b"'}),
        ("code='line\nline'", {"code": "line\nline"}),
        ("code='\r\x01', d=\"\\u00e9\\x41\\/\"", {"code": "\r\x01", "d": "éA/"}),
        ("t=\"a, b=')]'\"", {"t": "a, b=')]'"}),
    ],
)
def test_python_and_json(written, arguments):
    text, calls, invalid = parse_calls(f"Look.<|tool_call_start|>[do({written})]<|tool_call_end|>", LFM, TOOLS)
    assert (text, [each.arguments for each in calls], invalid) == ("Look.", [arguments], [])


def test_several_calls_of_python():
    text = "<|tool_call_start|>[do(a=1), Calendar.make(title='x', who=[\"A\", 'B'])]<|tool_call_end|>"
    calls = parse_calls(text, LFM, TOOLS).calls
    assert [(c.name, c.arguments) for c in calls] == [
        ("do", {"a": 1}),
        ("Calendar.make", {"title": "x", "who": ["A", "B"]}),
    ]


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ("", {}),
        (f"city:{Q}San Francisco{Q}", {"city": "San Francisco"}),
        (f"a:-7,b:1.5e10,c:true,d:null,e:{Q}{Q}", {"a": -7, "b": 1.5e10, "c": True, "d": None, "e": ""}),
        (f"l:[{Q}buy, milk{Q},[]],o:{{k:{Q}v}}{Q},n:{{}}}}", {"l": ["buy, milk", []], "o": {"k": "v}", "n": {}}}),
        (f"o:{{{Q}quoted key{Q}:1}}", {"o": {"quoted key": 1}}),
    ],
)
def test_gemmas(written, arguments):
    text, calls, invalid = parse_calls(f"Look.<|tool_call>call:do{{{written}}}<tool_call|>", GEMMA, TOOLS)
    assert (text, [each.arguments for each in calls], invalid) == ("Look.", [arguments], [])


@pytest.mark.parametrize("written", ["a=", "a=b", "a='", "a=[1", "a={1:2", "=3", "a=1 b", "a=" + "[" * 200])
def test_what_is_no_literal_makes_no_call(written):
    _, calls, (invalid,) = parse_calls(f"<|tool_call_start|>[do({written})]<|tool_call_end|>", LFM, TOOLS)
    assert not calls and invalid.name == "do" and invalid.error
