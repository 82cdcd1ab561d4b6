import time

import pytest

from rapid_integrations.compression import chunk_text
from rapid_integrations.compression.headings import headings_of
from tests.toys.offsets import WordTokenizer

LINE = "A sentence that is long enough to be the text of a section, as it has over eighty characters.\n"


def headings(text, size=16):
    chunks = chunk_text(text, WordTokenizer(), size)
    return [(chunk.text, heading) for chunk, heading in zip(chunks, headings_of(text, chunks), strict=True)]


def test_marked_headings_form_a_path():
    text = f"# Contract\n\n{LINE}\n## Fees\n\n{LINE * 3}\n# Annex\n\n{LINE * 2}"
    found = headings(text)
    assert found[0][1] == ""
    assert "Contract\nFees" in {heading for _, heading in found}
    assert found[-1][1] == "Annex"
    assert all("Fees" not in heading for chunk, heading in found if chunk.startswith("## Fees"))


def test_a_short_line_above_a_long_one_is_a_heading():
    found = headings(f"Restricted LCFRS\n{LINE * 3}\nMethods\n{LINE * 3}")
    assert [heading for _, heading in found][0] == ""
    assert {heading for _, heading in found} == {"", "Restricted LCFRS", "Methods"}


@pytest.mark.parametrize("line", ["It ends like a sentence.", "Is it?", "x" * 90, "He said,"])
def test_other_lines_are_none(line):
    assert {heading for _, heading in headings(f"{line}\n{LINE * 4}")} == {""}


def test_a_text_without_chunks_or_headings():
    assert headings_of("", []) == []
    assert headings_of(LINE, chunk_text(LINE, WordTokenizer(), 5)) == [""] * len(chunk_text(LINE, WordTokenizer(), 5))


@pytest.mark.parametrize("unit", [" ", "#", "# ", "\n", "a ", "\t\n", "#\n", "###### "])
def test_hostile_text_takes_linear_time(unit):
    text = unit * 300_000
    begin = time.process_time()
    headings_of(text, [])
    assert time.process_time() - begin < 2.0
