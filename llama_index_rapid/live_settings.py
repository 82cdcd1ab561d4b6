"""Settings that are changed on an LLM that is there already: checked, and honoured by the next call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from llama_index.core.bridge.pydantic import ValidationError
from llama_index.core.llms.function_calling import FunctionCallingLLM

from rapid_integrations.adapter_fields import ModelFields
from rapid_integrations.config import explain_validation_error
from rapid_integrations.errors import ConfigurationError

# Read when the models are loaded. The file with embeddings belongs to what finds passages, which may be made anew.
_LOADING = frozenset(ModelFields.model_fields) - {"embedding_cache"}
_ALIASES = {"max_tokens": "max_new_tokens", "stop_sequences": "stop"}


class LiveSettings(FunctionCallingLLM):
    """Checks what is assigned to a field of an LLM whose models are loaded."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field.

        Raises:
            ConfigurationError: no field, a value that cannot work, or a field that is read when models are loaded.
        """
        if not name.startswith("_") and self._is_loaded():
            value = self._checked(name, value)
        super().__setattr__(name, value)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, checked like an assignment."""
        copied = super().model_copy(deep=deep)
        for name, value in (update or {}).items():
            setattr(copied, name, value)
        return copied

    def _is_loaded(self) -> bool:
        return "_engine" in (getattr(self, "__pydantic_private__", None) or {})

    def _checked(self, name: str, value: Any) -> Any:
        kind = type(self)
        if name not in kind.model_fields:
            if isinstance(getattr(kind, name, None), property):
                return value
            known = f"it is called {_ALIASES[name]}" if name in _ALIASES else f"it has: {', '.join(kind.model_fields)}"
            raise ConfigurationError(f"{kind.__name__} has no option {name!r} that could be set; {known}")
        if name in _LOADING:
            current = getattr(self, name)
            if value is current or (type(value) is type(current) and isinstance(value, str) and value == current):
                return current
            raise ConfigurationError(
                f"{name}={value!r:.100} is read when the models are loaded, so setting it now would have no effect. "
                f"Build another: {kind.__name__}({name}=...)"
            )
        probe = kind.model_construct()
        try:
            kind.__pydantic_validator__.validate_assignment(probe, name, value)
        except ValidationError as error:
            raise ConfigurationError(explain_validation_error(kind, error)) from None
        return probe.__dict__[name]
