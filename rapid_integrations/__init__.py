"""RAPID: retrieval-augmented speculative decoding for questions over long documents, on your own models.

Importing this package loads none of its modules. Each name is loaded when it is first used, and model code when an
engine is built.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig, StructuredOutput
    from rapid_integrations.documents import Document, Documents, read_document, read_documents
    from rapid_integrations.engine.chat import Chat
    from rapid_integrations.engine.engine import CompletionStream, RapidEngine
    from rapid_integrations.engine.prepared_prompt import PreparedPrompt
    from rapid_integrations.errors import (
        CacheError,
        ConfigurationError,
        ContextOverflowError,
        DocumentError,
        DownloadError,
        EngineClosedError,
        ForkedProcessError,
        HostPartError,
        IncompleteOutputError,
        MissingExtraError,
        ModelLoadError,
        NotANumberError,
        NotPicklableError,
        OutOfMemoryError,
        PromptError,
        RapidError,
        RemoteError,
        UnsupportedModelError,
        VocabularyMismatchError,
    )
    from rapid_integrations.outputs import (
        Completion,
        CompletionChunk,
        DecodeStats,
        InvalidToolCall,
        ReadAhead,
        RetrievedChunk,
        ToolCall,
        Usage,
    )
    from rapid_integrations.prompt import Prompt
    from rapid_integrations.server.remote.drafter import RemoteDrafter
    from rapid_integrations.server.remote.engine import RemoteEngine

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
    "EngineClosedError",
    "ForkedProcessError",
    "HostPartError",
    "IncompleteOutputError",
    "InvalidToolCall",
    "MissingExtraError",
    "ModelLoadError",
    "NotANumberError",
    "NotPicklableError",
    "OutOfMemoryError",
    "PreparedPrompt",
    "Prompt",
    "PromptError",
    "RapidEngine",
    "RapidError",
    "ReadAhead",
    "RemoteDrafter",
    "RemoteEngine",
    "RemoteError",
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

_HOMES = {
    "engine.chat": ("Chat",),
    "documents": ("Document", "Documents", "read_document", "read_documents"),
    "config": ("CompressionConfig", "SamplingParams", "SpeculationConfig", "StructuredOutput"),
    "engine.engine": ("CompletionStream", "RapidEngine"),
    "outputs": (
        "Completion",
        "CompletionChunk",
        "DecodeStats",
        "InvalidToolCall",
        "ReadAhead",
        "RetrievedChunk",
        "ToolCall",
        "Usage",
    ),
    "engine.prepared_prompt": ("PreparedPrompt",),
    "prompt": ("Prompt",),
    "server.remote.drafter": ("RemoteDrafter",),
    "server.remote.engine": ("RemoteEngine",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"rapid_integrations.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
