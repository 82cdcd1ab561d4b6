"""Reading documents needs neither models nor frameworks, and UTF-8 text needs no reader."""

import subprocess
import sys

import pytest

from tests.toys.imports import files, imported
from tests.toys.repository import ROOT

READERS = ("pypdfium2", "openpyxl", "striprtf", "markdownify", "bs4", "lxml", "chardet", "webencodings")


@pytest.mark.parametrize("path", files("documents"), ids=lambda p: p.name)
def test_documents_import_only_each_other_and_the_errors(path):
    ours = {m for m in imported(path) if m.startswith("rapid_integrations")}
    assert all(m.startswith(("rapid_integrations.documents", "rapid_integrations.errors")) for m in ours)
    others = {m.split(".")[0] for m in imported(path) - ours} - set(sys.stdlib_module_names)
    assert others <= set(READERS)


@pytest.mark.process
def test_text_is_read_without_the_extra(tmp_path):
    (tmp_path / "a.md").write_text("Größe")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({READERS}));"
        "from rapid_integrations.documents import read_documents;"
        "assert [each.text for each in read_documents(sys.argv[1])] == ['Größe'];"
        "print([m for m in ('torch', 'transformers', 'jinja2') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
