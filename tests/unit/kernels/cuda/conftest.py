"""Tests of Triton's kernels run in its interpreter, and are skipped without it: see `make test-triton`."""

import importlib.util
import os

import pytest

WITHOUT = {"test_availability.py", "test_graph.py", "test_launching.py", "test_places.py", "test_step_layer.py"}
"""Tests that need no interpreter."""


class _Skipped(pytest.Module):
    def _getobj(self):
        raise pytest.skip.Exception(self.config.stash[_REASON], allow_module_level=True)


_REASON = pytest.StashKey[str]()


def pytest_pycollect_makemodule(module_path, parent):
    if module_path.name in WITHOUT or module_path.parent.name != "cuda":
        return None
    if importlib.util.find_spec("triton") is None:
        reason = "Triton is not installed: make test-triton"
    elif os.environ.get("TRITON_INTERPRET") != "1":
        reason = "TRITON_INTERPRET=1 is not set: make test-triton"
    else:
        return None
    parent.config.stash[_REASON] = reason
    return _Skipped.from_parent(parent, path=module_path)


def pytest_collection_modifyitems(items):
    """Let the interpreter's NumPy overflow to infinity, as a GPU does, without a warning that would be an error."""
    for item in items:
        if item.path.parent.name == "cuda":
            item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
