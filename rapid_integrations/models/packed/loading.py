"""Loads quantised checkpoints: in blocks that the kernels compute with, or dequantised for everything else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rapid_integrations.kernels.cpu import NativeDecoder, native_library
from rapid_integrations.models.chat_rendering import check_template
from rapid_integrations.models.decoder_widths import columns_of, head_dims_of, rank_of
from rapid_integrations.models.description import NotDescribedError
from rapid_integrations.models.families import describe
from rapid_integrations.models.gguf.comparison import compare, model_of
from rapid_integrations.models.gguf.stored import StoredLM
from rapid_integrations.models.packed.scheme import Scheme
from rapid_integrations.models.packed.tensors import PackedTensors
from rapid_integrations.models.packed.text_part import IN_PART, text_configuration, text_weights
from rapid_integrations.models.quick_start import ends_of
from rapid_integrations.models.skeleton import shape_of
from rapid_integrations.models.tokenizer_bounds import check_tokenizer
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.progress import OnProgress, ignore_progress

_SETTINGS = ("quantization_config", "compression_config")


def load_in_blocks(
    folder: Path,
    name: str,
    config: Mapping[str, Any],
    scheme: Scheme,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: OnProgress | None = None,
) -> tuple[Any, Vocabulary] | None:
    """Return a model with its vocabulary, or None if blocks would not hold its weights exactly.

    The kernels compute with blocks, in bfloat16 on a processor. The model is compared with transformers' own.

    Args:
        folder: a model whose files were checked.
        name: for messages.
        config: its parsed config.json.
        scheme: how its weights are quantised.
        dtype: to compute in.
        device: to compute on.
        on_progress: is told of the compilation of kernels, and how the weights are kept.

    Raises:
        ModelLoadError: the tensors are incomplete or of another format.
        UnsupportedModelError: the model computes something else than transformers' own.
    """
    if dtype != torch.bfloat16 or device.type != "cpu" or scheme.form is None:
        return None
    tell = on_progress or ignore_progress
    library = native_library(tell)
    config = without_settings(config)
    if library is None or not isinstance(config.get("architectures"), list):
        return None
    weights: Any = PackedTensors(folder, scheme).blocks()
    if weights is not None and shape_of(config) is None:
        if (text := text_configuration(config)) is None:
            return None
        config, weights = text, text_weights(config, weights)
    if weights is None:
        return None
    try:
        skeleton = model_of(config, weights, published=True)
    except (KeyError, ValueError, NotDescribedError):  # transformers' way of loading says what is missing or left over
        return None
    described = describe(skeleton)
    columns, heads, rank = columns_of(described), head_dims_of(described), rank_of(described)
    if described.beyond_kernels or not NativeDecoder.serves(library, columns, *heads, rank=rank):
        return None
    tell(f"repacking {scheme.name} into {scheme.form.name} without a second rounding", 0, 1)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_tokenizer(str(folder), tokenizer)
    check_template(name, tokenizer.chat_template)
    compare(name, dict(config), weights, published=True)
    lm = StoredLM(skeleton, name, folder, dict(config), published=True)
    tell(f"repacking {scheme.name} into {scheme.form.name} without a second rounding", 1, 1)
    return lm, Vocabulary(tokenizer, ends_of(folder, skeleton, tokenizer))


def lies_in_blocks(config: Mapping[str, Any]) -> bool:
    """Return whether a model with this parsed config.json is of a family whose matrices may lie in blocks."""
    config = without_settings(config)
    return shape_of(config) is not None or text_configuration(config) is not None


def lies_in_part(config: Mapping[str, Any]) -> bool:
    """Return whether some matrices of a model with this parsed config.json may not lie in blocks, and others may."""
    config = without_settings(config)
    text = None if shape_of(config) is not None else text_configuration(config)
    return text is not None and text["model_type"] in IN_PART


def load_dequantised(
    folder: Path,
    config: Any,
    tensors: PackedTensors,
    model_class: Any,
    dtype: torch.dtype,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """Return a transformers model with dequantised weights, and transformers' report on loading it.

    Args:
        folder: the files of the model.
        config: transformers' configuration object, which loses the settings of the quantisation.
        tensors: the weights.
        model_class: the class of the model.
        dtype: of its weights.
        on_progress: is told how the weights are kept.
        options: for transformers' `from_pretrained`.

    Raises:
        ModelLoadError: the tensors are incomplete or of another format.
    """
    from transformers import GenerationConfig

    for each in (config, config.get_text_config(decoder=True)):
        for name in _SETTINGS:
            if hasattr(each, name):
                delattr(each, name)
    weights, total = {}, len(tensors.weights)
    stage = f"dequantising {tensors.scheme.name} to {rounding_words(tensors.scheme, dtype)}"
    for name, weight in tensors.dense(dtype):
        weights[name] = weight
        (on_progress or ignore_progress)(stage, len(weights), total)
    model, report = model_class.from_pretrained(None, config=config, dtype=dtype, state_dict=weights, **options)
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model, report


def without_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a parsed config.json without the settings of a quantisation."""
    return {key: value for key, value in config.items() if key not in _SETTINGS}


def rounding_words(scheme: Scheme, dtype: torch.dtype) -> str:
    """Return a dtype's name, and whether it rounds what weights stand for."""
    exact = dtype == torch.float32 or (scheme.layout == "mxfp4" and dtype == torch.bfloat16)
    words = "exactly" if exact else "rounded a second time"
    if scheme.layout == "fp8" and dtype == torch.float32:
        words = "products with scales rounded to 24 bits"
    return f"{str(dtype).removeprefix('torch.')} ({words})"
