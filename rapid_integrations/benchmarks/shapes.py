"""Build models of a known shape with random weights. Their steps cost the same as the real model's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from rapid_integrations.cache import KVCache
from rapid_integrations.cache.memory_budget import available_memory
from rapid_integrations.config import Quantization
from rapid_integrations.documents.json_file import read_json_object
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.models.hf import HuggingFaceLM

_USABLE_SHARE = 0.9  # share of the available memory; the rest is for KV caches and activations
_WEIGHT_SCALE = 0.02  # standard deviation, as in the models' own initialisation

_LLAMA_31: Final[dict[str, Any]] = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
}
_QWEN_25: Final[dict[str, Any]] = {
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "tie_word_embeddings": True,
}

SHAPES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "llama-3.1-8b": {
            **_LLAMA_31,
            "hidden_size": 4096,
            "intermediate_size": 14_336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
        },
        "llama-3.1-70b": {
            **_LLAMA_31,
            "hidden_size": 8192,
            "intermediate_size": 28_672,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
        },
        "qwen2.5-0.5b": {
            **_QWEN_25,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
        },
        "qwen2.5-1.5b": {
            **_QWEN_25,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
        },
    }
)
"""Name to the part of the published configuration that decides the cost of a step."""


def load_shape(name: str) -> dict[str, Any]:
    """Return a shape by its name, or from a model's config.json.

    Raises:
        ConfigurationError: it is neither a known name nor a config.json.
    """
    if name in SHAPES:
        return dict(SHAPES[name])
    path = Path(name).expanduser()
    if path.suffix != ".json":
        raise ConfigurationError(f"no shape is called {name!r}; there are: {', '.join(SHAPES)}, or give a config.json")
    shape = read_json_object(path)
    needed = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    if missing := [key for key in needed if key not in shape]:
        raise ConfigurationError(f"{path} is not a model's configuration: it lacks {', '.join(missing)}")
    return shape


def random_model(
    name: str,
    shape: Mapping[str, Any],
    dtype: torch.dtype,
    device: torch.device,
    layers: int,
    quantization: Quantization | None = None,
) -> HuggingFaceLM:
    """Return a model of a shape. Its weights are drawn in place, without a copy in another dtype or on another device.

    Args:
        name: the name in messages.
        shape: a shape from `load_shape`.
        dtype, device: dtype and device of the weights.
        layers: number of layers to build.
        quantization: quantisation of the drawn weights, see `HuggingFaceLM`.

    Raises:
        ConfigurationError: the weights do not fit (the message says how many layers would), or the family is unknown.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    options = {key: value for key, value in shape.items() if key not in ("model_type", "layer_types")}
    try:
        config = AutoConfig.for_model(shape["model_type"], **(options | {"num_hidden_layers": layers}))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"a model of the shape {name} cannot be built: {str(error)[:200]}") from error
    _require_room(name, model, layers, device)
    model.to_empty(device=device)
    model.tie_weights()  # `to_empty` has given each of the tied weights its own memory
    with torch.no_grad(), device:
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, _WEIGHT_SCALE)
            else:
                parameter.fill_(1.0)  # norms; the value of a bias does not change its cost
        for owner, rotary in _rotary_modules(model):
            owner.rotary_emb = type(rotary)(config)  # its frequencies are not weights
    return HuggingFaceLM(model.eval(), name, take_over=True, quantization=quantization)


def random_cache(lm: HuggingFaceLM, length: int, room: int) -> KVCache:
    """Return a KV cache that holds `length` tokens of random keys and values, and has room for `room` more."""
    config = lm.model.config
    heads = config.num_key_value_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = lm.new_cache(length + room)
    for layer in range(cache.layers):
        keys, values = (torch.randn(1, heads, length, head_dim, dtype=lm.dtype, device=lm.device) for _ in range(2))
        cache.write(layer, keys, values)  # (1, H_kv, length, head_dim)
    cache.advance(length)
    return cache


def _rotary_modules(model: Any) -> list[tuple[Any, Any]]:
    return [(module, module.rotary_emb) for module in model.modules() if hasattr(module, "rotary_emb")]


def _require_room(name: str, model: Any, layers: int, device: torch.device) -> None:
    """Raise ConfigurationError if the weights (still on "meta", without memory) would not fit."""
    total = sum(parameter.nbytes for parameter in model.parameters())
    per_layer = sum(parameter.nbytes for parameter in model.base_model.layers[0].parameters())
    room = int(_USABLE_SHARE * available_memory(device))
    if total > room:
        fitting = layers - -(-(total - room) // per_layer)
        way_out = f"give --layers {fitting} or fewer" if fitting > 1 else "take a smaller shape"
        raise ConfigurationError(
            f"{layers} layers of {name} need {total / 2**30:,.1f} GiB, and {room / 2**30:,.1f} GiB can be had on "
            f"{device}: {way_out}; the rest is extrapolated"
        )
