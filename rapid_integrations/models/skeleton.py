"""The modules of a Llama-family model, built from its folder without transformers.

Importing transformers and the class of a model takes seconds. `FusedDecoder` needs none of their code, only the weights
under their names and a few numbers. A `Skeleton` has both. `quick_start` uses one only if it equals the model that
transformers has built from the same files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from rapid_integrations.models.block_linear import BlockTable, StoredBlocks
from rapid_integrations.models.safetensors_files import INDEX, SINGLE

_FAMILIES = {"llama", "mistral", "qwen2", "qwen3"}
_PLAIN_ROPE = {"rope_theta", "rope_type"}
_LINEAR_ROPE = _PLAIN_ROPE | {"factor"}
_LLAMA3_ROPE = _LINEAR_ROPE | {"low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}


@dataclass(frozen=True)
class Shape:
    """The numbers of a configuration that the forward pass needs, under transformers' names.

    `window` is the number of keys that a query sees in every layer; None means all.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    hidden_act: str
    max_position_embeddings: int
    rope: Mapping[str, Any]
    window: int | None


class Skeleton(nn.Module):
    """Has the parameters and attributes of a transformers model that `FusedDecoder` and `fingerprint` read.

    Args:
        shape: its numbers.
        tensors: all weights by their names in the files. They are used as they are, mapped ones and blocks too.
        tied: whether the head shares the embedding table.

    Raises:
        KeyError: a weight is missing.
        ValueError: a weight is left over, or has another shape than `shape` says.
    """

    def __init__(self, shape: Shape, tensors: Mapping[str, Any], tied: bool) -> None:
        super().__init__()
        self.config = shape
        left = dict(tensors)
        self.model = _Base(shape, left)
        table = self.model.embed_tokens
        own = table.stored if isinstance(table, BlockTable) else table.weight
        self.lm_head = SkeletonLinear(own) if tied else _linear(left, "lm_head")
        if left:
            raise ValueError(f"{len(left)} weights do not belong to the model, such as {min(left)}")
        self.requires_grad_(False)

    @property
    def base_model(self) -> _Base:
        """The part below the head."""
        return self.model

    @property
    def num_parameters(self) -> int:
        """The number of weights, each once."""
        blocks = {id(each): each for module in self.modules() if (each := getattr(module, "stored", None)) is not None}
        sizes = [parameter.shape for parameter in self.parameters()] + [each.shape for each in blocks.values()]
        return sum(map(math.prod, sizes))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        dtype: torch.dtype = self.model.embed_tokens.weight.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = self.model.embed_tokens.weight.device
        return device


class _Base(nn.Module):
    def __init__(self, shape: Shape, left: dict[str, Any]) -> None:
        super().__init__()
        table: Tensor | StoredBlocks = left.pop("model.embed_tokens.weight")
        if table.shape[1] != shape.hidden_size:
            raise ValueError(f"the embedding table has {table.shape[1]} columns, not {shape.hidden_size}")
        self.embed_tokens = BlockTable(table) if isinstance(table, StoredBlocks) else SkeletonTable(table)
        self.layers = nn.ModuleList(_Layer(shape, left, f"model.layers.{n}") for n in range(shape.num_hidden_layers))
        self.norm = _Norm(left, "model.norm", shape.rms_norm_eps)
        self.rotary_emb = Rotary(shape.rope, shape.head_dim)


class _Layer(nn.Module):
    def __init__(self, shape: Shape, left: dict[str, Any], name: str) -> None:
        super().__init__()
        self.input_layernorm = _Norm(left, f"{name}.input_layernorm", shape.rms_norm_eps)
        self.self_attn = _Attention(shape, left, f"{name}.self_attn")
        self.post_attention_layernorm = _Norm(left, f"{name}.post_attention_layernorm", shape.rms_norm_eps)
        self.mlp = _MLP(shape, left, f"{name}.mlp")


class _Attention(nn.Module):
    def __init__(self, shape: Shape, left: dict[str, Any], name: str) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.scaling = shape.head_dim**-0.5
        self.sliding_window = shape.window
        wide, narrow = (n * shape.head_dim for n in (shape.num_attention_heads, shape.num_key_value_heads))
        self.q_proj = _linear(left, f"{name}.q_proj", wide, shape.hidden_size)
        self.k_proj = _linear(left, f"{name}.k_proj", narrow, shape.hidden_size)
        self.v_proj = _linear(left, f"{name}.v_proj", narrow, shape.hidden_size)
        self.o_proj = _linear(left, f"{name}.o_proj", shape.hidden_size, wide)
        if f"{name}.q_norm.weight" in left:
            self.q_norm = _Norm(left, f"{name}.q_norm", shape.rms_norm_eps)
            self.k_norm = _Norm(left, f"{name}.k_norm", shape.rms_norm_eps)


class _MLP(nn.Module):
    def __init__(self, shape: Shape, left: dict[str, Any], name: str) -> None:
        super().__init__()
        self.gate_proj = _linear(left, f"{name}.gate_proj", shape.intermediate_size, shape.hidden_size)
        self.up_proj = _linear(left, f"{name}.up_proj", shape.intermediate_size, shape.hidden_size)
        self.down_proj = _linear(left, f"{name}.down_proj", shape.hidden_size, shape.intermediate_size)
        self.act_fn = nn.SiLU()


