"""How a model would run, from its configuration alone: on kernels, on operators, in transformers' own code, or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from rapid_integrations.errors import RapidError, UnsupportedModelError
from rapid_integrations.kernels.cpu import COLUMNS, HEAD_DIMS, MAX_COLUMNS
from rapid_integrations.models import loader
from rapid_integrations.models.description import Decoder, NotDescribedError
from rapid_integrations.models.families import describe, left_over
from rapid_integrations.models.folder_kinds import read_json, refuse_another_task, refuse_quantized
from rapid_integrations.models.fused_decoder import FusedDecoder, columns_of
from rapid_integrations.models.hf import refuse_unsupported


@dataclass(frozen=True)
class KindOfRun:
    """How a model runs.

    Attributes:
        how: "kernels": this package's kernels compute it in bfloat16 on a processor. "operators": PyTorch's operators
            compute it from the description. "transformers": its own forward runs on this package's cache and attention,
            without int8 or int4. "refused": it does not run.
        architecture: the class in transformers, or the configuration's `model_type`.
        reason: why it is not on the kernels, or does not run; empty for kernels.
    """

    how: Literal["kernels", "operators", "transformers", "refused"]
    architecture: str
    reason: str = ""


def check(name: str | Path, revision: str | None = None) -> KindOfRun:
    """Say how a model would run. No weights are read, and of a name on a hub only the configuration is fetched.

    Args:
        name: a folder with a config.json, or a name on the Hugging Face hub.
        revision: of a model on the hub.

    Raises:
        ModelLoadError: there is no configuration, or transformers cannot read it.
    """
    from transformers import AutoConfig

    path = Path(name).expanduser()
    with loader.errors_explained(name, path if path.exists() else None):
        folder = path if path.is_dir() else None
        try:
            if folder is not None:
                described = read_json(folder / "config.json")
                refuse_another_task(str(name), described, folder)
                loader.refuse_unknown_family(str(name), described)
            config = AutoConfig.from_pretrained(str(path if folder else name), revision=revision)
            refuse_quantized(str(name), config.to_dict())
            _, model_class = loader.class_for(str(name), config)
        except UnsupportedModelError as error:
            return KindOfRun("refused", "", str(error))
    if model_class is None:
        return KindOfRun("refused", config.model_type, "only code that comes with the model can run it")
    return kind_of(config, model_class)


def kind_of(config: Any, model_class: Any) -> KindOfRun:
    """Say how a model of a class would run with this configuration. It is built without memory for weights."""
    name = model_class.__name__
    with torch.device("meta"):
        model = model_class(config)
    try:
        refuse_unsupported(model, chosen_once=FusedDecoder.serves(model))
    except RapidError as error:
        return KindOfRun("refused", name, str(error))
    try:
        described = describe(model)
    except NotDescribedError as error:
        return KindOfRun("transformers", name, str(error))
    if more := left_over(model, described):
        return KindOfRun("transformers", name, f"its description does not name {more[0]}")
    if reason := _not_on_kernels(described):
        return KindOfRun("operators", name, reason)
    return KindOfRun("kernels", name)


def _not_on_kernels(described: Decoder) -> str:
    if described.head_dim not in HEAD_DIMS:
        return f"its heads have {described.head_dim} numbers; the kernels serve {', '.join(map(str, HEAD_DIMS))}"
    for width in columns_of(described):
        if width % COLUMNS or width > MAX_COLUMNS:
            return f"a matrix has {width} columns; the kernels serve multiples of {COLUMNS} up to {MAX_COLUMNS:,}"
    return ""
