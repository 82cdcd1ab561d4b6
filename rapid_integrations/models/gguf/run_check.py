"""Says of a GGUF file, from its header, how its model would run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.kernels.cpu.blocks import FORMATS
from rapid_integrations.models.config_bounds import check_numbers
from rapid_integrations.models.decoder_widths import not_on_kernels
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe
from rapid_integrations.models.gguf.comparison import model_of
from rapid_integrations.models.gguf.converted import check_tokens
from rapid_integrations.models.gguf.description import architecture_of, configuration_of, weights_of
from rapid_integrations.models.gguf.header import GgufHeader
from rapid_integrations.models.gguf.kinds import refuse_gguf, refuse_unread
from rapid_integrations.models.gguf.parts import parts_of, read_parts
from rapid_integrations.models.gguf.tensors import MappedTensors
from rapid_integrations.models.kinds_of_run import KindOfRun, kind_of

_SMALL = 1 << 20  # elements: norms and the like are read


def check_gguf(path: Path) -> KindOfRun:
    """Say how the model of a GGUF file would run. No matrix is read.

    Args:
        path: the file, or any file of a model in several.

    Raises:
        ModelLoadError: the file or one of its parts is damaged or missing.
    """
    headers = read_parts(parts_of(path))
    config = None
    try:
        if architecture_of(headers[0]) is None:  # what is no language model has tokens of other kinds
            refuse_gguf(headers[0])
        check_tokens(path, headers[0])
        if (config := configuration_of(headers)) is not None:
            check_numbers(str(path), config, "its metadata")
            if (found := _in_blocks(headers, config)) is not None:
                return found
        refuse_gguf(headers[0])
        known = architecture_of(headers[0])
        if config is None or known is None or known.by_transformers:
            refuse_unread(headers[0])
            config = None
    except ModelLoadError as error:
        return KindOfRun("refused", headers[0].architecture, str(error))
    try:
        kind = _dequantised(headers, config)
    except Exception as error:  # its classes check their numbers, with errors of several kinds
        why = " ".join(str(error).split())
        return KindOfRun(
            "refused", headers[0].architecture, f"transformers does not take what its metadata says: {why}"
        )
    if kind.how == "refused":
        return kind
    return replace(kind, weights=f"{_formats(headers)}: dequantised into a copy on disk")


def _in_blocks(headers: Sequence[GgufHeader], config: dict[str, Any]) -> KindOfRun | None:
    """Return how a model runs whose weights stay in the file's blocks, or None if they do not."""
    weights = weights_of(_Unread(headers), config, torch.bfloat16)
    if weights is None:
        return None
    try:
        skeleton = model_of(config, weights)
        described = describe(skeleton)
    except (ValueError, NotDescribedError):
        return None
    if not_on_kernels(described):
        return None
    return KindOfRun("kernels", config["architectures"][0], weights=f"{_formats(headers)}: {_kept(headers)}")


def _dequantised(headers: Sequence[GgufHeader], config: dict[str, Any] | None) -> KindOfRun:
    """Return how the dequantised model runs. Without `config`, transformers reads the file."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if config is not None:
        settings = {key: value for key, value in config.items() if key != "model_type"}
        made = AutoConfig.for_model(config["model_type"], **settings)
    else:
        first = headers[0].path
        made = AutoConfig.from_pretrained(first.parent, gguf_file=first.name, local_files_only=True)
    model_class = AutoModelForCausalLM._model_mapping[type(made)]
    with torch.device("meta"):
        model = model_class(made)
    needed = sum(weight.numel() for weight in model.parameters())  # each tied one once
    if (missing := needed - sum(prod(tensor.shape) for header in headers for tensor in header.tensors)) > 0:
        return KindOfRun("refused", model_class.__name__, f"{missing:,} of the model's numbers are not in the file")
    return kind_of(made, model_class)


def _kept(headers: Sequence[GgufHeader]) -> str:
    blocks = all(len(tensor.shape) == 1 or tensor.kind in FORMATS for header in headers for tensor in header.tensors)
    return "computed as they are" if blocks else "blocks are computed as they are, other matrices in bfloat16"


def _formats(headers: Sequence[GgufHeader]) -> str:
    """Return the names of the matrices' formats, those of most weights first."""
    from gguf import GGMLQuantizationType

    count: Counter[int] = Counter()
    for tensor in (tensor for header in headers for tensor in header.tensors if len(tensor.shape) > 1):
        count[tensor.kind] += prod(tensor.shape)
    return ", ".join(GGMLQuantizationType(kind).name for kind, _ in count.most_common())


class _Unread(MappedTensors):
    """The tensors of a file, of which those that are not in blocks have shapes only, but for small ones."""

    def numbers(self, name: str, dtype: torch.dtype) -> Tensor:
        shape = tuple(reversed(self.tensors[name].shape))
        return super().numbers(name, dtype) if prod(shape) < _SMALL else torch.empty(shape, dtype=dtype, device="meta")
