"""Settings that are changed on a model that is there: checked as in the constructor, followed by what hangs on them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from langchain_core.language_models import BaseLanguageModel
from pydantic import BaseModel, PrivateAttr, TypeAdapter, ValidationError

from langchain_rapid.setting_names import ALIASES
from langchain_rapid.template_capture import listen_to_templates
from rapid_integrations.adapter_fields import ModelFields, RequestFields, engine_defaults
from rapid_integrations.config import explain_validation_error
from rapid_integrations.errors import ConfigurationError

if TYPE_CHECKING:
    from rapid_integrations import RapidEngine
    from rapid_integrations.compression import ContextCompressor

_PARTS = ("embeddings", "text_splitter", "retriever", "document_compressor")  # make what the drafter reads


class SettingsInUse(ModelFields, RequestFields):
    """Assignments, copies with changes and configurable fields, under LangChain's names for settings, too.

    `chat.max_tokens = 2` counts for the calls from then on. What would need other models is refused: they are loaded.
    """

    _engine: RapidEngine = PrivateAttr()
    _compressor: ContextCompressor = PrivateAttr()
    _identity: str = PrivateAttr(default="")

    def model_post_init(self, context: Any, /) -> None:
        """Pass on to LangChain's own (pydantic would put its own for private attributes in its place)."""
        super().model_post_init(context)

    def __setattr__(self, name: str, value: Any) -> None:
        """Change a setting.

        Raises:
            ConfigurationError: an unknown setting, a value that cannot work, or a setting of the models.
        """
        name = ALIASES.get(name, name)
        if name.startswith("_") or not self._in_use:
            super().__setattr__(name, value)
            return
        if name not in type(self).model_fields:
            if isinstance(getattr(type(self), name, None), property):
                raise ConfigurationError(f"{type(self).__name__}.{name} is read from the model and cannot be set")
            known = ", ".join(sorted({*RequestFields.model_fields, *_PARTS, "timeout", "use_templates"}))
            raise ConfigurationError(f"{type(self).__name__} has no setting {name!r} to change; it has: {known}")
        before = getattr(self, name)
        if name in ModelFields.model_fields and value is not before and value != before:
            raise ConfigurationError(
                f"{name}={value!r:.200} on a model that is loaded already: build another {type(self).__name__} with "
                "it, and choose between the two with configurable_alternatives"
            )
        super().__setattr__(name, self._checked(name, value))
        try:
            self._follow(name)
        except Exception:
            super().__setattr__(name, before)
            raise

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy over the same engine, with `update` as if each of it had been assigned.

        Raises:
            ConfigurationError: see `__setattr__`.
        """
        copied = super().model_copy(deep=deep)
        for name, value in (update or {}).items():
            setattr(copied, name, value)
        return copied

    def configurable_fields(self, **fields: Any) -> Any:
        """Let settings be given with a call's configuration; LangChain's names for them work, too."""
        own = {ALIASES.get(name, name): field for name, field in fields.items()}
        return super().configurable_fields(**own)  # type: ignore[misc]  # of LangChain's class behind this one

    @property
    def _in_use(self) -> bool:
        """Whether the models are loaded: before, it is the constructor that sets things."""
        return "_engine" in (getattr(self, "__pydantic_private__", None) or {})

    def _checked(self, name: str, value: Any) -> Any:
        """Return a field's value as its class takes it."""
        if name in RequestFields.model_fields and value is None:
            return engine_defaults(self._engine)[name]  # as in the constructor
        owner: type[BaseModel] = next(
            cls for cls in reversed(type(self).__mro__) if name in getattr(cls, "model_fields", ())
        )
        try:
            if not issubclass(owner, BaseLanguageModel):
                probe = owner.model_construct()
                owner.__pydantic_validator__.validate_assignment(probe, name, value)
                return getattr(probe, name)
            if owner.__module__.startswith("langchain_core."):
                return value  # LangChain's own, which it does not check
            annotation: Any = owner.model_fields[name].annotation
            return TypeAdapter(annotation).validate_python(value)
        except ValidationError as error:
            if not error.errors()[0]["loc"]:
                reasons = ", or ".join(item["msg"] for item in error.errors())
                raise ConfigurationError(f"{type(self).__name__}.{name}={value!r:.200}: {reasons}") from None
            raise ConfigurationError(explain_validation_error(type(self), error)) from None

    def _follow(self, name: str) -> None:
        """Bring up to date what was made of a setting that has changed."""
        if name in _PARTS:
            self._compressor = self._make_compressor()
            self._identity = uuid.uuid4().hex  # what is in an object cannot be compared
        if name == "use_templates" and self.use_templates:
            listen_to_templates()

    if TYPE_CHECKING:  # of the class that has these parts
        use_templates: bool

        def _make_compressor(self) -> ContextCompressor: ...
