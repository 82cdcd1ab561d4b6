"""Base of the settings, and what is said of settings that are wrong."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from rapid_integrations.config.names import SETTING_ALIASES, unknown_name
from rapid_integrations.errors import ConfigurationError


class Settings(BaseModel):
    """Base of the settings: frozen, no unknown keys, and errors from this package's own tree."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigurationError(explain_validation_error(type(self), error), code=kind_of(error)) from None


def kind_of(error: ValidationError) -> str:
    """Return the finer code of what pydantic found: the names come first, since a wrong name has no right value."""
    names = any(each["type"] == "extra_forbidden" for each in error.errors())
    return "unknown_name" if names else "wrong_value"


def explain_validation_error(settings: type[BaseModel], error: ValidationError) -> str:
    """Return one sentence for each invalid field: the value and the rule, or for an unknown name the likely one."""
    rules: dict[str, list[str]] = {}
    unknown: list[str] = []
    for item in error.errors():
        field = str(item["loc"][0]) if item["loc"] else ""
        if item["type"] == "extra_forbidden":
            unknown.append(unknown_name(settings.__name__, field, settings.model_fields, SETTING_ALIASES))
        else:
            given = f"{settings.__name__}.{field}={item['input']!r}" if field else settings.__name__
            rules.setdefault(given, []).append(item["msg"])
    return "; ".join([*unknown, *(f"{given}: {', or '.join(messages)}" for given, messages in rules.items())])
