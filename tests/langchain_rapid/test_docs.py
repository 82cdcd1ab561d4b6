"""docs/langchain.md names the tests that show its claims: they must exist."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent


def test_the_docs_table_names_tests_that_exist():
    rows = re.findall(r"`(test_\w+\.py)::(?:(\w+)::)?(\w+)`", (FOLDER.parents[1] / "docs" / "langchain.md").read_text())
    assert len(rows) > 15
    for file, group, name in rows:
        text = (FOLDER / file).read_text()
        assert f"def {name}(" in (text.partition(f"class {group}")[2] if group else text), name
