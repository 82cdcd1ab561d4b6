"""The import rules of the design, read from the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rapid_integrations
from tests.toys.imports import PACKAGE, files, imported

FRAMEWORKS = ("llama_index", "langchain", "langchain_core", "langchain_classic")


def offences(paths: list[Path], forbidden) -> list[tuple[str, str]]:
    """Return which file imports which module that it must not."""
    assert len(paths) > 1, "no files to look at"
    return [(str(path), module) for path in paths for module in imported(path) if forbidden(module)]


def test_compression_imports_no_models():
    assert offences(files("compression"), lambda module: module.startswith("rapid_integrations.models")) == []


def test_sampling_is_mathematics_in_torch():
    known = {"torch", *sys.stdlib_module_names}
    types_only = {"rapid_integrations.config", "rapid_integrations.config.Eta"}

    def forbidden(module):
        ours = f"{module}.".startswith("rapid_integrations.sampling.") or module in types_only
        return module.split(".")[0] not in known and not ours

    assert offences(files("sampling"), forbidden) == []


@pytest.mark.process
def test_sampling_loads_none_of_the_other_folders():
    code = """import sys, rapid_integrations
before = set(sys.modules)
import rapid_integrations.sampling
print(sorted(m for m in set(sys.modules) - before if m.startswith('rapid_') and '.sampling' not in m))"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_decoding_sees_only_the_contracts():
    def forbidden(module):
        models = module.startswith("rapid_integrations.models")
        contract = f"{module}.".startswith("rapid_integrations.models.causal_lm.")
        proposers = module.startswith("rapid_integrations.proposers")
        return (models and not contract) or proposers or module.startswith("transformers")

    assert offences(files("decoding"), forbidden) == []


def test_the_engine_imports_no_framework():
    # A benchmark asks through LangChain's `batch`, and imports it when it is run.
    others = [path for path in files() if path.name != "ways_to_ask.py"]
    assert offences(others, lambda module: module.split(".")[0] in FRAMEWORKS) == []


def test_an_offence_is_found(tmp_path):
    for name, line in (("a.py", "import torch"), ("b.py", "def f():\n    from langchain_core import x")):
        (tmp_path / name).write_text(line)
    found = offences(sorted(tmp_path.iterdir()), lambda module: module.split(".")[0] in FRAMEWORKS)
    assert set(found) == {(str(tmp_path / "b.py"), name) for name in ("langchain_core", "langchain_core.x")}


ADAPTERS = [
    path
    for package in ("langchain_rapid", "llama_index_rapid")
    for path in sorted((PACKAGE.parent / package).rglob("*.py"))
]


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_adapters_use_public_names_only(path):
    ours = [m for m in imported(path) if m.startswith("rapid_integrations")]
    assert not [m for m in ours if any(part.startswith("_") for part in m.split("."))]
    inner = ("models", "decoding", "sampling", "cache", "proposers")
    assert not [m for m in ours if m.split(".")[1:2] and m.split(".")[1] in inner]
    private = [
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if isinstance(node.value, ast.Attribute | ast.Name)
        and getattr(node.value, "attr", getattr(node.value, "id", "")) in ("engine", "_engine", "compressor", "stream")
    ]
    assert private == []


def test_the_reader_of_imports_sees_every_form(tmp_path):
    (tmp_path / "f.py").write_text(
        "import a.b\ndef f():\n    from c import d as e\n    from rapid_integrations import models\n"
    )
    assert imported(tmp_path / "f.py") == {"a.b", "c", "c.d", "rapid_integrations", "rapid_integrations.models"}


def test_every_public_name_is_there():
    for name in rapid_integrations.__all__:
        assert getattr(rapid_integrations, name) is not None
    assert sorted(rapid_integrations.__all__) == rapid_integrations.__all__
    with pytest.raises(AttributeError, match="no attribute 'RapidEngin'"):
        _ = rapid_integrations.RapidEngin


HEAVY = ("torch", "transformers", "sentence_transformers", "faiss", "numpy", "pandas", "matplotlib", "tokenizers")
OF_THE_ENGINE = ("transformers", "sentence_transformers", "torch._dynamo", "sympy", "scipy", "pandas", "matplotlib")


@pytest.mark.process
@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import rapid_integrations", (*HEAVY, "pydantic", "typer", "rich")),
        ("import rapid_integrations.cli.app", (*HEAVY, "rapid_integrations.prompt.segmentation.segmenter")),
        ("import rapid_integrations.engine.engine", OF_THE_ENGINE),
    ],
)
def test_importing_loads_nothing_that_takes_long(statement, absent):
    code = f"import sys; {statement}; print([m for m in {absent!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
