"""The dtype of a model that is read from its weights, where it depends on whether the kernels compute the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rapid_integrations.models.gguf.stored import stored_configuration
from rapid_integrations.models.kinds_of_run import kind_of
from rapid_integrations.models.model_class import class_for
from rapid_integrations.models.placement import depends_on_kernels, dtype_of

_MOST_LAYERS = 1000  # a model with more is none: to build its layers, even without memory, would take half a minute


def dtype_of_config(config: Any, model_class: Any, dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Do what `dtype_of` does for a model of transformers.

    Args:
        config: the model's.
        model_class: its class, or None if only code that comes with it defines one.
        dtype, device: see `dtype_of`.
    """
    on_kernels = depends_on_kernels(dtype, device) and _on_kernels(config, model_class)
    own = getattr(config.get_text_config(decoder=True), "dtype", None)
    return dtype_of(dtype, own, device, on_kernels=on_kernels)


def dtype_of_gguf(path: Path, dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Do what `dtype_of` does for a file whose weights are dequantised."""
    config = stored_configuration(path) if depends_on_kernels(dtype, device) else None
    if config is None:
        return dtype_of(dtype, None, device)
    from transformers import AutoConfig

    settings = {key: value for key, value in config.items() if key != "model_type"}
    try:
        read = AutoConfig.for_model(config["model_type"], **settings)
        on_kernels = _on_kernels(read, class_for(str(path), read)[1])
    except Exception:  # whatever is wrong with it is said when it is read
        on_kernels = False
    return dtype_of(dtype, None, device, on_kernels=on_kernels)


def _on_kernels(config: Any, model_class: Any) -> bool:
    """Return whether the kernels would compute a model; what is wrong with its configuration is said later."""
    try:
        if config.get_text_config(decoder=True).num_hidden_layers > _MOST_LAYERS:
            return False
        return model_class is not None and kind_of(config, model_class).how == "kernels"
    except Exception:
        return False
