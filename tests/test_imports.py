"""The import rules of the design, read from the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rapid_integrations

PACKAGE = Path(rapid_integrations.__file__).parent
FRAMEWORKS = ("llama_index", "langchain", "langchain_core", "langchain_classic")


def imported(path: Path) -> set[str]:
    """Return every module that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def files(folder: str = "") -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


@pytest.mark.parametrize("path", files("compression"), ids=lambda p: p.name)
def test_compression_imports_no_models(path):
    assert not {m for m in imported(path) if m.startswith("rapid_integrations.models")}


@pytest.mark.parametrize("path", files("sampling"), ids=lambda p: p.name)
def test_sampling_imports_only_torch(path):
    others = {m.split(".")[0] for m in imported(path)} - set(sys.stdlib_module_names)
    assert others <= {"torch", "rapid_integrations"}
    assert all(m.startswith("rapid_integrations.sampling") for m in imported(path) if m.startswith("rapid_"))


@pytest.mark.parametrize("path", files("decoding"), ids=lambda p: p.name)
def test_decoding_sees_only_the_contracts(path):
    for module in imported(path):
        if module.startswith("rapid_integrations.proposers"):
            assert module == "rapid_integrations.proposers.base"
        if module.startswith("rapid_integrations.models"):
            assert module == "rapid_integrations.models.causal_lm"
        assert not module.startswith("transformers")


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_engine_imports_no_framework(path):
    assert not {m for m in imported(path) if m.split(".")[0] in FRAMEWORKS}


def test_every_public_name_is_there():
    for name in rapid_integrations.__all__:
        assert getattr(rapid_integrations, name) is not None
    assert sorted(rapid_integrations.__all__) == rapid_integrations.__all__
    with pytest.raises(AttributeError, match="no attribute 'RapidEngin'"):
        _ = rapid_integrations.RapidEngin


@pytest.mark.parametrize("statement", ["import rapid_integrations", "import rapid_integrations.cli"])
def test_importing_loads_no_torch(statement):
    code = f"import sys; {statement}; print([m for m in ('torch', 'transformers', 'faiss') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
