"""One run of a suite: pytest in the suite's own folder, with its fakes or with our classes in their place.

Run as a script, because a suite has a package `tests` too: here that is the suite's, and ours lies behind it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


class Recording:
    """Writes down what became of each test, and in which of them our classes were asked something.

    Args:
        expected: the reason for each test that cannot pass, by its id (with or without parameters).
    """

    def __init__(self, expected: dict[str, str]) -> None:
        self.expected = expected
        self.tests: dict[str, dict[str, Any]] = {}
        self.collect_errors: dict[str, str] = {}
        self._before = 0

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Mark what cannot pass; if it passes after all, that is a failure."""
        import pytest

        for item in items:
            reason = self.expected.get(item.nodeid) or self.expected.get(item.nodeid.split("[")[0])
            if reason is not None:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    def pytest_runtest_setup(self) -> None:
        """Remember how many requests there were."""
        self._before = _requests()

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the worst of set-up, call and tear-down."""
        outcome = "xfailed" if report.outcome == "skipped" and hasattr(report, "wasxfail") else report.outcome
        test = self.tests.setdefault(report.nodeid, {"outcome": "passed", "why": "", "requests": 0})
        test["requests"] = _requests() - self._before
        if outcome != "passed" and test["outcome"] != "failed":
            test["outcome"] = outcome
            crash = getattr(report.longrepr, "reprcrash", None)
            test["why"] = str(crash.message if crash else report.longrepr or "").strip()[:500]

    def pytest_collectreport(self, report: Any) -> None:
        """Keep files that could not be imported."""
        if report.failed:
            self.collect_errors[report.nodeid] = str(report.longrepr).strip()[-500:]

    def written(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {"tests": self.tests, "collect_errors": self.collect_errors}


def _requests() -> int:
    puppet = sys.modules.get("tests.hosts.puppet")
    return 0 if puppet is None else int(puppet.requests_made)


def lay_ours_behind(root: Path) -> None:
    """Make `tests` the suite's package, in which ours is looked up for what the suite's has not."""
    here = str(Path(__file__).parent)
    sys.path[:] = [str(root), str(REPOSITORY), *(path for path in sys.path if path != here)]
    os.chdir(root)
    importlib.import_module("tests").__path__.append(str(REPOSITORY / "tests"))


def main() -> int:
    """Run it; returns pytest's code."""
    asked = argparse.ArgumentParser()
    asked.add_argument("root", type=Path)
    asked.add_argument("record", type=Path, help="a JSON file that is written")
    asked.add_argument("pytest", nargs=argparse.REMAINDER, help="paths and options")
    asked.add_argument("--install", default="", help="a module and the arguments of its install(), with spaces between")
    asked.add_argument("--expected", type=Path, help="a JSON file: reasons by test id")
    given = asked.parse_args()

    lay_ours_behind(given.root)
    import pytest

    if given.install:
        import torch

        torch.set_num_threads(1)
        module, *arguments = given.install.split()
        importlib.import_module(module).install(*arguments)
    recording = Recording(json.loads(given.expected.read_text()) if given.expected else {})
    code = pytest.main([*given.pytest, "-q", "-p", "no:cacheprovider"], plugins=[recording])
    given.record.write_text(json.dumps(recording.written()), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
