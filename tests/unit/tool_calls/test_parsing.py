"""Reading calls out of text, whole and streamed."""

import json

import pytest

from rapid_integrations.tool_calls import ToolCallStream, parse_calls
from rapid_integrations.tool_calls.parsing import Parsed
from tests.toys.call_formats import learn, write
from tests.toys.call_templates import DEEPSEEK, GLM47, SEED
from tests.toys.chat_templates import LLAMA31, MISTRAL, QWEN25, TAGGED
from tests.toys.tool_callers import NEWER

FORMATS = {"qwen": learn(QWEN25), "llama": learn(LLAMA31), "mistral": learn(MISTRAL), "tagged": learn(TAGGED)}
NEWER_FORMATS = {
    **{family: learn(template) for family, template in NEWER.items()},
    **{"deepseek": learn(DEEPSEEK), "glm4.7": learn(GLM47), "seed": learn(SEED)},
}
FORMATS |= NEWER_FORMATS
SEVERAL = sorted(FORMATS.keys() - {"llama"})
NAMES = {
    "search": {
        "type": "object",
        "properties": {"q": {"type": ["string", "integer"]}, "n": {"type": ["object", "array"]}},
    },
    "get_weather": {"type": "object", "properties": {"city": {"type": "string"}}},
}
NASTY = {"q": 'a "quoted" {brace} </tool_call> ] \\ \n', "n": {"deep": [1, {"x": None}]}, "ü": "東京 🙂"}


def streamed(form, text, size=1, *, cut=False):
    """Return what becomes of a text that comes piece by piece."""
    stream = ToolCallStream(form, NAMES, parallel=True)
    shown = "".join(stream.push(text[at : at + size]) for at in range(0, len(text), size))
    rest, calls, invalid = stream.finish(cut=cut)
    return Parsed(shown + rest, calls, invalid)


def plain(calls):
    return [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("family", FORMATS)
@pytest.mark.parametrize("arguments", [{}, {"q": "cats"}, NASTY], ids=["none", "one", "nasty"])
def test_one_call(family, arguments):
    form = FORMATS[family]
    text, calls, invalid = parse_calls(write(form, ("search", arguments)), form, NAMES)
    assert (text, plain(calls), invalid) == ("", [("search", arguments)], [])
    ids = {"id": "abc123450", "number": "functions.search:0", None: calls[0].id}
    wanted = "abc123450" if form.id_tail else ids[form.identity]
    assert calls[0].id == wanted and (form.identity == "number" or len(wanted) == 9 and wanted.isalnum())


@pytest.mark.parametrize("family", SEVERAL)
def test_several_calls(family):
    form = FORMATS[family]
    wanted = [("search", NASTY), ("get_weather", {"city": "Bern"}), ("search", {})]
    text, calls, invalid = parse_calls(write(form, *wanted), form, NAMES)
    assert (text, plain(calls), invalid) == ("", wanted, [])
    assert len({call.id for call in calls}) == 3
    text, calls, invalid = parse_calls(write(form, *wanted), form, NAMES, limit=1)
    assert text == "" and plain(calls) == wanted[:1]
    assert [(each.name, json.loads(each.arguments), each.error) for each in invalid] == [
        (name, arguments, "one call an answer is allowed") for name, arguments in wanted[1:]
    ]


@pytest.mark.parametrize("family", SEVERAL)
def test_text_around_is_kept(family):
    form = FORMATS[family]
    written = "Let me look.\n" + write(form, ("search", NASTY)) + "\nDone. {x}"
    text, calls, invalid = parse_calls(written, form, NAMES)
    assert (text, plain(calls), invalid) == ("Let me look.\nDone. {x}", [("search", NASTY)], [])


def test_calls_without_a_marker_begin_the_answer():
    form, call = FORMATS["llama"], write(FORMATS["llama"], ("search", {"q": 1}))
    assert plain(parse_calls("\n " + call, form, NAMES).calls) == [("search", {"q": 1})]
    assert parse_calls("For instance: " + call, form, NAMES) == ("For instance: " + call, [], [])


def test_white_space_and_the_order_of_keys_may_differ():
    form = FORMATS["qwen"]
    for text in (
        '<tool_call>{"name":"search","arguments":{"q":1}}</tool_call>',
        '<tool_call>\n\n{ "arguments": {"q": 1},\n "name" : "search" }\n </tool_call>\n',
        '<tool_call>\n{"name": "search", "arguments": "{\\"q\\": 1}"}\n</tool_call>',  # as a string of JSON
    ):
        assert (parse_calls(text, form, NAMES)[0], plain(parse_calls(text, form, NAMES)[1])) == (
            "",
            [("search", {"q": 1})],
        )


@pytest.mark.parametrize(
    "text", ["<tool_call> is how a call begins, </tool_call> how it ends <tool_call>", "{}", "", " \n", "a <tool_"]
)
def test_what_is_no_call_is_text(text):
    assert parse_calls(text, FORMATS["qwen"], NAMES) == (text, [], [])
    assert streamed(FORMATS["qwen"], text) == (text, [], [])


BROKEN = {
    "unknown": (
        '<tool_call>\n{"name": "unknown", "arguments": {"a": 1}}\n</tool_call>',
        ("unknown", '{"a": 1}', "no tool is called 'unknown'; there are get_weather, search"),
    ),
    "a list": (
        '<tool_call>\n{"name": "search", "arguments": [1]}\n</tool_call>',
        ("search", "[1]", "its arguments are a JSON list, not an object"),
    ),
    "no arguments": (
        '<tool_call>\n{"name": "search"}\n</tool_call>',
        ("search", "", "its arguments are missing, or not a JSON object"),
    ),
    "no name": ('<tool_call>\n{"name": 1, "arguments": {}}\n</tool_call>', (None, "{}", "it names no tool")),
    "no JSON": (
        '<tool_call>\n{"name": "search", "arguments": {q: 1}}\n</tool_call>',
        ("search", "{q: 1}}", "it is not JSON at character 33: Expecting property name enclosed in double quotes"),
    ),
    "unfinished": (
        '<tool_call>\n{"name": "search", "arguments": {"q": "cut of',
        ("search", '{"q": "cut of', "the answer ended before it: it is not JSON at character 38: Unterminated string "
                                    "starting at"),
    ),
    "unclosed": (
        '<tool_call>\n{"name": "search", "arguments": {}}',
        ("search", "{}", "the answer ended before it: </tool_call> is missing after it"),
    ),
    "nested": ("<tool_call>" + '{"a": ' * 20_000, (None, "", "the answer ended before it: it is nested too deep")),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 5, 10**6])
