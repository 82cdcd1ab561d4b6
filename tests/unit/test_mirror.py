"""tests/unit mirrors the packages: a module's test is found by the module's path, and a test's module by the test's."""

import re

from tests.toys.repository import ROOT

UNIT = ROOT / "tests" / "unit"
# Tests of no single module. The list may only become shorter.
EXCEPTIONS = {
    "test_mirror.py": "this one",
    "documents/test_office.py": "what all formats of office programs have in common",
    "documents/test_repository.py": "a source repository, read as a folder",
    "kernels/cpu/test_kernel_edges.py": "widths and values at which any kernel could go wrong",
    "kernels/cpu/test_sanitizers.py": "the C++ sources under sanitizers",
    "prompt/segmentation/test_behind_documents.py": "what stands beside a question, of all modules of segmentation",
    "prompt/segmentation/test_unseen.py": "layouts that somebody wrote who had not seen the segmenter",
    "trace/test_browser.py": "the page in a real browser",
}


def is_there(test):
    """Return whether the module or package is there that a test is named after; `test_imports` is about its package."""
    place = test.relative_to(UNIT).parent
    adapter = place.parts and place.parts[0] in ("llama_index_rapid", "langchain_rapid")
    name = test.stem.removeprefix("test_")
    parents = [ROOT / place if adapter else ROOT / "rapid_integrations" / place]
    if place.parts == ("benchmarks",):
        parents.append(ROOT / "benchmarks")  # scripts
    return any(
        (parent / f"{name}.py").exists()
        or any((parent / f"{name}.{kind}").exists() for kind in ("cpp", "h"))
        or (parent / name / "__init__.py").exists()
        or (name == "imports" and (parent / "__init__.py").exists())
        for parent in parents
    )


def test_units_mirror_the_packages():
    tests = sorted(UNIT.rglob("test_*.py"))
    assert len(tests) > 100
    found = {str(test.relative_to(UNIT)) for test in tests if not is_there(test)}
    assert found - EXCEPTIONS.keys() == set(), "name these after the module that they test, or move them out of unit/"
    assert EXCEPTIONS.keys() - found == set(), "take these off the list"


# What other tests import from. The list may only become shorter: what several tests need belongs into tests/toys.
LENDERS = {
    "tests.hostile.test_grammars",  # by its own children
}


def test_tests_import_nothing_from_each_other():
    pattern = re.compile(r"^ *from (tests\.[\w.]*\btest_\w+) import", re.MULTILINE)
    found = {name for path in (ROOT / "tests").rglob("*.py") for name in pattern.findall(path.read_text())}
    assert found - LENDERS == set(), "move what others need into tests/toys"
    assert LENDERS - found == set(), "take these off the list"
