"""The engine turns a prompt into a stream of text. Start with `running`, which reads in the order of its five stages.

Importing this package loads none of its modules. Each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapid_integrations.engine.engine import CompletionStream, RapidEngine
    from rapid_integrations.engine.prepared_prompt import PreparedPrompt

__all__ = ["CompletionStream", "PreparedPrompt", "RapidEngine"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("rapid_integrations.engine.engine"), name)
