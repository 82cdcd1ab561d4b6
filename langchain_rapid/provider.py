"""Registration with LangChain's factory, for `init_chat_model("rapid:NAME")`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from langchain_rapid.responses import PROVIDER
from rapid_integrations.errors import ConfigurationError


def register_provider() -> None:
    """Register the provider "rapid", so that `langchain.chat_models.init_chat_model` builds a `ChatRapid` for it.

        register_provider()
        init_chat_model("rapid:smollm2-135m-instruct", max_tokens=100)
        create_agent("rapid:Qwen/Qwen2.5-1.5B-Instruct", tools)

    LangChain has no public function for this, so it adds an entry to a module-level table (as of 1.5). Calling it again
    changes nothing.

    Raises:
        ConfigurationError: this version of langchain has no such table. Build `ChatRapid` directly instead.
        ImportError: langchain is not installed.
    """
    factory: Any = import_module("langchain.chat_models.base")
    table = getattr(factory, "_BUILTIN_PROVIDERS", None)
    if not isinstance(table, dict) or not all(isinstance(entry, tuple) and len(entry) == 3 for entry in table.values()):
        raise ConfigurationError(
            "this version of langchain keeps its table of providers elsewhere, so init_chat_model cannot be told of "
            f"{PROVIDER!r}: build ChatRapid(model=...) and pass it wherever a model's name is accepted"
        )
    table[PROVIDER] = ("langchain_rapid", "ChatRapid", _build)


def _build(cls: type[Any], model: str, **settings: Any) -> Any:
    return cls(model=model, **settings)
