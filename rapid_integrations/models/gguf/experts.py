"""What GGUF files of families with experts hold: their configuration under transformers' names, and their weights.

A file has one tensor for the gates of all experts of a layer, one for what stands beside the gates, and one for what
lies behind both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.models.block_experts import StoredStack
from rapid_integrations.models.gguf.description import IN_A_LAYER, OUTER, rows_of_heads
from rapid_integrations.models.gguf.experts_config import ARCHITECTURES
from rapid_integrations.models.gguf.header import GgufHeader
from rapid_integrations.models.gguf.rope import FACTORS, rope_of
from rapid_integrations.models.gguf.tensors import MappedTensors

_STACKS = {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"}


def configuration_with_experts(headers: Sequence[GgufHeader]) -> dict[str, Any] | None:
    """Return the configuration of a model with experts, under transformers' names.

    None is returned for another family, if the file says something that is not known here, and if it leaves a number
    out.

    Args:
        headers: of the model's files.

    Raises:
        UnsupportedModelError: its rotary frequencies are of a kind that transformers has no name for.
    """
    header = headers[0]
    architecture = ARCHITECTURES.get(header.architecture)
    if architecture is None:
        return None
    tensors = {tensor.name: tensor for each in headers for tensor in each.tensors}
    try:
        config = architecture.configuration(header, tensors)
    except (KeyError, TypeError, ZeroDivisionError):  # a number is left out, or is no number
        return None
    if config is None:
        return None
    rope = rope_of(headers, SimpleNamespace(rope_parameters=config["rope_parameters"]))
    return config if rope is None else config | {"rope_parameters": config["rope_parameters"] | rope}


def weights_with_experts(
    tensors: MappedTensors, config: Mapping[str, Any], dtype: torch.dtype, *, in_blocks: bool = True
) -> dict[str, Any] | None:
    """Return the weights by transformers' names, or None if a tensor is unknown.

    A matrix in blocks that the kernels compute with is a `StoredBlocks`, those of all experts are a `StoredStack`, any
    other tensor is a `Tensor` in `dtype`. Stacks are (N, O, K).

    Args:
        tensors: of the files.
        config: from `configuration_with_experts`.
        dtype: of the tensors that are not kept in blocks.
        in_blocks: False dequantises everything.
    """
    architecture = next(each for each in ARCHITECTURES.values() if each.model_type == config["model_type"])
    weights: dict[str, Any] = {}
    for name in tensors.names():
        stem, _, kind = name.rpartition(".")
        first, _, rest = stem.partition(".")
        number, _, part = rest.partition(".")
        if name == FACTORS:
            continue
        if stem in OUTER:
            weights[f"{OUTER[stem]}.{kind}"] = _matrix(tensors, name, dtype, in_blocks)
            continue
        if first != "blk" or not number.isdecimal():
            return None
        layer = f"model.layers.{int(number)}."
        if int(number) >= config["num_hidden_layers"]:  # it predicts further tokens
            continue
        if part in _STACKS:
            if part != "ffn_up_exps":  # it is read with the gates
                weights |= _stack(tensors, stem, kind, f"{layer}{architecture.experts}", dtype, in_blocks)
            continue
        own = architecture.names.get(f"{part}.{kind}") or architecture.names.get(part) or IN_A_LAYER.get(part)
        if own is None:
            return None
        if own.endswith(("q_proj", "k_proj")) and architecture.interleaved:
            heads = config["num_attention_heads" if own.endswith("q_proj") else "num_key_value_heads"]
            order = rows_of_heads(heads, config.get("head_dim") or config["hidden_size"] // heads)
            if tensors.tensors[name].shape[-1] != len(order):
                return None
            weights[f"{layer}{own}.{kind}"] = _matrix(tensors, name, dtype, in_blocks, order)
            continue
        plain = own in architecture.plain or f"{part}.{kind}" in architecture.names
        target = f"{layer}{own}" if f"{part}.{kind}" in architecture.names else f"{layer}{own}.{kind}"
        found = _matrix(tensors, name, dtype, in_blocks and not plain)
        weights[target] = found[None] if own.endswith("shared_expert_gate") and found.ndim == 1 else found
    return weights


def _matrix(tensors: MappedTensors, name: str, dtype: torch.dtype, in_blocks: bool, order: Tensor | None = None) -> Any:
    blocks = tensors.blocks(name, order) if in_blocks else None
    if blocks is not None:
        return blocks
    numbers = tensors.numbers(name, dtype)
    return numbers if order is None else numbers[order]


def _stack(
    tensors: MappedTensors, stem: str, kind: str, experts: str, dtype: torch.dtype, in_blocks: bool
) -> dict[str, Any]:
    """Return the weights or biases of all experts of a layer: of gates with what stands beside them, or behind both."""
    down = stem.endswith("ffn_down_exps")
    names = [f"{stem}.{kind}"] if down else [f"{stem}.{kind}", f"{stem.replace('_gate_', '_up_')}.{kind}"]
    target = f"{experts}.{'down_proj' if down else 'gate_up_proj'}"
    if kind == "bias":
        biases = [tensors.numbers(name, dtype) for name in names]
        # GPT-OSS, the only family with biases, has those of gates and of what stands beside them in turn.
        return {f"{target}_bias": biases[0] if down else torch.stack(biases, dim=2).flatten(1)}
    parts = [tensors.stack(name) if in_blocks else None for name in names]
    kept = [part for part in parts if part is not None]
    if len(kept) == len(parts):
        return {target: StoredStack(tuple(kept))}
    return {target: torch.cat([tensors.numbers(name, dtype) for name in names], dim=1)}
