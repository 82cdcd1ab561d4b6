"""`init_chat_model("rapid:NAME")`: LangChain's factory told of this package."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from langchain_rapid.responses import PROVIDER
from rapid_integrations.errors import ConfigurationError


def register_provider() -> None:
    """Have `langchain.chat_models.init_chat_model` build a `ChatRapid` for the provider "rapid".

        register_provider()
        init_chat_model("rapid:smollm2-135m-instruct", max_tokens=100)
        create_agent("rapid:Qwen/Qwen2.5-1.5B-Instruct", tools)

    LangChain has no public way in for other packages (1.5: a module-level table), so this enters the table; calling it
    again changes nothing.

    Raises:
        ConfigurationError: a version of langchain without that table. Build `ChatRapid` itself then.
        ImportError: langchain is not installed.
    """
    factory: Any = import_module("langchain.chat_models.base")
    table = getattr(factory, "_BUILTIN_PROVIDERS", None)
    if not isinstance(table, dict) or not all(isinstance(entry, tuple) and len(entry) == 3 for entry in table.values()):
        raise ConfigurationError(
            "this version of langchain keeps its table of providers elsewhere, so init_chat_model cannot be told of "
            f"{PROVIDER!r}: build the model itself, ChatRapid(model=...); whatever takes a name takes that, too"
        )
    table[PROVIDER] = ("langchain_rapid", "ChatRapid", _build)


def _build(cls: type[Any], model: str, **settings: Any) -> Any:
    return cls(model=model, **settings)
