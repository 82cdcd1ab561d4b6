"""Settings that are changed on a loaded model, under LangChain's rules."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseLanguageModel
from pydantic import BaseModel, TypeAdapter, ValidationError

from rapid_integrations.adapters.argument_names import MODEL_ALIASES
from rapid_integrations.adapters.fields import ModelFields, RequestFields
from rapid_integrations.adapters.live_settings import LiveSettings
from rapid_integrations.config import SETTING_ALIASES, explain_validation_error
from rapid_integrations.errors import ConfigurationError


class SettingsInUse(LiveSettings):
    """Checks assignments, copies with changes and configurable fields. Accepts LangChain's names for settings, too."""

    def model_post_init(self, context: Any, /) -> None:
        """Call LangChain's method. Without this, pydantic's own for private attributes would replace it."""
        super().model_post_init(context)

    def configurable_fields(self, **fields: Any) -> Any:
        """Allow settings in a call's configuration. LangChain's names for them work, too."""
        aliases = {**MODEL_ALIASES, **SETTING_ALIASES}
        if self.model is None:  # LangChain's name for `target`; but with a model object, `model` is its own field
            aliases["model"] = "target"
        own = {aliases.get(name, name): field for name, field in fields.items()}
        return super().configurable_fields(**own)  # type: ignore[misc]  # LangChain's class comes later in the MRO

    def _checked(self, name: str, value: Any) -> Any:
        if name in ModelFields.model_fields or (name in RequestFields.model_fields and value is None):
            return super()._checked(name, value)
        owner: type[BaseModel] = next(
            cls for cls in reversed(type(self).__mro__) if name in getattr(cls, "model_fields", ())
        )
        try:
            if not issubclass(owner, BaseLanguageModel):
                probe = owner.model_construct()
                owner.__pydantic_validator__.validate_assignment(probe, name, value)
                return getattr(probe, name)
            if owner.__module__.startswith("langchain_core."):
                return value  # LangChain does not check assignments to its own fields
            annotation: Any = owner.model_fields[name].annotation
            return TypeAdapter(annotation).validate_python(value)
        except ValidationError as error:
            if not error.errors()[0]["loc"]:
                reasons = ", or ".join(item["msg"] for item in error.errors())
                raise ConfigurationError(f"{type(self).__name__}.{name}={value!r:.200}: {reasons}") from None
            raise ConfigurationError(explain_validation_error(type(self), error)) from None
