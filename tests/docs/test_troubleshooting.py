"""docs/troubleshooting.md: every error class has a section, and every message that it quotes is one of the code's."""

import ast
import inspect
import re
from functools import cache

import pytest

from rapid_integrations import errors
from tests.toys.repository import ROOT

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", TEXT, re.MULTILINE))
# A message's own words; "..." stands for what the code fills in. (The first of a field's ranges is pydantic's text.)
QUOTED = [
    message
    for name, section in SECTIONS.items()
    if name.endswith("Error") or name == "Warnings" or name.startswith("Errors of")
    for cell in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    + re.findall(r"^(`\.\.\. .*?`)", section, re.MULTILINE)
    for message in re.findall(r"`([^`]+)`", cell)
    if "temperature" not in message
]


@cache
def messages() -> list[str]:
    """Return every string of the sources, its filled-in parts as "{}"."""
    found = []
    for folder in ("rapid_integrations", "llama_index_rapid", "langchain_rapid"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


@pytest.mark.parametrize("error", [name for name in errors.__all__ if name != "RapidError"])
def test_every_error_class_has_a_section(error):
    assert len(SECTIONS[error]) > 100


def test_every_error_class_is_in_the_tree_and_public():
    classes = inspect.getmembers(errors, lambda each: inspect.isclass(each) and issubclass(each, errors.RapidError))
    assert sorted(name for name, _ in classes) == errors.__all__
    for name in errors.__all__:
        assert re.search(rf"\b{name}\b", errors.__doc__), name


@pytest.mark.parametrize("quoted", QUOTED)
def test_every_quoted_message_is_one_of_the_code(quoted):
    words = [word for word in re.split(r"\.\.\.\.?|=\.\.\.", quoted) if word.strip(" =:,.;")]
    pattern = re.compile(".*".join(re.escape(word.strip()) for word in words), re.DOTALL)
    assert words and any(pattern.search(message) for message in messages())


def test_there_are_quoted_messages():
    assert len(QUOTED) > 50
