"""How a model would run, from its configuration alone: on kernels, on operators, in transformers' own code, or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from rapid_integrations.errors import RapidError, UnsupportedModelError
from rapid_integrations.kernels.cpu import (
    COLUMNS,
    HEAD_DIMS,
    LATENT_COLUMNS,
    MAX_COLUMNS,
    ROTATED_COLUMNS,
    serves_latents,
)
from rapid_integrations.models import loader
from rapid_integrations.models.decoder_widths import columns_of, head_dims_of, rank_of
from rapid_integrations.models.description import Decoder, NotDescribedError
from rapid_integrations.models.families import describe, left_over
from rapid_integrations.models.folder_kinds import (
    read_json,
    refuse_another_task,
    refuse_quantized,
    with_settings_beside,
)
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.packed.loading import lies_in_blocks
from rapid_integrations.models.packed.scheme import kept_words, scheme_of, settings_of
from rapid_integrations.models.unsupported import refuse_unsupported


@dataclass(frozen=True)
class KindOfRun:
    """How a model runs.

    Attributes:
        how: "kernels": this package's kernels compute it in bfloat16 on a processor. "operators": PyTorch's operators
            compute it from the description. "transformers": its own forward runs on this package's cache and attention,
            without int8 or int4. "refused": it does not run.
        architecture: the class in transformers, or the configuration's `model_type`.
        reason: why it is not on the kernels, or does not run; empty for kernels.
        weights: of a quantised checkpoint its format, how that is kept, and whether it is rounded a second time.
    """

    how: Literal["kernels", "operators", "transformers", "refused"]
    architecture: str
    reason: str = ""
    weights: str = ""


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
                own = read_json(folder / "config.json")
                refuse_another_task(str(name), own, folder)
                loader.refuse_unknown_family(str(name), own)
            config = AutoConfig.from_pretrained(str(path if folder else name), revision=revision)
            described: Mapping[str, Any] = config.to_dict()
            if folder is not None:
                described = with_settings_beside(folder, own)
            refuse_quantized(str(name), described)
            _, model_class = loader.class_for(str(name), config)
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
    return kept_words(scheme, kernels and lies_in_blocks(config))


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
    if (rank := rank_of(described)) is not None:
        if not serves_latents(rank, described.head_dim):
            return (
                f"its latents and rotated keys have {rank} and {described.head_dim} numbers; the kernels serve "
                f"multiples of {LATENT_COLUMNS} and {ROTATED_COLUMNS} up to 512"
            )
    elif others := sorted(head_dims_of(described) - set(HEAD_DIMS)):
        return f"its heads have {others[0]} numbers; the kernels serve {', '.join(map(str, HEAD_DIMS))}"
    if described.beyond_kernels:
        return described.beyond_kernels
    for width in columns_of(described):
        if width % COLUMNS or width > MAX_COLUMNS:
            return f"a matrix has {width} columns; the kernels serve multiples of {COLUMNS} up to {MAX_COLUMNS:,}"
    return ""
