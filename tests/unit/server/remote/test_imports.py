"""A client of a server needs `httpx` alone: the modules of its side import no package of the extra `server`."""

import ast

from tests.toys.source_tree import MODULES, imports_of

CLIENTS = ("engine", "drafter", "openai_back_end", "sglang_back_end", "rapid_back_end", "link")
OF_SERVERS = {"starlette", "uvicorn", "prometheus_client", "python_multipart", "ray"}


def reached(name, seen):
    if name not in seen and name in MODULES:
        seen.add(name)
        for other in imports_of(MODULES[name]):
            if other.startswith("rapid_integrations.server."):
                reached(other, seen)
    return seen


def packages(path):
    tree = ast.parse(path.read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def test_the_modules_of_a_client_import_no_package_of_servers():
    seen = set()
    for client in CLIENTS:
        reached(f"rapid_integrations.server.remote.{client}", seen)
    assert len(seen) > len(CLIENTS)
    assert {name for name in seen if packages(MODULES[name]) & OF_SERVERS} == set()
    assert packages(MODULES["rapid_integrations.server.remote.complete_routes"]) & OF_SERVERS  # they would be found
