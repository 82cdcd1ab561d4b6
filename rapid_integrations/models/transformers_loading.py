"""Load a folder, or a name on a hub, with transformers, after its files have been checked."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.models.config_bounds import check_size
from rapid_integrations.models.folder_kinds import (
    read_json,
    refuse_another_task,
    refuse_quantized,
    with_settings_beside,
)
from rapid_integrations.models.model_class import class_for, refuse_unknown_family
from rapid_integrations.models.other_parts import reads_no_text
from rapid_integrations.models.packed.scheme import scheme_in
from rapid_integrations.models.placement import pytorch_has_bfloat16
from rapid_integrations.models.safetensors_files import named, read_weights
from rapid_integrations.models.weights import require_all_weights
from rapid_integrations.progress import OnProgress


def load_with_transformers(
    name: str,
    folder: Path | None,
    dtype: str | torch.dtype,
    device: torch.device,
    revision: str | None,
    trust_remote_code: bool,
    on_progress: OnProgress | None,
    **placement: Any,
) -> tuple[Any, Any]:
    """Return a transformers model and its tokenizer.

    Args:
        name: the folder, or a name on a hub.
        folder: None for a name on a hub.
        dtype: "auto", another name, or a torch dtype.
        device: where the model will run.
        revision: of a model on a hub.
        trust_remote_code: run Python code that comes with the model.
        on_progress: called with (stage, done, total).
        placement: passed on to transformers (`device_map`).

    Raises:
        ModelLoadError: weights are missing or do not fit; UnsupportedModelError if the model cannot be run exactly.
    """
    from transformers import AutoConfig, AutoTokenizer

    from rapid_integrations.models.dtype_choice import dtype_of_config

    if folder is not None:
        refuse_unknown_family(name, read_json(folder / "config.json"))
    origin = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(name, **origin)
    described = config.to_dict()
    refuse_quantized(name, described)
    refuse_another_task(name, described)
    auto_class, model_class = class_for(name, config)
    scheme = scheme_in(name, described if folder is None else with_settings_beside(folder, described))
    if scheme is not None and (folder is None or model_class is None):
        raise UnsupportedModelError(
            f"{name} holds weights that are quantised with {scheme.name}, which are read from a folder, for a family "
            f"that transformers knows. Fetch it (hf download {name} --local-dir FOLDER) and give the folder"
        )
    packed = None
    if folder is not None:
        weights = read_weights(folder)
        elements = weights.elements
        if scheme is not None:
            from rapid_integrations.models.packed.tensors import PackedTensors

            packed = PackedTensors(folder, scheme)
            elements = packed.elements
        if model_class is not None:
            check_size(name, config, model_class, elements, len(weights.shapes))
    tokenizer = AutoTokenizer.from_pretrained(name, **origin)
    kind = dtype_of_config(config, model_class, dtype, device)
    # Mismatched sizes are in the report, and are refused by name.
    asked = {"ignore_mismatched_sizes": True, "output_loading_info": True, **placement}
    if kind == torch.bfloat16 and device.type == "cpu" and not pytorch_has_bfloat16():
        asked["experts_implementation"] = "eager"  # grouped products are what PyTorch emulates most slowly
    if folder is not None and packed is not None:
        from rapid_integrations.models.packed.loading import load_dequantised

        model, report = load_dequantised(folder, config, packed, model_class, kind, on_progress, **asked)
    else:
        model, report = auto_class.from_pretrained(
            name, config=config, dtype=kind, use_safetensors=True, **origin, **asked
        )
    require_all_weights(name, report)
    if unexpected := sorted(key for key in report["unexpected_keys"] if not reads_no_text(key)):
        warnings.warn(
            f"{name}: {len(unexpected)} weights of its files do not belong to {type(model).__name__} and are not used: "
            f"{named(unexpected)}",
            stacklevel=2,
        )
    return model, tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' own progress bars: `on_progress` tells of what takes long."""
    from transformers.utils import logging

    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
