"""Runs the suites of LlamaIndex and LangChain twice: with their own fake models, and with our classes in their place.

python -m tests.hosts --llama-index path/to/a/checkout
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from tests.hosts.environment import python_for_suites
from tests.hosts.expected import expected_failures
from tests.hosts.sources import SuiteNotFoundError, laid_out, version_of
from tests.hosts.suites import SUITES, Suite, suite_of
from tests.hosts.verdict import judge

SECONDS_A_TEST = 300
# What llama-index-core brings along, for its worker processes too: without it they ask the network, and wait for ever.
TOKENIZERS = files("llama_index.core") / "_static" / "tiktoken_cache"


def run(python: Path, suite: Suite, root: Path, options: list[str], *, ours: bool) -> dict[str, Any]:
    """Run a suite and return what `session.Recording` wrote down; pytest's output goes on to the terminal."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        arguments: list[str | Path] = []
        if ours:
            reasons = Path(folder) / "expected.json"
            reasons.write_text(json.dumps(expected_failures(suite.distribution)), encoding="utf-8")
            arguments = ["--install", " ".join(suite.install), "--expected", reasons]
        session = Path(__file__).with_name("session.py")
        subprocess.run(
            [python, session, *arguments, root, record, *suite.paths, f"--timeout={SECONDS_A_TEST}", *options],
            env={"TIKTOKEN_CACHE_DIR": str(TOKENIZERS), "OMP_NUM_THREADS": "1", **os.environ},
            check=False,  # failed tests are judged below
        )
        if not record.exists():
            raise SystemExit(f"{suite.distribution}: pytest did not get to its end; see above")
        written: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return written


def main() -> int:
    """Run them; returns 1 if a test failed or passed that should not have, or could not be had."""
    asked = argparse.ArgumentParser(prog="python -m tests.hosts", description=__doc__.splitlines()[0])
    asked.add_argument("--llama-index", type=Path, help="a checkout of LlamaIndex's repository")
    asked.add_argument("--langchain", type=Path, help="a checkout of LangChain's repository, in place of the sdist")
    asked.add_argument("--langgraph", type=Path, help="a checkout of LangGraph's repository, in place of the sdist")
    asked.add_argument("--only", choices=[suite.distribution for suite in SUITES], help="one of the suites")
    asked.add_argument("--cache", type=Path, default=user_cache_path("rapid-integrations") / "hosts")
    given, options = asked.parse_known_args()
    checkouts = {
        "llama-index-core": given.llama_index,
        "langchain": given.langchain,
        "langgraph-prebuilt": given.langgraph,
    }
    report, clean = [], True
    for suite in [suite_of(given.only)] if given.only else SUITES:
        title = f"{suite.distribution} {version(suite.distribution)}"
        try:
            root = laid_out(suite, checkouts[suite.distribution], given.cache)
        except SuiteNotFoundError as error:
            report += [f"== {title}: not run", str(error)]
            clean = False
            continue
        python = python_for_suites(given.cache / "venv")
        baseline = run(python, suite, root, options, ours=False)
        verdict = judge(baseline, run(python, suite, root, options, ours=True), expected_failures(suite.distribution))
        report += [f"== {title}, tests of {version_of(root)}", *verdict.lines()]
        clean = clean and verdict.clean
    print("\n".join(["", *report]))
    return not clean


if __name__ == "__main__":
    sys.exit(main())
