"""Checks that a configuration is plausible, before anything is built from it.

A configuration of a few bytes can ask for ten million layers. So its numbers are checked against bounds first. Then
they are compared with the files: the model is built without memory for its weights (on torch's "meta" device), and must
not have more parameters than the files hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from rapid_integrations.errors import ModelLoadError

# The configurations of transformers' models name the same quantity differently.
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "head_dim", "d_kv")
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size", "moe_intermediate_size")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "multi_query_group_num")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_VOCABULARY = ("vocab_size",)
WINDOWS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "seq_len",
    "n_ctx",
    "max_context_length",
    "max_length_positions",
)
_SLIDING = ("sliding_window", "attention_window_size", "window_size")
_MOST = {
    **dict.fromkeys(_LAYERS, 10_000),
    **dict.fromkeys(_WIDTHS, 1 << 20),
    **dict.fromkeys(_INNER, 1 << 24),
    **dict.fromkeys(_HEADS, 1 << 16),
    **dict.fromkeys(_KV_HEADS, 1 << 16),
    **dict.fromkeys(_EXPERTS, 1 << 16),
    **dict.fromkeys(_VOCABULARY, 1 << 26),
    **dict.fromkeys(WINDOWS, 1 << 31),
    **dict.fromkeys(_SLIDING, 1 << 40),
}
_MAY_BE_NOTHING = {*_INNER, *_KV_HEADS, *_SLIDING, *_EXPERTS, "head_dim", "n_inner", "d_kv", *WINDOWS}
_MAY_BE_ZERO = {*_EXPERTS, *_SLIDING, *_INNER}
_MAY_BE_A_LIST = {*_INNER, *_KV_HEADS, *_HEADS, *_SLIDING, *_EXPERTS}  # one for each layer
_ABOVE_ZERO = ("rope_theta", "rotary_emb_base", "rope_local_base_freq", "factor", "original_max_position_embeddings")
_NOT_NEGATIVE = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_eps")
_SUB_CONFIGURATIONS = ("text_config", "llm_config", "language_config", "decoder")
_MORE_THAN_FILES = 1.05  # of what the files hold: padding, and tables that are computed
_MOST_COMPUTED = 1 << 30  # bytes of tables that are in no file (positions, masks)


def check_numbers(name: str, config: Mapping[str, Any], where: str = "its config.json") -> None:
    """Refuse a configuration (parsed JSON) with impossible numbers.

    Raises:
        ModelLoadError: a number is out of bounds; the message has the field, its value and the rule.
    """

    def wrong(field: str, value: Any, rule: str) -> ModelLoadError:
        return ModelLoadError(f"{name} could not be loaded: {where} says {field} = {value!r:.60}; {rule}")

    for field, value in config.items():
        if field in _MOST:
            lists = isinstance(value, list) and field in _MAY_BE_A_LIST
            for each in value if lists else [value]:
                if each is None and (field in _MAY_BE_NOTHING or lists):
                    continue
                lowest = 0 if field in _MAY_BE_ZERO or lists else 1
                if field in _SLIDING and each == -1 and type(each) is int:
                    continue  # some configurations write "no window" as -1
                if type(each) is not int or not lowest <= each <= _MOST[field]:
                    raise wrong(field, each, f"a whole number from {lowest} to {_MOST[field]:,} is needed")
        elif isinstance(value, float) and not math.isfinite(value) and not _may_be_infinite(field):
            raise wrong(field, value, "a finite number is needed")
        if field in _ABOVE_ZERO and value is not None and not _number(value, above_zero=True):
            raise wrong(field, value, "a number above 0 is needed")
        if field in _NOT_NEGATIVE and value is not None and not (_number(value) and 0 <= value < 1):
            raise wrong(field, value, "a number from 0 to 1 is needed")
        if field in ("rope_scaling", "rope_parameters", *_SUB_CONFIGURATIONS) and isinstance(value, Mapping):
            check_numbers(name, value, f"{where} ({field})" if field not in where else where)
            for kind in value.values():  # one for each kind of layer
                if field == "rope_parameters" and isinstance(kind, Mapping):
                    check_numbers(name, kind, f"{where} ({field})")
    _check_heads(config, wrong)
    layers = _first(config, _LAYERS)
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and type(layers) is int and len(kinds) != layers:
        raise wrong("layer_types", f"{len(kinds)} kinds", f"{layers} are needed, one for each layer")


def _check_heads(config: Mapping[str, Any], wrong: Any) -> None:
    heads, kv_heads = _first(config, _HEADS), _first(config, _KV_HEADS)
    if type(heads) is int and type(kv_heads) is int and (kv_heads < 1 or heads % kv_heads):
        raise wrong("num_key_value_heads", kv_heads, f"it has to divide the {heads} attention heads")


def check_size(name: str, config: Any, model_class: Any, elements: int, tensors: int) -> None:
    """Refuse a configuration that describes a much larger model than the files hold.

    The model is built on torch's "meta" device, without memory for weights.

    Args:
        name: for messages.
        config: transformers' configuration object.
        model_class: the class of the model.
        elements: numbers in all weights of the files.
        tensors: weights in the files.

    Raises:
        ModelLoadError: the configuration is larger than the files; the message has both sizes.
    """
    text = config.get_text_config(decoder=True)
    layers = _first({field: getattr(text, field, None) for field in _LAYERS}, _LAYERS)
    if type(layers) is int and layers > tensors:
        raise ModelLoadError(
            f"{name} could not be loaded: its configuration says {layers:,} layers, but its files hold {tensors:,} "
            "weights; they do not belong together, or the configuration is damaged"
        )
    with torch.device("meta"):
        model = model_class(config)
    wanted = sum({id(weight): weight.numel() for weight in model.parameters()}.values())
    if wanted > elements * _MORE_THAN_FILES + 1024:
        raise ModelLoadError(
            f"{name} could not be loaded: its configuration describes a model of {wanted:,} numbers, but its files "
            f"hold {elements:,}; they do not belong together, or files are missing: the rest would be random"
        )
    computed = sum(buffer.nbytes for buffer in model.buffers())
    if computed > max(_MOST_COMPUTED, 2 * elements):
        raise ModelLoadError(
            f"{name} could not be loaded: its configuration asks for tables of {computed / 1e9:,.1f} GB beside the "
            f"weights (it says {context_window(config) or 0:,} positions)"
        )


def context_window(config: Any) -> int | None:
    """Return the context window in tokens that a configuration states, or None if it states none.

    Families name it differently. The first set field of `WINDOWS` counts, in the text part of a composite model.
    """
    text = config.get_text_config(decoder=True)
    for source in (text, config):
        for field in WINDOWS:
            value = getattr(source, field, None)
            if type(value) is int and value > 0:
                return value
        inner = getattr(source, "attn_config", None)  # MPT's keep it apart
        value = getattr(inner, "max_seq_len", None)
        if type(value) is int and value > 0:
            return value
    return None


def has_experts(config: Any) -> bool:
    """Return whether a configuration says that layers have several experts."""
    text = config.get_text_config(decoder=True)
    counts = [getattr(text, name, None) for name in _EXPERTS]
    return any(count > 1 for each in counts for count in (each if isinstance(each, list) else [each or 0]))


def _first(config: Mapping[str, Any], fields: tuple[str, ...]) -> Any:
    return next((config[field] for field in fields if config.get(field) is not None), None)


def _number(value: Any, above_zero: bool = False) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and (value > 0 or not above_zero)


def _may_be_infinite(field: str) -> bool:
    return "limit" in field or "clamp" in field or "clip" in field
