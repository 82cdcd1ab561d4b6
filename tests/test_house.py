"""The house of `rapid_integrations`: its rooms, and which room may import which."""

import ast
import subprocess
from collections import defaultdict

import pytest

from tests.toys.repository import ROOT
from tests.toys.source_tree import MODULES, PACKAGE, imports_of

GROUND = ("errors", "progress", "config", "outputs")
"""The ground floor: every room may use these, each of them only those before it. None imports torch."""

FLOORS = (
    "packaged",
    "sampling",
    "documents",
    "prompt",
    "compression",
    "cache",
    "kernels",
    "models",
    "structured",
    "tool_calls",
    "decoding",
    "proposers",
    "trace",
    "engine",
    "adapters",
    "evaluation",
    "benchmarks",
    "server",
    "cli",
)
"""Every room may import those before it."""

TOP = {
    *(".ci", ".gitignore", "CMakeLists.txt", "Makefile", "constraints.txt", "pyproject.toml"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md"),
    *("rapid_integrations", "llama_index_rapid", "langchain_rapid", "tests"),
    *("benchmarks", "cookbooks", "deploy", "docs", "examples"),
}
"""What lies at the top of the repository."""

FILES = {"__init__.py", "__main__.py", "py.typed", "errors.py", "progress.py", "outputs.py"}


def whole_graph() -> dict[str, set[str]]:
    return {name: imports_of(path) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of nodes that reach each other (Tarjan's strongly connected components of two or more)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_the_rooms_are_those_of_the_design():
    entries = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert {name for name in entries if (PACKAGE / name).is_file()} == FILES
    assert {name for name in entries if (PACKAGE / name).is_dir()} <= {"config", *FLOORS}
    assert len(entries) <= 26


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout knows which files are its own")
def test_nothing_lies_at_the_top_by_mistake():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {name.split("/")[0] for name in tracked.split("\0") if name} <= TOP


def test_no_module_imports_itself_by_way_of_others():
    # A package's own `__init__` names what lies in it, and what lies in it may name the package.
    graph = {
        name: {other for other in imported if not name.startswith(f"{other}.")}
        for name, imported in whole_graph().items()
    }
    assert circles(graph) == []


def test_no_room_imports_itself_by_way_of_others():
    graph = defaultdict(set)
    for name, imported in whole_graph().items():
        graph[room_of(name)] |= {room_of(other) for other in imported} - {room_of(name), ""}
    del graph[""]  # the door: it names what is public, and is imported by nobody
    assert circles(graph) == []


def test_nothing_is_imported_from_a_higher_floor():
    order = (*GROUND, *FLOORS)
    inside = [name for name in MODULES if room_of(name) not in ("", "__main__")]
    upward = [
        (name, other)
        for name in inside
        for other in imports_of(MODULES[name])
        if room_of(other) and order.index(room_of(other)) > order.index(room_of(name))
    ]
    assert len(inside) > 100 and upward == []


@pytest.mark.parametrize("name", GROUND)
def test_the_ground_floor_imports_no_torch(name):
    paths = [path for module, path in MODULES.items() if room_of(module) == name]
    for node in [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {each.split(".")[0] for each in names} & {"torch", "numpy", "transformers"}
    assert paths


def test_a_family_of_models_is_one_short_file():
    """Names are mapped there, and nothing is computed: less than 80 lines, without tricks."""
    families = [path for name, path in MODULES.items() if name.startswith("rapid_integrations.models.families.")]
    described = {path.name: path.read_text() for path in families if "\nCLASSES = " in path.read_text()}
    assert len(described) > 35 and {name for name, text in described.items() if text.count("\n") >= 80} == set()


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
