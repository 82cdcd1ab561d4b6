"""Speculative RAG (arXiv 2407.08223): several drafts from subsets of the passages, of which the target chooses one.

    subsets       clusters the passages, and takes one of each cluster into each subset
    scores        lets a model score texts that follow prompts, all of them together
    drafting      writes a draft from each subset, all of them together
    choice        scores the drafts and chooses; start here
    settings      how many drafts, from how many passages

The target never reads all passages, so this is cheap. It is another method than RAPID, whose target reads everything.

Importing this package loads no model code. Each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapid_integrations.engine.speculative_rag.choice import ScoredDraft, SpeculativeAnswer, SpeculativeRAG
    from rapid_integrations.engine.speculative_rag.settings import SpeculativeRAGConfig

__all__ = ["ScoredDraft", "SpeculativeAnswer", "SpeculativeRAG", "SpeculativeRAGConfig"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "settings" if name == "SpeculativeRAGConfig" else "choice"
    return getattr(import_module(f"{__name__}.{module}"), name)
