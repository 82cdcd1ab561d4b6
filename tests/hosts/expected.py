"""Which tests of the suites cannot pass with our classes, and why."""

from __future__ import annotations

import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent / "expected"


def expected_failures(distribution: str) -> dict[str, str]:
    """Return a reason for each test that cannot pass, by the test's id; an id without parameters is for all of them.

    Raises:
        ValueError: a test is listed twice, or a group has no reason or no tests.
    """
    with (FOLDER / f"{distribution}.toml").open("rb") as file:
        groups = tomllib.load(file)["group"]
    reasons: dict[str, str] = {}
    for group in groups:
        if not group["reason"].strip() or not group["tests"]:
            raise ValueError(f"{distribution}.toml: a group needs a reason and tests, not {group}")
        for test in group["tests"]:
            if test in reasons:
                raise ValueError(f"{distribution}.toml: {test} is listed twice")
            reasons[test] = group["reason"]
    return reasons
