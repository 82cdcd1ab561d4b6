"""The commands of all pages exist; what `rapid ask` is told there, it does (on a tiny model)."""

import functools
import re
import shlex

import pytest

from rapid_integrations.cli.app import app
from tests.docs.pages import LOG, PAGES
from tests.toys.command_line import CliRunner
from tests.toys.repository import ROOT

COMMAND = re.compile(
    r"^(?:    )?(?:cat (?P<input>\S+) \| )?(?:\.venv/bin/)?rapid (?P<words>(?:.*\\\n)*.*)$", re.MULTILINE
)
COMMANDS = [
    pytest.param(found["words"].replace("\\\n", " "), found["input"], id=f"{path.name}-{found['words'][:50]}")
    for path in PAGES
    for found in COMMAND.finditer(path.read_text())
]
MODULES = [str(each) for each in ROOT.rglob("*.py") if ".venv" not in each.parts]
ASKED = [command for command in COMMANDS if command.values[0].startswith("ask ")]


@functools.cache
def help_of(*name):
    result = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(("command", "standard_input"), COMMANDS)
def test_it_exists_with_its_options(command, standard_input):
    words = shlex.split(command)
    name = []
    while words and re.fullmatch(r"[a-z]+(-[a-z]+)*", words[0]):
        name.append(words.pop(0))
    said = help_of(*name)
    for option in (word for word in words if word.startswith("-") and len(word) > 1):
        assert option in said, option


@pytest.mark.parametrize(("command", "standard_input"), ASKED)
def test_it_answers(command, standard_input, tiny_models, workplace):
    text = (workplace / standard_input).read_text() if standard_input else None
    result = CliRunner().invoke(app, shlex.split(command), input=text)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()


def test_there_are_commands():
    assert len(ASKED) > 5 and len(COMMANDS) > 20


@pytest.mark.parametrize("path", [*PAGES, *LOG], ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    text = path.read_text()
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text):
        assert (path.parent / target).exists(), target
    headings = {
        re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.M)
    }
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in headings, anchor


def test_every_module_that_is_named_is_there():
    for path in PAGES:
        for name in re.findall(r"`([\w/]+\.py)\b", path.read_text()):
            assert any(f"/{each}".endswith(f"/{name}") for each in MODULES), f"{path.name} names {name}"


FIGURE = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)")


def without_a_measurement(text, entries):
    """Return the sentences (rows, items) whose figures do not stand together in any of the entries."""
    measured = [set(FIGURE.findall(entry)) for entry in entries]
    sentences = re.split(r"(?<=[.:;])\s|\n\n|\n(?=[|-] )", text)
    return [each for each in sentences if not any(set(FIGURE.findall(each)) <= figures for figures in measured)]


@pytest.mark.parametrize("name", ["tuning.md", "limits.md"])
def test_the_figures_of_a_sentence_were_measured_together(name):
    entries = [path.read_text() for path in (*LOG, PAGES[0])]
    assert without_a_measurement((ROOT / "docs" / name).read_text(), entries) == []


def test_figures_that_were_never_measured_together_are_found():
    entries = ["It took 1.5 s, before 2.5 s.", "Another took 3.5 s."]
    text = "From 2.5 to 1.5 s. Then 3.5 s.\n\n- From 2.5 to 3.5 s."
    assert without_a_measurement(text, entries) == ["- From 2.5 to 3.5 s."]


def test_every_entry_of_the_log_is_in_its_index():
    entries = [path for path in LOG if path.name != "README.md"]
    indexed = set(re.findall(r"\]\((\d{4}-\d\d-\d\d-[\w-]+\.md)\)", (ROOT / "docs" / "log" / "README.md").read_text()))
    assert indexed == {path.name for path in entries}
    for path in entries:
        assert path.read_text().startswith(f"# {path.name[:10]}: "), path.name