class SkeletonTable(nn.Module):
    """Holds an embedding table."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(table, requires_grad=False)

    def forward(self, token_ids: Tensor) -> Tensor:
        """Return (T, E) for ids (T,)."""
        return embedding(token_ids, self.weight)


class SkeletonLinear(nn.Module):
    """Holds a matrix as `nn.Linear` does, which would draw random numbers first."""

    def __init__(self, weight: nn.Parameter | StoredBlocks, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.stored = weight if isinstance(weight, StoredBlocks) else None
        nothing = torch.empty(0, dtype=torch.bfloat16)
        self.weight = nn.Parameter(nothing, requires_grad=False) if isinstance(weight, StoredBlocks) else weight
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)


class _Norm(nn.Module):
    def __init__(self, left: dict[str, Any], name: str, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(left.pop(f"{name}.weight").clone(), requires_grad=False)
        self.variance_epsilon = eps


class Rotary:
    """Rotary embeddings with transformers' formulas (rope types "default", "linear" and "llama3").

    Attributes:
        inv_freq: (head_dim / 2,) float32, the angle of each pair of numbers at position 1.
    """

    def __init__(self, rope: Mapping[str, Any], head_dim: int) -> None:
        self.inv_freq = 1.0 / (
            rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)
        )
        kind = rope.get("rope_type", "default")
        if kind == "linear":
            self.inv_freq = self.inv_freq / rope["factor"]
        elif kind == "llama3":
            self.inv_freq = _llama3(self.inv_freq, rope)

    def __call__(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine, (1, T, head_dim) in the dtype of `x`, of `positions`, (1, T)."""
        angles = positions[..., None].float() * self.inv_freq.to(positions.device)  # (1, T, head_dim / 2)
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def _llama3(inv_freq: Tensor, rope: Mapping[str, Any]) -> Tensor:
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    original = rope["original_max_position_embeddings"]
    wavelength = 2 * math.pi / inv_freq
    slow = torch.where(wavelength > original / low, inv_freq / factor, inv_freq)
    smooth = (original / wavelength - low) / (high - low)
    smoothed = (1 - smooth) * slow / factor + smooth * slow
    between = ~(wavelength < original / high) * ~(wavelength > original / low)
    return torch.where(between, smoothed, slow)


def _linear(left: dict[str, Any], name: str, rows: int | None = None, columns: int | None = None) -> SkeletonLinear:
    weight = left.pop(f"{name}.weight")
    if len(weight.shape) != 2 or (rows is not None and tuple(weight.shape) != (rows, columns)):
        raise ValueError(f"{name}.weight has the shape {tuple(weight.shape)}")
    bias = left.pop(f"{name}.bias", None)
    if not isinstance(weight, StoredBlocks):
        weight = nn.Parameter(weight, requires_grad=False)
    return SkeletonLinear(weight, None if bias is None else bias.clone())


def shape_of(config: Mapping[str, Any]) -> tuple[Shape, bool] | None:
    """Return the numbers of a parsed config.json, and whether head and embedding table are one.

    None is returned for another family, for a setting that is not known here, and if a number is left to a default.
    """
    rope = config.get("rope_parameters")
    if rope is None and config.get("rope_scaling") is None:  # as releases of transformers before 5 wrote it
        rope = {"rope_theta": config.get("rope_theta"), "rope_type": "default"}
    known = {"default": _PLAIN_ROPE, "linear": _LINEAR_ROPE, "llama3": _LLAMA3_ROPE}
    family = config.get("model_type")
    if (
        family not in _FAMILIES
        or not isinstance(rope, Mapping)
        or not isinstance(rope.get("rope_theta"), (int, float))
        or set(rope) != known.get(rope.get("rope_type", ""))
        or config.get("hidden_act") != "silu"
        or config.get("use_sliding_window")
        or set(config.get("layer_types") or ()) - {"full_attention"}
        or any(config.get(key) for key in ("auto_map", "quantization_config", "partial_rotary_factor"))
    ):
        return None
    heads = config["num_attention_heads"]
    shape = Shape(
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        rms_norm_eps=config["rms_norm_eps"],
        hidden_act="silu",
        max_position_embeddings=config["max_position_embeddings"],
        rope=dict(rope),
        window=config.get("sliding_window") if family == "mistral" else None,
    )
    return shape, bool(config["tie_word_embeddings"])


def mapped_weights(folder: Path) -> dict[str, Tensor]:
    """Return all weights of a folder's safetensors files by name, mapped into memory and not read.

    Raises:
        OSError, ValueError, KeyError, SafetensorError: the files are missing or damaged.
    """
    from safetensors import safe_open

    names = [SINGLE]
    if not (folder / SINGLE).exists():
        names = sorted(set(json.loads((folder / INDEX).read_bytes())["weight_map"].values()))
    tensors: dict[str, Tensor] = {}
    for name in names:
        with safe_open(folder / name, framework="pt") as file:
            tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    return tensors
