"""The arguments of a host framework's LLM class, before they become its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rapid_integrations.adapters.argument_names import MODEL_ALIASES, own_names
from rapid_integrations.adapters.fields import ModelFields, RequestFields
from rapid_integrations.adapters.given_engine import require_engine
from rapid_integrations.config import SETTING_ALIASES, refuse_unknown
from rapid_integrations.errors import ConfigurationError, shown


def constructor_settings(
    owner: type[ModelFields], given: Mapping[str, Any], unnamed: Sequence[Any] = ()
) -> dict[str, Any]:
    """Return the arguments of a host class's constructor under its own names. None stands for a setting's default.

    Raises:
        ConfigurationError: a name is unknown, a setting has two names, an object was given instead of a name, or a
            name instead of an object.
    """
    if unnamed:
        first = unnamed[0]
        meant = "target" if isinstance(first, (str, Path)) else "engine" if hasattr(first, "stream") else "model"
        raise ConfigurationError(
            f"{owner.__name__}({shown(first)}): arguments must be named; did you mean {meant}={shown(first)}?"
        )
    settings = under_own_names(owner, given)
    if owner.model_config.get("extra") == "forbid":
        refuse_unknown(owner.__name__, settings, _known(owner), {**SETTING_ALIASES, **MODEL_ALIASES})
    if settings.get("engine") is not None:
        require_engine(settings["engine"])
    _require_objects(settings)
    ours = {*ModelFields.model_fields, *RequestFields.model_fields}
    return {name: value for name, value in settings.items() if value is not None or name not in ours}


def under_own_names(owner: type[ModelFields], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a host class under its own names. Unknown ones keep their names.

    Raises:
        ConfigurationError: two names of one setting have different values.
    """
    settings = dict(given)
    if isinstance(settings.get("model"), (str, Path)):
        settings["model_name"] = settings.pop("model")
    if (name := settings.get("tokenizer_name")) is not None and name in map(settings.get, ("target", *MODEL_ALIASES)):
        del settings["tokenizer_name"]  # HuggingFaceLM requires the model's name here, too
    settings = own_names(settings, _known(owner), {**SETTING_ALIASES, **MODEL_ALIASES})
    for each in ("target", "drafter", "draft_lm", "draft_head", "dtype", "drafter_dtype", "device", "drafter_device"):
        if each in settings:
            settings[each] = _as_text(each, settings[each])
    return settings


def _known(owner: type[ModelFields]) -> set[str]:
    fields = owner.model_fields
    return {*fields, *(str(field.alias) for field in fields.values() if field.alias)}


def _require_objects(settings: Mapping[str, Any]) -> None:
    """Refuse names for arguments that take models or tokenizers, and objects for arguments that take names."""
    tokenizer = settings.get("tokenizer")
    if isinstance(tokenizer, (str, Path)):
        name = settings.get("target") or str(tokenizer)
        raise ConfigurationError(
            f"tokenizer={str(tokenizer)!r} is a name, but tokenizer=... takes an object, together with model=.... Did "
            f"you mean target={name!r}? A model given by name is loaded with its own tokenizer"
        )
    for name in ("target", "drafter", "draft_lm", "draft_head"):
        if settings.get(name) is not None and not isinstance(settings[name], (str, Path)):
            raise ConfigurationError(
                f"{name}=... takes a name or a folder, not {shown(settings[name])}: model objects go to model=... "
                "(with tokenizer=...) and drafter_model=..."
            )
    if settings.get("engine") is None and settings.get("model") is not None:
        from rapid_integrations.engine.loaded_models import require_objects

        require_objects(settings["model"], tokenizer, settings.get("drafter_model"), settings.get("drafter_tokenizer"))


def _as_text(name: str, value: Any) -> Any:
    """Return a path, a dtype or a device as its text, and anything else unchanged."""
    if name.endswith("device") and isinstance(value, int) and not isinstance(value, bool):
        return "cpu" if value < 0 else f"cuda:{value}"  # the device numbers of transformers' pipelines
    if isinstance(value, Path) or type(value).__module__ == "torch":
        return str(value).removeprefix("torch.")
    return value
