"""Settings that are changed on an LLM that is there already: checked, and followed by the next call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ValidationError

from rapid_integrations.adapters.constructor_arguments import under_own_names
from rapid_integrations.adapters.fields import ModelFields, RequestFields, engine_defaults
from rapid_integrations.adapters.held_engine import HoldsEngine
from rapid_integrations.config import SETTING_ALIASES, explain_validation_error, kind_of, unknown_name
from rapid_integrations.errors import ConfigurationError


class LiveSettings(HoldsEngine, RequestFields):
    """Checks what is assigned to a field of an LLM whose models are loaded.

    Other libraries' names for settings work, too (`llm.max_tokens = 2`). What decides which models are loaded cannot be
    assigned: a copy with `model_copy(update=...)` loads them.
    """

    def model_post_init(self, context: Any, /) -> None:
        """Pass on to the host's own (pydantic would put its own for private attributes in its place)."""
        super().model_post_init(context)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field.

        Raises:
            ConfigurationError: no field, a value that cannot work, or a field that decides what is loaded.
        """
        if name.startswith("_") or not self._is_set_up():
            super().__setattr__(name, value)
            return
        kind = type(self)
        if name not in kind.model_fields:
            name = SETTING_ALIASES.get(name, name)
        if name not in kind.model_fields:
            if isinstance(getattr(kind, name, None), property):
                raise ConfigurationError(f"{kind.__name__}.{name} is read from the model and cannot be set")
            raise ConfigurationError(unknown_name(kind.__name__, name, kind.model_fields, SETTING_ALIASES))
        before = getattr(self, name)
        super().__setattr__(name, self._checked(name, value))
        if not self._is_loaded():  # it has come from another process, and loads when it is used
            return
        try:
            self._when_set(name)
        except Exception:
            super().__setattr__(name, before)
            raise

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, checked like an assignment.

        It shares the engine, unless `update` changes what is loaded.

        Raises:
            ConfigurationError: see `__setattr__`.
        """
        own = under_own_names(type(self), update or {})
        copied = super().model_copy(
            update={name: value for name, value in own.items() if name in ModelFields.model_fields}, deep=deep
        )
        for name, value in own.items():
            if name not in ModelFields.model_fields:
                setattr(copied, name, value)
        return copied

    def _when_set(self, name: str) -> None:
        """Bring up to date what was made of a setting that has changed."""

    def _checked(self, name: str, value: Any) -> Any:
        """Return a field's value as its class takes it."""
        if name in ModelFields.model_fields:
            return value  # `HoldsEngine` has the word
        if name in RequestFields.model_fields and value is None:
            return engine_defaults(self._engine)[name]  # as in the constructor
        kind = type(self)
        probe = kind.model_construct()
        try:
            kind.__pydantic_validator__.validate_assignment(probe, name, value)
        except ValidationError as error:
            raise ConfigurationError(explain_validation_error(kind, error), code=kind_of(error)) from None
        return probe.__dict__[name]
