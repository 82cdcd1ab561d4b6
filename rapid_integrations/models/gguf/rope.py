"""Reads from a GGUF file how it stretches rotary embeddings, which transformers ignores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.models.gguf.header import GgufHeader

FACTORS = "rope_freqs.weight"  # divisors of the frequencies (Llama 3.1 and later)
LONG_FACTORS = ("rope_factors_short.weight", "rope_factors_long.weight")
"""Those of "longrope", for texts up to a length and beyond it."""
_FLOATS = {0: "<f4", 1: "<f2"}  # by their numbers in GGUF
_STILL = 0.99e30  # as float32 has 1e30
_HIGHEST = (4.0, 1.0)  # of Llama 3; Llama 4 mixes no frequencies
_LLAMA3 = {"low_freq_factor": 1.0, "original_max_position_embeddings": 8192}


def rope_of(headers: Sequence[GgufHeader], config: Any) -> dict[str, Any] | None:
    """Return the `rope_parameters` that the file states and transformers does not read from it; None if there are none.

    Raises:
        UnsupportedModelError: the frequencies are of a kind that transformers has no name for.
    """
    header = headers[0]
    prefix = f"{header.architecture}.rope.scaling"
    kind = header.metadata.get(f"{prefix}.type")
    own = getattr(config, "rope_parameters", None)
    if not isinstance(own, dict) or "rope_theta" not in own:
        return None
    if (factors := _factors_of(headers, FACTORS)) is not None:
        return _llama3(header.path, factors, own)
    if kind in (None, "none") or own.get("rope_type", "default") != "default":
        return None
    factor = header.metadata.get(f"{prefix}.factor", 1.0)
    if kind == "linear" and _positive(factor):
        return own | {"rope_type": "linear", "factor": float(factor)}
    original = header.metadata.get(f"{prefix}.original_context_length")
    if kind == "yarn" and _positive(factor) and type(original) is int and original > 0:
        return own | {"rope_type": "yarn", "factor": float(factor), "original_max_position_embeddings": original}
    raise UnsupportedModelError(
        f"{header.path} stretches its rotary frequencies in a way that is not known here ({kind!r}, factor {factor!r})"
    )


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0


def long_rope_of(
    headers: Sequence[GgufHeader], config: Mapping[str, Any], *, own_length: bool
) -> dict[str, Any] | None:
    """Return the `rope_parameters` of a file whose angles follow the length of the text; None if they do not.

    Args:
        headers: of the model's files.
        config: what else the file says, under transformers' names.
        own_length: the original length is the model's own, if the file says none.

    Raises:
        KeyError, TypeError: it leaves a number out, or says something else than transformers computes.
    """
    short, long = (_factors_of(headers, name) for name in LONG_FACTORS)
    stated, prefix = headers[0].metadata, f"{headers[0].architecture}.rope.scaling"
    scaling = stated.get(f"{prefix}.attn_factor", 1.0)
    if short is None and long is None:
        if scaling != 1.0:
            raise TypeError(f"attn_factor is {scaling!r}")
        return None
    if short is None or long is None:
        raise TypeError("the angles of short or of long texts are left out")
    # MiniCPM3's converter leaves it out.
    original = stated.get(
        f"{prefix}.original_context_length", config["max_position_embeddings"] if own_length else None
    )
    if type(original) is not int or original < 2:
        raise TypeError(f"original_context_length is {original!r}")
    stretched = config["max_position_embeddings"] / original
    expected = math.sqrt(1 + math.log(stretched) / math.log(original)) if stretched > 1 else 1.0
    if not math.isclose(scaling, expected, rel_tol=1e-4):
        raise TypeError(f"attn_factor is {scaling!r}, not {expected}")
    return {
        **config["rope_parameters"],
        "rope_type": "longrope",
        "short_factor": [float(each) for each in short],
        "long_factor": [float(each) for each in long],
        "original_max_position_embeddings": original,
    }


def proportional_rope_of(headers: Sequence[GgufHeader], own: Mapping[str, Any], head_dim: int) -> dict[str, Any]:
    """Return the `rope_parameters` of layers of which the first pairs of each head are rotated and the others are not.

    llama.cpp's converter divides the frequencies of the others by 1e30.

    Args:
        headers: of the model's files.
        own: what else the file says of them.
        head_dim: numbers of a head.

    Raises:
        TypeError: the file leaves the divisors out, or has others.
    """
    factors = _factors_of(headers, FACTORS)
    if factors is None or 2 * factors.size != head_dim:
        raise TypeError(f"{FACTORS} is left out, or not of {head_dim // 2} pairs")
    turned = int((factors == 1).sum())
    part = 2 * turned / head_dim
    if (factors[:turned] != 1).any() or (factors[turned:] < _STILL).any() or int(part * head_dim // 2) != turned:
        raise TypeError(f"{FACTORS} divides frequencies otherwise than by 1 and 1e30")
    return {**own, "rope_type": "proportional", "partial_rotary_factor": part}


def _factors_of(headers: Sequence[GgufHeader], name: str) -> np.ndarray | None:
    for header in headers:
        for tensor in header.tensors:
            if tensor.name != name:
                continue
            if tensor.kind not in _FLOATS:
                raise UnsupportedModelError(f"{header.path} holds {name} in a format that is not known here")
            start, count = header.data_start + tensor.offset, math.prod(tensor.shape)
            return np.fromfile(header.path, _FLOATS[tensor.kind], count, offset=start).astype(np.float64)
    return None


def _llama3(path: Path, factors: np.ndarray, own: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of Llama 3 or 4 that give exactly the factors in the file."""
    highest = float(np.max(factors)) if factors.size else 1.0
    if factors.size and np.allclose(factors, 1.0):
        return own
    for factor, high in product(dict.fromkeys((highest, round(highest))), _HIGHEST):
        rope = own | {"rope_type": "llama3", "factor": float(factor), "high_freq_factor": high, **_LLAMA3}
        if np.allclose(_llama3_factors(rope, 2 * factors.size), factors, rtol=1e-3):
            return rope
    raise UnsupportedModelError(
        f"{path.name} divides its rotary frequencies by numbers of its own (rope_freqs.weight, up to {highest:g}), "
        "which are not those of Llama 3; they would be left out. Take the model's safetensors"
    )


def _llama3_factors(rope: dict[str, Any], width: int) -> np.ndarray:
    """Return the divisors that Llama 3's scaling applies to the (width / 2) frequencies."""
    wavelength = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, width, 2) / width)
    original, low, high = (
        rope["original_max_position_embeddings"],
        rope["low_freq_factor"],
        rope["high_freq_factor"],
    )
    turns = original / wavelength
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0) if high > low else (turns > low).astype(np.float64)
    return np.asarray(1 / ((1 - smooth) / rope["factor"] + smooth))
