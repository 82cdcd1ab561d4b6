"""Patterns of JSON schemas (ECMA-262) in the two dialects that they are matched with."""

import json

import pytest
import regex

from rapid_integrations import StructuredOutput
from rapid_integrations.structured import grammar_of
from rapid_integrations.structured.patterns import enforceable_patterns, for_python, is_pattern
from tests.toys.grammar_walk import is_written


def is_taken(pattern, text):
    """Return whether the grammar of a pattern takes a text."""
    asked = StructuredOutput(json_schema={"type": "string", "pattern": pattern})
    assert grammar_of(asked).unenforced == ()
    return is_written(asked, json.dumps(text, ensure_ascii=False))


# pattern, what it matches, and what it does not
MEANT = {
    "digits": (r"^\d$", "5", "\u0665"),
    "no digit": (r"^\D$", "\u0665", "5"),
    "words": (r"^\w+$", "a_9Z", "\u00e9"),
    "no word": (r"^\W$", "\u00e9", "a"),
    "blanks": (r"^\s+$", " \u00a0\u2003\ufeff", "a"),
    "no blank": (r"^\S$", "a", "\ufeff"),
    "in a class": (r"^[\d\s-]+$", "1 -2", "a"),
    "not in a class": (r"^[^\d\s]+$", "ab", "a b"),
    "a negated one in a class": (r"^[\Dx]$", "y", "5"),
    "code points": (r"^\u0041\u{42}$", "AB", "ab"),
    "a pair of surrogates": (r"^\uD83D\uDE00$", "\U0001f600", "a"),
    "a solidus": (r"^a\/b$", "a/b", "a\\/b"),
    "angle brackets": (r"^\<a\>$", "<a>", "a"),
    "a bracket in a class": (r"^[[a]$", "[", "]"),
    "a bracket behind a class": (r"^[a[b]]$", "[]", "a"),
    "ampersands in a class": (r"^[a&&b]$", "&", "c"),
    "a range of hyphens": (r"^[+\--0]$", "/", "*"),
    "a class of POSIX": (r"^[[:alpha:]]+$", "abc", "a1"),
    "a bracket that is first": (r"^[]a]$", "]", "b"),
    "a named group": (r"^(?<year>[0-9]{2})$", "19", "1"),
    "the end, as Python has it": (r"\A[a-z]\Z", "a", "ab"),
    "letters of any script": (r"^\p{Letter}+$", "\u03c0", "1"),
    "bars in a class": (r"^[a||b]$", "|", "c"),
    "anywhere": ("b", "abc", "ac"),
}


@pytest.mark.parametrize("name", MEANT)
def test_both_dialects_mean_what_was_written(name):
    pattern, right, wrong = MEANT[name]
    assert is_taken(pattern, right) and not is_taken(pattern, wrong)
    found = [regex.search(for_python(pattern), text, flags=regex.V1) for text in (right, wrong)]
    assert found[0] is not None and found[1] is None


def test_a_pattern_is_taken_apart_or_given_up():
    assert enforceable_patterns(r"^(?=.*[A-Z])(?=x).{8,}$") == (r"^(?:.*[A-Z])", "^(?:x)", "^.{8,}$")
    assert enforceable_patterns(r"^(?!^[-+.]*$)[+-]?0*[0-9]*$") == (r"[^-+.]", r"^[+-]?0*[0-9]*$")
    assert enforceable_patterns(r"^(?<year>[0-9]{4})\Z") == (r"^(?P<year>[0-9]{4})$",)
    assert enforceable_patterns(r"^(?=a|b)[|]c$") == ("^(?:a|b)", "^[|]c$")
    # In the last ones the look-ahead belongs to a part of the pattern only, or may be left out.
    for pattern in (r"a(?=b)c", r"^(?!.*foo).*$", r"(a)\1", "(", "\ud800", "^(?=a)b|c", "^(?=a)?b", "^(?!^[ab]*$)c|d"):
        assert enforceable_patterns(pattern) is None


def test_repeats_at_an_open_end_are_as_short_as_they_may_be():
    for pattern, found in (("[a-z]{1,255}", "[a-z]{1}"), ("^[a-z]{1,255}", "^[a-z]{1}"), ("a{2,}b{3,9}", "a{2}b{3}")):
        assert enforceable_patterns(pattern) == (found,)
    for pattern in ("^[a-z]{1,255}$", "a{1,2}|b{1,2}", "(a{1,2})", r"\.\{1,2}", "a{1,2}?b"):
        assert enforceable_patterns(pattern) == (pattern,)


def test_what_is_a_regular_expression():
    assert is_pattern(r"([abc])+\s+$") and is_pattern("") and is_pattern("a" * 10_000)
    for text in ("^(abc]", "[a", "(?P<a>b)", "(?i)a", r"a\Z", r"\\\a"):
        assert not is_pattern(text)
    assert is_pattern(r"(?<a>b)\\a") and is_pattern("(?:a)(?!b)")
