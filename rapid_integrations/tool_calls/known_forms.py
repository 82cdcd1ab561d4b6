"""The forms in which models write calls whose chat templates write none, known by the model's own tokens.

Sources: LiquidAI's, IBM's, Microsoft's and Hugging Face's model cards of LFM2, Granite 3.3, Phi-4-mini and SmolLM3.
"""

from __future__ import annotations

from collections.abc import Collection

from rapid_integrations.tool_calls.call_format import CallFormat
from rapid_integrations.tool_calls.literals import LiteralArguments


def known_form(marks: Collection[str]) -> CallFormat | None:
    """Return the form of a model that has these control tokens, None if they say nothing of calls."""
    if {"<|tool_call_start|>", "<|tool_call_end|>"} <= set(marks):
        return _literals("<|tool_call_start|>[", "]<|tool_call_end|>")
    if "<|tool_call|>" in marks:
        return _objects("<|tool_call|>[", ", ", "]" + ("<|/tool_call|>" if "<|/tool_call|>" in marks else ""))
    if {"<tool_call>", "</tool_call>"} <= set(marks):
        return _objects("", "\n", "", "<tool_call>\n", "\n</tool_call>")
    return None


def _literals(before: str, after: str) -> CallFormat:
    """Return the form of calls as in Python: `[NAME(city="Bern")]`."""
    return CallFormat(
        before=before,
        head="",
        middle="(",
        tail=")",
        between=", ",
        after=after,
        id_tail=None,
        parallel=True,
        arguments_as_text=False,
        marker="",
        keys=None,
        closing="",
        tagged=LiteralArguments("=", ", ", '"'),
    )


def _objects(before: str, between: str, after: str, marker: str = "", closing: str = "") -> CallFormat:
    """Return the form of calls that are JSON objects with "name" and "arguments"."""
    return CallFormat(
        before=before,
        head=marker + '{"name": "',
        middle='", "arguments": ',
        tail="}" + closing,
        between=between,
        after=after,
        id_tail=None,
        parallel=True,
        arguments_as_text=False,
        marker=marker,
        keys=("name", "arguments", None),
        closing=closing,
    )