@pytest.mark.parametrize("case", BROKEN)
def test_a_call_that_cannot_be_made_is_no_text(case, size):
    text, wanted = BROKEN[case]
    shown, calls, invalid = streamed(FORMATS["qwen"], "Well.\n" + text, size if case != "nested" else 10**4)
    assert (shown, calls) == ("Well.", [])
    assert [(each.name, each.arguments, each.error) for each in invalid] == [wanted]


@pytest.mark.parametrize("family", FORMATS)
def test_a_call_that_is_cut_anywhere_is_no_text(family):
    form = FORMATS[family]
    whole = write(form, ("search", {"q": 'a "b" }', "n": [1, {}]}))
    first = len(form.before + form.marker + "{") if form.keys else len(form.before + form.head)
    certain = first if form.marked else whole.index("name") + len('name": "s')
    for end in range(certain, len(whole)):
        text, calls, invalid = streamed(form, whole[:end], cut=True)
        finished = not calls and len(invalid) == 1 and invalid[0].error == "max_new_tokens cut it before its end"
        # Nothing but what stands around the calls is missing.
        closed = calls and not invalid and form.after.endswith(whole[end:].strip())
        assert text == "" and (finished or closed), whole[:end]
        if invalid and (arguments := invalid[0].arguments):
            assert invalid[0].name == "search" and '{"q": "a \\"b\\" }", "n": [1, {}]}'.startswith(arguments)


@pytest.mark.parametrize("family", SEVERAL)
def test_the_second_of_two_calls_is_cut(family):
    form = FORMATS[family]
    one, two = write(form, ("search", {})), write(form, ("search", {}), ("get_weather", {"city": "Bern"}))
    for end in range(len(one) - len(form.after) + 1, len(two)):
        text, calls, invalid = streamed(form, "So:\n" + two[:end], cut=True)
        assert text == "So:" and plain(calls)[:1] == [("search", {})], two[:end]
        assert len(invalid) + len(calls) <= 2 and all(each.name in (None, "get_weather") for each in invalid)


def test_an_end_that_only_might_have_become_a_call_is_text():
    for text in ("a < b <", "x <t", "for [", "<table>"):
        assert streamed(FORMATS["qwen"], text, cut=True) == (text, [], [])
    assert streamed(FORMATS["qwen"], "Well. <tool_c", cut=True)[0] == "Well."
    for text in ('{"name": "Ann", "age": 3', '{"name": "Ann', '{"names": ['):
        assert streamed(FORMATS["llama"], text, cut=True) == (text, [], [])


