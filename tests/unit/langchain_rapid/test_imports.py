"""The package needs its own extra only, and importing it is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import langchain_rapid

PACKAGE = Path(langchain_rapid.__file__).parent
NEEDED = {"langchain_core", "langchain_rapid", "pydantic", "rapid_integrations"}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_only_the_extra_is_imported(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    assert names - set(sys.stdlib_module_names) <= NEEDED


@pytest.mark.process
def test_importing_loads_no_torch_and_no_other_framework():
    unwanted = ("torch", "transformers", "llama_index", "llama_index_rapid", "langchain", "langchain_classic")
    code = (
        "import sys, langchain_core.language_models.llms; hosts_own = set(sys.modules)\n"  # 1.4 takes a tokenizer
        f"import langchain_rapid; print([m for m in {unwanted} if m in sys.modules.keys() - hosts_own])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_is_there():
    assert sorted(langchain_rapid.__all__) == langchain_rapid.__all__
    assert all(getattr(langchain_rapid, name) is not None for name in langchain_rapid.__all__)
