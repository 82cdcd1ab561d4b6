"""What one process of `rapid bench question` reports: how long people wait for the first token, by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

STAGES: Final = {
    "cold": "cold start",
    "first": "first",
    "ahead": "read ahead",
    "second": "second",
    "restart": "after restart",
}
"""The questions with their titles. "cold" and "restart" count from the start of a process, the others from the call."""

PARTS: Final = {
    "imports": "imports",
    "load": "load",
    "retrieval": "retrieval",
    "prefill": "prefill",
    "drafter": "drafter",
    "first_round": "round",
}
"""The parts of a wait in their order, with their titles."""

RUNS: Final[Mapping[str, tuple[str, ...]]] = {
    "cold": ("cold",),
    "warm": ("first", "second"),
    "ahead": ("ahead",),
    "restart": ("restart",),
}
"""The processes of a method, and the stages that each of them measures. "ahead" writes the files of "restart"."""

PRIOR: Final = {"ahead": "first", "second": "first", "restart": "cold"}
"""The stage that a later one is compared with."""


@dataclass(frozen=True)
class Wait:
    """The wait for one answer, in seconds.

    Attributes:
        first_token_s: to the first tokens, from the start of the process ("cold", "restart") or from the call.
        parts: seconds of each of `PARTS` that the engine tells apart. What they leave is rendering and tokenizing.
        first_token_cpu_s: processor seconds of the same time, all threads of the process.
        total_s: to the end of the answer.
        tokens: number of tokens of the answer.
        prompt_tokens: number of tokens of the target's prompt.
        cached_tokens: how many of them were cached; None if the engine does not say.
    """

    first_token_s: float
    parts: dict[str, float]
    first_token_cpu_s: float
    total_s: float
    tokens: int
    prompt_tokens: int
    cached_tokens: int | None