def test_a_call_behind_what_only_looks_like_one():
    form = FORMATS["qwen"]
    call = write(form, ("search", {}))
    for before, left, error in (
        ("<tool_call>", "<tool_call>", None),
        ('<tool_call>\n{"name": 1}\n</tool_call>', "", "it names no tool"),
        ("<tool_call>{", "", "it is not JSON: a key is missing at its end"),
    ):
        text, calls, invalid = parse_calls(before + call, form, NAMES)
        assert (text, plain(calls)) == (left, [("search", {})])
        assert [each.error for each in invalid] == ([error] if error else [])


# --- streaming ------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("family", FORMATS)
def test_no_part_of_a_call_is_shown(family, size):
    form = FORMATS[family]
    before = "" if family == "llama" else 'I <b>think</b> [so] {"name"}. '
    whole = before + write(form, ("search", NASTY))
    stream = ToolCallStream(form, NAMES, parallel=True)
    shown = "".join(stream.push(whole[at : at + size]) for at in range(0, len(whole), size))
    assert before.startswith(shown)
    rest, calls, invalid = stream.finish()
    assert shown + rest == before.rstrip() and plain(calls) == [("search", NASTY)] and not invalid


def test_text_is_shown_as_soon_as_it_is_no_call():
    stream = ToolCallStream(FORMATS["qwen"], NAMES, parallel=True)
    assert stream.push("a <tool") == "a"
    assert stream.push("box> b") == " <toolbox> b"
    assert stream.push("<tool_call>\n") == ""
    assert stream.push("in prose ") == "<tool_call>\nin prose"
    assert stream.push("<tool_call>\n{") == ""
    assert stream.push("later") == ""
    rest, calls, invalid = stream.finish()
    assert (rest, calls, len(invalid)) == ("", [], 1)


def test_text_of_a_family_without_a_marker():
    stream = ToolCallStream(FORMATS["llama"], NAMES, parallel=True)
    assert stream.push("\n") == ""
    assert stream.push('{"na') == ""
    assert stream.push('meless": 1} ') == '\n{"nameless": 1}'
    assert stream.push('{"name": "search", "parameters": {}}') == ' {"name": "search", "parameters": {}}'
    assert stream.push("\n") == ""
    assert stream.finish() == ("\n", [], [])


BARE = '{\n  "name": "search",\n  "arguments": {"q": "cats"}\n}'


@pytest.mark.parametrize("family", FORMATS)
@pytest.mark.parametrize("written", [BARE, f"```json\n{BARE}\n```", f"\n```\n{BARE}\n```\n", f"```json\n{BARE}```"])
def test_an_answer_that_is_nothing_but_a_calls_json_is_one(family, written):
    """As Qwen2.5-Coder writes them, whatever its template says."""
    text, calls, invalid = streamed(FORMATS[family], written)
    assert text == "" and plain(calls) == [("search", {"q": "cats"})] and not invalid


@pytest.mark.parametrize(
    "written",
    [
        f"It is this:\n```json\n{BARE}\n```",
        f"```json\n{BARE}\n```\nThat was it.",
        BARE.replace("search", "delete_everything"),
        "```json\n[1]\n```",
        "```python\nprint()\n```",
    ],
)
def test_json_that_is_only_a_part_of_an_answer_is_text(written):
    assert streamed(FORMATS["qwen"], written) == (written, [], [])


@pytest.mark.parametrize("family", ["qwen", "mistral", "tagged"])
def test_a_bare_call_that_cannot_be_made(family):
    for written, arguments, error in (
        (f"```json\n{BARE}", '{"q": "cats"}', "its code fence does not end"),
        (BARE.replace('{"q": "cats"}', "[]"), "[]", "its arguments are a JSON list, not an object"),
        (BARE[:-5], '{"q": "cat', "it is not JSON at character 42: Unterminated string starting at"),
    ):
        text, calls, invalid = streamed(FORMATS[family], written)
        assert (text, calls) == ("", []) and invalid[0].name == "search" and invalid[0].arguments == arguments
        assert invalid[0].error.startswith(error[:14])
    cut = streamed(FORMATS[family], BARE[:-5], cut=True).invalid
    assert [(each.name, each.error) for each in cut] == [("search", "max_new_tokens cut it before its end")]


@pytest.mark.parametrize("family", ["qwen", *NEWER_FORMATS])
def test_long_text_is_read_in_linear_time(family):
    form = FORMATS[family]
    blanks = "Well." + " \n" * 20_000
    call = write(form, ("search", {"q": form.tail * 2_000, "n": [" " * 20_000]}))
    for text in (blanks + "x", blanks, "<" * 20_000, '<tool_call>{"a": "' + "</" * 20_000, call, call[:-30], call * 3):
        streamed(form, text, size=1000, cut=True)
