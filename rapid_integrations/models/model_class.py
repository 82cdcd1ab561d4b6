"""The class in transformers that a model's configuration asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rapid_integrations.errors import UnsupportedModelError


def refuse_unknown_family(name: str, config: Mapping[str, Any]) -> None:
    """Raise UnsupportedModelError for a configuration whose family the installed transformers does not know."""
    import transformers

    kind = config.get("model_type")
    if isinstance(kind, str) and kind not in transformers.CONFIG_MAPPING and not config.get("auto_map"):
        raise UnsupportedModelError(
            f"{name} is a {kind!r} model, which transformers {transformers.__version__} does not know. A newer release "
            "of transformers may; otherwise take a model of another family"
        )


def class_for(name: str, config: Any) -> tuple[Any, Any]:
    """Return transformers' automatic class for a configuration, and the model's own class or None.

    The own class is None if only code that comes with the model defines it.

    Raises:
        UnsupportedModelError: the model does not write text from text.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    own_code = getattr(config, "auto_map", None) or {}
    for auto_class in (AutoModelForCausalLM, AutoModelForImageTextToText):
        if type(config) in auto_class._model_mapping:
            found = auto_class._model_mapping[type(config)]
            return auto_class, found[0] if isinstance(found, (list, tuple)) else found
        if auto_class.__name__ in own_code:
            return auto_class, None
    raise UnsupportedModelError(
        f"{name} is a {config.model_type!r} model, of which transformers has no causal LM: it does not continue texts. "
        "Give a causal LM, an instruction-tuned one for questions"
    )
