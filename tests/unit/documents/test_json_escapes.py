"""Characters that JSON's writers escape."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.documents import read_documents
from rapid_integrations.documents.json_escapes import is_escaped_json, unescaped

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_it_stays_the_same_json(value):
    text = json.dumps([value])
    assert json.loads(unescaped(text)) == [value]
    assert json.loads(unescaped(text.replace("/", r"\/"))) == [value]


@pytest.mark.parametrize(
    ("escaped", "shown"),
    [
        (json.dumps("Müller, 契約, 😀"), '"Müller, 契約, 😀"'),
        (r'"https:\/\/example.org \u003ca\u003e \u0026"', '"https://example.org <a> &"'),  # PHP, Go, .NET
        (r'"a\u00A0b"', '"a\xa0b"'),
        (r'"\u0022 \u005c \u000a \u2028 \ud800 \udc00 \n \" \\u00fc"',) * 2,  # would be other JSON or no text
    ],
)
def test_letters_are_written_out(escaped, shown):
    assert unescaped(escaped) == shown


def test_json_is_known_by_its_name_or_its_content():
    for text, name in (
        ('{"a": "\\u00fc",', "cut.json"),
        ('{"a": "\\u00fc"}\n{"a": "b"}\n', "-"),
        (' {\n"a": "\\u00fc"}', "response"),
        ('["\\u00fc"]', "x.txt"),
    ):
        assert is_escaped_json(text, name)
    for text, name in (("\\u00fc", "a.json"), ('{"a": 1}', "a.json"), ("[see \\u00fc]", "a.md"), ("{\\bf x}", "a.tex")):
        assert not is_escaped_json(text, name)


def test_a_file_is_read_with_its_letters(tmp_path):
    (tmp_path / "people.json").write_text(json.dumps({"name": "Müller"}))
    (tmp_path / "code.py").write_text('x = "\\u00fc"\n')
    code, people = read_documents(tmp_path)
    assert people.text == '{"name": "Müller"}' and code.text == 'x = "\\u00fc"\n'
