"""How a model would run, from its configuration alone: on kernels, on operators, in transformers' own code, or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from rapid_integrations.errors import RapidError
from rapid_integrations.models.decoder_widths import not_on_kernels
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe, left_over
from rapid_integrations.models.fused_decoder import FusedDecoder
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


def kind_of(config: Any, model_class: Any) -> KindOfRun:
    """Say how a model of a class would run with this configuration. It is built without memory for weights."""
    name = model_class.__name__
    if not isinstance(config, model_class.config_class):  # of text and pictures, and the class is of text
        config = config.get_text_config(decoder=True)
    with torch.device("meta"):
        model = model_class(config)
    try:
        refuse_unsupported(model, described=FusedDecoder.serves(model))
    except RapidError as error:
        return KindOfRun("refused", name, str(error))
    try:
        described = describe(model)
    except NotDescribedError as error:
        return KindOfRun("transformers", name, str(error))
    if more := left_over(model, described):
        return KindOfRun("transformers", name, f"its description does not name {more[0]}")
    if reason := not_on_kernels(described):
        return KindOfRun("operators", name, reason)
    return KindOfRun("kernels", name)
