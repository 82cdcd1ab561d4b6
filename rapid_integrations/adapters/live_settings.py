"""Settings that are changed on a loaded LLM. They are checked, and the next call uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ValidationError

from rapid_integrations.adapters.constructor_arguments import under_own_names
from rapid_integrations.adapters.fields import ModelFields, RequestFields, engine_defaults
from rapid_integrations.adapters.held_engine import HoldsEngine
from rapid_integrations.config import SETTING_ALIASES, explain_validation_error, kind_of, unknown_name
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.prompt import TemplateArguments


class LiveSettings(HoldsEngine, RequestFields):
    """Checks assignments to the fields of an LLM whose models are loaded.

    Other libraries' names for settings work, too (`llm.max_tokens = 2`). Fields that decide which models are loaded
    cannot be assigned. `model_copy(update=...)` returns a copy that loads other models.
    """

    def model_post_init(self, context: Any, /) -> None:
        """Call the host class's method. Without this, pydantic's own for private attributes would replace it."""
        super().model_post_init(context)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field.

        Raises:
            ConfigurationError: the name is unknown, the value is invalid, or the field decides what is loaded.
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
        if not self._is_loaded():  # it was unpickled, and loads when it is first used
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
        """Hook for the host's class: update what was built from a setting that has changed."""

    def _settle_parts(self) -> None:
        super()._settle_parts()
        self._engine.vocabulary.require_arguments(TemplateArguments(self.chat_template_kwargs))

    def _checked(self, name: str, value: Any) -> Any:
        """Return a field's value, validated."""
        if name in ModelFields.model_fields:
            return value  # `HoldsEngine` checks it
        if name in RequestFields.model_fields and value is None:
            return engine_defaults(self._engine)[name]  # as in the constructor
        kind = type(self)
        probe = kind.model_construct()
        try:
            kind.__pydantic_validator__.validate_assignment(probe, name, value)
        except ValidationError as error:
            raise ConfigurationError(explain_validation_error(kind, error), code=kind_of(error)) from None
        return probe.__dict__[name]
