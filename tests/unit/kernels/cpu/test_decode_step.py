"""A step of the decoder, and all other kernels, can be read: no function is longer than two pages."""

import re

import pytest

from rapid_integrations.kernels.cpu.interface import FOLDER, SOURCES

LINES = 120
FILES = (*SOURCES, *sorted(FOLDER.glob("*.h")))
NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)
# A template's parameters are called classes, too.
AROUND_FUNCTIONS = re.compile(r"(?<!<)(?<!, )\b(namespace|extern|struct|class|enum|union)\b")


def longest_function(source):
    """Return the lines of the longest block that is no namespace and no type, from its opening brace to its end."""
    code = NOT_CODE.sub(lambda found: "\n" * found[0].count("\n"), source)
    open_ones, longest, heading = [], 0, 0
    for place, sign in enumerate(code):
        if sign == "{":
            around = AROUND_FUNCTIONS.search(code, heading, place)
            open_ones.append(None if around else place)
        if sign == "}":
            begin = open_ones.pop()
            if begin is not None:
                longest = max(longest, code.count("\n", begin, place) + 1)
        if sign in "{};":
            heading = place + 1
    return longest


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_function_is_longer_than_two_pages(path):
    assert longest_function(path.read_text()) <= LINES


def test_the_longest_function_is_found():
    source = 'namespace {\nstruct S {  // "{"\n  int f(int x) {\n    if (x) {\n      g("}");\n    }\n  }\n};\n\n\n}\n'
    assert longest_function(source) == 5
    assert longest_function("template <class A, class B>\nvoid f(A a) {\n  B b;\n}") == 3
    assert longest_function("void f() {\n  auto g = [&](int x) {\n    return x;\n  };\n}") == 5
