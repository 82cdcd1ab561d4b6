"""Checks of an engine that is given to a host's LLM class (`engine=...`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rapid_integrations.errors import ConfigurationError, EngineClosedError, shown


def require_engine(engine: Any) -> None:
    """Refuse anything but an open engine.

    Raises:
        ConfigurationError: the object is not an engine.
        EngineClosedError: the engine has been closed.
    """
    if isinstance(engine, (str, Path)):
        raise ConfigurationError(
            f"engine={str(engine)!r} is a name, but engine=... takes a RapidEngine object. A name goes to "
            f"target={str(engine)!r}"
        )
    if not callable(getattr(engine, "stream", None)) or not hasattr(engine, "vocabulary"):
        way_out = (
            "an LLM's engine is llm.rapid_engine"
            if hasattr(engine, "rapid_engine")
            else "build one with RapidEngine.from_pretrained(name) or RapidEngine.from_models(model, tokenizer)"
        )
        raise ConfigurationError(f"engine=... takes a RapidEngine, not {shown(engine)}: {way_out}")
    if getattr(engine, "closed", False):
        raise EngineClosedError("the given engine")
