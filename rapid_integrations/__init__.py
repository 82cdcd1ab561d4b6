"""RAPID: retrieval-augmented speculative decoding for questions over long documents, on your own models.

Importing this package loads no model code; that happens when an engine is built.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rapid_integrations.chat import Chat
from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig, StructuredOutput
from rapid_integrations.documents import Document, Documents, read_document, read_documents
from rapid_integrations.errors import (
    CacheError,
    ConfigurationError,
    ContextOverflowError,
    DocumentError,
    DownloadError,
    IncompleteOutputError,
    MissingExtraError,
    ModelLoadError,
    PromptError,
    RapidError,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from rapid_integrations.outputs import Completion, CompletionChunk, DecodeStats, RetrievedChunk, ToolCall, Usage
from rapid_integrations.prompt import Prompt

if TYPE_CHECKING:
    from rapid_integrations.engine import CompletionStream, RapidEngine
    from rapid_integrations.prepared import PreparedPrompt

__version__ = "0.1.0"

__all__ = [
    "CacheError",
    "Chat",
    "Completion",
    "CompletionChunk",
    "CompletionStream",
    "CompressionConfig",
    "ConfigurationError",
    "ContextOverflowError",
    "DecodeStats",
    "Document",
    "DocumentError",
    "Documents",
    "DownloadError",
    "IncompleteOutputError",
    "MissingExtraError",
    "ModelLoadError",
    "PreparedPrompt",
    "Prompt",
    "PromptError",
    "RapidEngine",
    "RapidError",
    "RetrievedChunk",
    "SamplingParams",
    "SpeculationConfig",
    "StructuredOutput",
    "ToolCall",
    "UnsupportedModelError",
    "Usage",
    "VocabularyMismatchError",
    "read_document",
    "read_documents",
]

_NEEDS_TORCH = {"CompletionStream", "PreparedPrompt", "RapidEngine"}


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(import_module("rapid_integrations.engine"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_NEEDS_TORCH])
