"""Reading calls out of text, whole and streamed."""

import json

import pytest

from rapid_integrations.tool_calls import ToolCallStream, parse_calls
from tests.tool_calls.test_call_format import learn
from tests.toys.chat_templates import LLAMA31, MISTRAL, QWEN25, TAGGED

FORMATS = {"qwen": learn(QWEN25), "llama": learn(LLAMA31), "mistral": learn(MISTRAL), "tagged": learn(TAGGED)}
NAMES = {"search", "get_weather"}
NASTY = {"q": 'a "quoted" {brace} </tool_call> ] \\ \n', "n": {"deep": [1, {"x": None}]}, "ü": "東京 🙂"}


def write(form, *calls):
    """Return what a model that keeps to the format writes."""
    written = [
        form.head
        + name
        + form.middle
        + json.dumps(arguments, ensure_ascii=False)
        + form.tail
        + ("" if form.id_tail is None else f"abc12345{number}" + form.id_tail)
        for number, (name, arguments) in enumerate(calls)
    ]
    return form.before + form.between.join(written) + form.after


def plain(calls):
    return [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize("family", FORMATS)
@pytest.mark.parametrize("arguments", [{}, {"q": "cats"}, NASTY], ids=["none", "one", "nasty"])
def test_one_call(family, arguments):
    form = FORMATS[family]
    text, calls = parse_calls(write(form, ("search", arguments)), form, NAMES)
    assert (text, plain(calls)) == ("", [("search", arguments)])
    assert calls[0].id == "abc123450" if form.id_tail else len(calls[0].id) == 9 and calls[0].id.isalnum()


@pytest.mark.parametrize("family", ["qwen", "mistral", "tagged"])
def test_several_calls(family):
    form = FORMATS[family]
    wanted = [("search", NASTY), ("get_weather", {"city": "Bern"}), ("search", {})]
    text, calls = parse_calls(write(form, *wanted), form, NAMES)
    assert (text, plain(calls)) == ("", wanted)
    assert len({call.id for call in calls}) == 3
    text, calls = parse_calls(write(form, *wanted), form, NAMES, limit=1)
    assert plain(calls) == wanted[:1] and "Bern" in text


@pytest.mark.parametrize("family", ["qwen", "mistral", "tagged"])
def test_text_around_is_kept(family):
    form = FORMATS[family]
    written = "Let me look.\n" + write(form, ("search", NASTY)) + "\nDone. {x}"
    text, calls = parse_calls(written, form, NAMES)
    assert (text, plain(calls)) == ("Let me look.\n\nDone. {x}", [("search", NASTY)])


def test_calls_without_a_marker_begin_the_answer():
    form, call = FORMATS["llama"], write(FORMATS["llama"], ("search", {"q": 1}))
    assert plain(parse_calls("\n " + call, form, NAMES)[1]) == [("search", {"q": 1})]
    assert parse_calls("For instance: " + call, form, NAMES) == ("For instance: " + call, [])


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
    "text",
    [
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "search", "arguments": [1]}\n</tool_call>',
        '<tool_call>\n{"name": "search"}\n</tool_call>',
        '<tool_call>\n{"name": "search", "arguments": {"q": "cut of',
        '<tool_call>\n{"name": "search", "arguments": {}}',
        "<tool_call> is how a call begins, </tool_call> how it ends <tool_call>",
        '<tool_call>{"a": ' + '{"a": ' * 2000,
        "{}",
        "",
    ],
)
def test_what_is_no_call_is_text(text):
    assert parse_calls(text, FORMATS["qwen"], NAMES) == (text, [])
    stream = ToolCallStream(FORMATS["qwen"], NAMES, parallel=True)
    shown = "".join(stream.push(character) for character in text)
    rest, calls = stream.finish()
    assert (shown + rest, calls) == (text, [])


def test_a_call_behind_what_only_looks_like_one():
    form = FORMATS["qwen"]
    call = write(form, ("search", {}))
    for before in ("<tool_call>", '<tool_call>\n{"name": 1}\n</tool_call>', "<tool_call>{"):
        text, calls = parse_calls(before + call, form, NAMES)
        assert (text, plain(calls)) == (before, [("search", {})])


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
    rest, calls = stream.finish()
    assert shown + rest == before and plain(calls) == [("search", NASTY)]


def test_text_is_shown_as_soon_as_it_is_no_call():
    stream = ToolCallStream(FORMATS["qwen"], NAMES, parallel=True)
    assert stream.push("a <tool") == "a "
    assert stream.push("box> b") == "<toolbox> b"
    assert stream.push("<tool_call>\n") == ""
    assert stream.push("in prose ") == "<tool_call>\nin prose "
    assert stream.push("<tool_call>\n{") == ""
    assert stream.push("later") == ""
    assert stream.finish() == ("<tool_call>\n{later", [])


def test_text_of_a_family_without_a_marker():
    stream = ToolCallStream(FORMATS["llama"], NAMES, parallel=True)
    assert stream.push("\n") == "\n"
    assert stream.push('{"na') == ""
    assert stream.push('meless": 1} ') == '{"nameless": 1} '
    assert stream.push('{"name": "search", "parameters": {}}') == '{"name": "search", "parameters": {}}'
    assert stream.finish() == ("", [])


BARE = '{\n  "name": "search",\n  "arguments": {"q": "cats"}\n}'


@pytest.mark.parametrize("family", FORMATS)
@pytest.mark.parametrize("written", [BARE, f"```json\n{BARE}\n```", f"\n```\n{BARE}\n```\n", f"```json\n{BARE}```"])
def test_an_answer_that_is_nothing_but_a_calls_json_is_one(family, written):
    """As Qwen2.5-Coder writes them, whatever its template says."""
    stream = ToolCallStream(FORMATS[family], NAMES, parallel=True)
    shown = "".join(stream.push(character) for character in written)
    rest, calls = stream.finish()
    assert (shown + rest).strip() == "" and plain(calls) == [("search", {"q": "cats"})]


@pytest.mark.parametrize(
    "written",
    [
        f"It is this:\n```json\n{BARE}\n```",
        f"```json\n{BARE}\n```\nThat was it.",
        BARE.replace("search", "delete_everything"),
        f"```json\n{BARE}",
        BARE.replace('{"q": "cats"}', "[]"),
        "```json\n[1]\n```",
        "```python\nprint()\n```",
    ],
)
def test_json_that_is_only_a_part_of_an_answer_is_text(written):
    stream = ToolCallStream(FORMATS["qwen"], NAMES, parallel=True)
    shown = "".join(stream.push(character) for character in written)
    rest, calls = stream.finish()
    assert (shown + rest, calls) == (written, [])
