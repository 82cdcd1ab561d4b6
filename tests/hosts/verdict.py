"""What two runs of a suite say together: one with its own fakes, one with our classes in their place."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Verdict:
    """Counts of tests, and the ids of those that somebody has to look at.

    Attributes:
        passed: with our classes.
        asked: of those, how many asked one of our classes something.
        expected: how many cannot pass, by reason.
        broken_anyway: do not pass with the suite's own fakes either (network, services, versions).
        skipped: by the suite itself.
        failed: why, by test: they pass with the suite's fakes, fail with ours, and nothing is said about them.
        surprising: pass although a reason is given why they cannot.
        unknown: listed as unable to pass, but not there.
    """

    passed: int = 0
    asked: int = 0
    expected: Counter[str] = field(default_factory=Counter)
    broken_anyway: list[str] = field(default_factory=list)
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    surprising: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether there is nothing to look at."""
        return not self.failed and not self.surprising

    def lines(self) -> list[str]:
        """Return it for people."""
        counts = [
            f"{self.passed} passed, {self.asked} of them with requests to our classes",
            f"{self.expected.total()} cannot pass, {len(self.broken_anyway)} fail with the suite's own fakes too, "
            f"{self.skipped} skipped",
        ]
        reasons = [f"  {count:4} {reason}" for reason, count in self.expected.most_common()]
        failed = [f"FAILED {test}: {why}" for test, why in self.failed.items()]
        surprising = [f"PASSED {test}: take it off the list of those that cannot" for test in self.surprising]
        unknown = [f"unknown: {test} is on the list, but is no test of this version" for test in self.unknown]
        return [*counts, *reasons, *failed, *surprising, *unknown]


def judge(baseline: dict[str, Any], ours: dict[str, Any], reasons: dict[str, str]) -> Verdict:
    """Compare two records of `session.Recording.written`.

    Args:
        baseline: with the suite's own fakes.
        ours: with our classes.
        reasons: why tests cannot pass, by id.
    """
    verdict = Verdict()
    tests = ours["tests"]
    for name, test in tests.items():
        reason = reasons.get(name) or reasons.get(name.split("[")[0])
        before = baseline["tests"].get(name, {"outcome": "failed"})["outcome"]
        if test["outcome"] == "skipped":
            verdict.skipped += 1
        elif test["outcome"] == "xfailed":
            verdict.expected[reason or test["why"]] += 1
        elif test["outcome"] == "passed":
            verdict.passed += 1
            verdict.asked += test["requests"] > 0
        elif test["why"].startswith("[XPASS(strict)]"):
            verdict.surprising.append(name)
        elif before == "passed":
            verdict.failed[name] = test["why"].splitlines()[0] if test["why"] else "no reason was given"
        else:
            verdict.broken_anyway.append(name)
    for file, why in ours["collect_errors"].items():
        if file not in baseline["collect_errors"]:
            verdict.failed[file] = why.splitlines()[-1]
    there = {*tests, *(name.split("[")[0] for name in tests)}
    verdict.unknown = [name for name in reasons if name not in there]
    return verdict
