"""Structured output: llguidance says which tokens may come next. It needs the extra `structured`.

Names are imported when they are first used, because bounds and checks are also needed without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapid_integrations.structured.grammar import Grammar, grammar_of
    from rapid_integrations.structured.matcher import GrammarConstraint

__all__ = ["Grammar", "GrammarConstraint", "grammar_of"]

_HOMES = {"Grammar": "grammar", "grammar_of": "grammar", "GrammarConstraint": "matcher"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
