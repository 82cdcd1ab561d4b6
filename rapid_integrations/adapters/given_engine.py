"""An engine that a host's LLM class is given (`engine=...`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rapid_integrations.errors import ConfigurationError, EngineClosedError, shown


def require_engine(engine: Any) -> None:
    """Refuse what is no engine.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(engine, (str, Path)):
        raise ConfigurationError(
            f"engine={str(engine)!r} is a name: engine=... takes a RapidEngine that is there already; a name goes to "
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
        raise EngineClosedError("the engine that was given")
