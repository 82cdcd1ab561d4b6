"""Says of a model's configuration, before any weights are fetched or read, how it would run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rapid_integrations import packaged
from rapid_integrations.errors import ModelLoadError, UnsupportedModelError
from rapid_integrations.models.config_bounds import check_numbers
from rapid_integrations.models.folder_kinds import (
    read_json,
    refuse_another_task,
    refuse_quantized,
    with_settings_beside,
)
from rapid_integrations.models.gguf.run_check import check_gguf
from rapid_integrations.models.kinds_of_run import KindOfRun, kind_of
from rapid_integrations.models.load_errors import errors_explained
from rapid_integrations.models.model_class import class_for, refuse_unknown_family
from rapid_integrations.models.model_path import local_path
from rapid_integrations.models.packed.loading import lies_in_blocks, lies_in_part
from rapid_integrations.models.packed.scheme import kept_words, scheme_of, settings_of


def check(name: str | Path, revision: str | None = None) -> KindOfRun:
    """Say how a model would run. No weights are read, and of a name on a hub only the configuration is fetched.

    Args:
        name: a folder with a config.json, a GGUF file, a packaged model that has been fetched, or a name on the Hugging
            Face hub.
        revision: of a model on the hub.

    Raises:
        ModelLoadError: there is no configuration, or transformers cannot read it.
    """
    from transformers import AutoConfig

    if str(name) in packaged.MODELS and not packaged.is_pulled(str(name)):
        raise ModelLoadError(f"{name} has not been fetched: rapid models pull {name}")
    path = local_path(name) or Path(name).expanduser()
    if path.suffix.lower() == ".gguf" or path.is_file():
        return check_gguf(path)
    with errors_explained(name, path if path.exists() else None):
        folder = path if path.is_dir() else None
        try:
            if folder is not None:
                own = read_json(folder / "config.json")
                refuse_another_task(str(name), own, folder)
                refuse_unknown_family(str(name), own)
                check_numbers(str(name), own)  # before ten million layers are built, though without their weights
            config = AutoConfig.from_pretrained(str(path if folder else name), revision=revision)
            described: Mapping[str, Any] = config.to_dict()
            if folder is not None:
                described = with_settings_beside(folder, own)
            refuse_quantized(str(name), described)
            _, model_class = class_for(str(name), config)
        except UnsupportedModelError as error:
            return KindOfRun("refused", "", str(error))
        if model_class is None:
            return KindOfRun("refused", config.model_type, "only code that comes with the model can run it")
        kind = kind_of(config, model_class)
    return replace(kind, weights=_weights(str(name), described, kind.how == "kernels"))


def _weights(name: str, config: Mapping[str, Any], kernels: bool) -> str:
    settings = settings_of(config)
    scheme = scheme_of(name, settings) if isinstance(settings, Mapping) else None
    if scheme is None:
        return ""
    family = kernels and lies_in_blocks(config)
    return kept_words(scheme, family, in_part=family and lies_in_part(config))
