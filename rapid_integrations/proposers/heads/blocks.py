"""The parts of which trained heads are made: norms, rotations, attention over a small cache, and MLPs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, rms_norm, scaled_dot_product_attention, silu

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.models.attention import attend
from rapid_integrations.models.linear import Linear
from rapid_integrations.models.skeleton import Rotary
from rapid_integrations.proposers.heads.weights import HeadWeights, number

_FIRST_ROWS = 256


class HeadCache:
    """The keys and values of a head's one layer: written in place, and rolled back by a length.

    Attributes:
        length: rows that are filled.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None  # (H_kv, capacity, D)
        self._values: Tensor | None = None

    def write(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append rows, and return all: each (H_kv, L, D) of (T, H_kv, D)."""
        end = self.length + keys.shape[0]
        self._keys = self._with_room(self._keys, keys, end)
        self._values = self._with_room(self._values, values, end)
        self._keys[:, self.length : end] = keys.transpose(0, 1)
        self._values[:, self.length : end] = values.transpose(0, 1)
        self.length = end
        return self._keys[:, :end], self._values[:, :end]

    def rollback(self, length: int) -> None:
        """Forget every row behind the first `length`."""
        self.length = min(self.length, length)

    def _with_room(self, held: Tensor | None, new: Tensor, end: int) -> Tensor:
        if held is not None and held.shape[1] >= end:
            return held
        grown = new.new_empty(new.shape[1], max(_FIRST_ROWS, 2 * end), new.shape[2])
        if held is not None:
            grown[:, : self.length] = held[:, : self.length]
        return grown


@dataclass(frozen=True)
class HeadNorm:
    """The root-mean-square norm; `weight` (E,) already contains what is added to it."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """Return x (..., E) normalised."""
        return rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True)
class Shape:
    """The numbers of a head's layer, under transformers' names."""

    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    hidden_act: str

    @classmethod
    def of(cls, config: Mapping[str, Any], name: str) -> Shape:
        """Read them from a configuration.

        Raises:
            ModelLoadError: one is missing or impossible.
        """
        hidden = number(config, "hidden_size", name)
        heads = number(config, "num_attention_heads", name)
        return cls(
            hidden_size=hidden,
            num_attention_heads=heads,
            num_key_value_heads=number(config, "num_key_value_heads", name, heads),
            head_dim=number(config, "head_dim", name, hidden // heads),
            rms_norm_eps=float(config.get("rms_norm_eps") or 1e-6),
            hidden_act=str(config.get("hidden_act") or "silu"),
        )


class Rotation:
    """Rotates queries and keys by their positions; all or the first part of a head's numbers.

    Args:
        config: has `rope_theta`, or `rope_scaling` or `rope_parameters`, and perhaps `partial_rotary_factor`.
        head_dim: D.
        name: of the checkpoint.

    Raises:
        UnsupportedModelError: the rotation is of a kind that is not known.
    """

    def __init__(self, config: Mapping[str, Any], head_dim: int, name: str) -> None:
        rope = {"rope_theta": config.get("rope_theta") or 10000.0, "rope_type": "default"}
        for given in (config.get("rope_scaling"), config.get("rope_parameters")):
            rope |= {key: value for key, value in (given or {}).items() if value is not None}
        kind = rope.get("type", rope["rope_type"]) if rope["rope_type"] == "default" else rope["rope_type"]
        if kind not in ("default", "linear", "llama3", "mrope"):
            raise UnsupportedModelError(
                f"draft_head={name!r} has rotations of the kind {kind!r}; default, linear and llama3 are supported"
            )
        rope["rope_type"] = "default" if kind == "mrope" else kind
        share = float(rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0)
        self._turned = int(head_dim * share)
        self._rotary = Rotary(rope, self._turned)
        self._tables: tuple[Tensor, Tensor] | None = None  # of the first positions

    def __call__(self, queries: Tensor, keys: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries (T, H, D) and keys (T, H_kv, D) as they are at their positions (T,)."""
        cos, sin = (table[positions][:, None] for table in self._known(queries, int(positions.max()) + 1))
        heads = queries.shape[1]
        both = self._turn(torch.cat([queries, keys], dim=1), cos, sin)
        return both[:, :heads], both[:, heads:]

    def _known(self, like: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines (L, D) of at least `length` positions: forming them anew takes a tenth of a step."""
        known = self._tables
        if known is None or known[0].shape[0] < length or known[0].dtype != like.dtype:
            positions = torch.arange(max(_FIRST_ROWS, 2 * length), device=like.device)
            cos, sin = (each[0] for each in self._rotary(like.new_empty(0), positions[None]))
            known = self._tables = cos, sin
        return known

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        part = x[..., : self._turned]
        first, second = part.chunk(2, dim=-1)
        out = part * cos + torch.cat([-second, first], dim=-1) * sin
        return out if self._turned == x.shape[-1] else torch.cat([out, x[..., self._turned :]], dim=-1)


class Attention:
    """Grouped-query attention over a head's cache.

    Args:
        weights, prefix: where `q_proj`, `k_proj`, `v_proj` and `o_proj` are taken from.
        shape: of the layer.
        config: has the rotation.
        width: numbers of each row that is read.
        offset: added to the weights of the norms of queries and keys.
        gated: `q_proj` gives each head a gate beside its query (Qwen3-Next).
    """

    def __init__(
        self,
        weights: HeadWeights,
        prefix: str,
        shape: Shape,
        config: Mapping[str, Any],
        width: int,
        *,
        offset: float = 0.0,
        gated: bool = False,
    ) -> None:
        heads, kv_heads, dim = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
        self._heads, self._kv_heads, self._dim, self._gated = heads, kv_heads, dim, gated
        self._widths = [heads * dim * (2 if gated else 1), kv_heads * dim, kv_heads * dim]
        self._qkv = weights.beside([f"{prefix}.{name}_proj" for name in "qkv"], self._widths, width)
        self._out = weights.linear(f"{prefix}.o_proj", shape.hidden_size, heads * dim)
        self._norms = [
            HeadNorm(weights.take(f"{prefix}.{name}.weight", dim) + offset, shape.rms_norm_eps)
            if weights.has(f"{prefix}.{name}.weight")
            else None
            for name in ("q_norm", "k_norm")
        ]
        self._rotation = Rotation(config, dim, weights.name)

    def __call__(self, x: Tensor, positions: Tensor, cache: HeadCache, seen: Tensor | None) -> Tensor:
        """Return what is attended to, (T, E).

        Args:
            x: (T, width).
            positions: (T,).
            cache: gets the T new rows.
            seen: (T, L) bool, which of all rows each of them sees, its own included; None: all up to itself.
        """
        count = x.shape[0]
        parts = torch.split(self._qkv(x), self._widths, dim=-1)
        queries, gate = parts[0].view(count, self._heads, -1), None
        if self._gated:
            queries, gate = queries.chunk(2, dim=-1)
        keys, values = (each.view(count, self._kv_heads, self._dim) for each in parts[1:])
        query_norm, key_norm = self._norms
        queries = queries if query_norm is None else query_norm(queries)
        keys = keys if key_norm is None else key_norm(keys)
        queries, keys = self._rotation(queries, keys, positions)
        mixed = attended(queries, *cache.write(keys, values), seen)
        if gate is not None:
            mixed = mixed * torch.sigmoid(gate)
        return self._out(mixed.reshape(count, -1))


class GatedMlp:
    """down(activation(gate(x)) * up(x)).

    Args:
        weights, prefix: where `gate_proj`, `up_proj` and `down_proj` are taken from.
        hidden, inner: E and the width between.
        act: the activation's name in configurations.
    """

    def __init__(self, weights: HeadWeights, prefix: str, hidden: int, inner: int, act: str) -> None:
        self._gate_up = weights.beside([f"{prefix}.gate_proj", f"{prefix}.up_proj"], [inner, inner], hidden)
        self._down: Linear = weights.linear(f"{prefix}.down_proj", hidden, inner)
        self._act = activation(act, weights.name)

    def __call__(self, x: Tensor) -> Tensor:
        """Return (T, E) of (T, E)."""
        gate, up = self._gate_up(x).chunk(2, dim=-1)
        return self._down(self._act(gate) * up)


def attended(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None) -> Tensor:
    """Return the attention of the last T of L rows, (T, H, D_v).

    Args:
        queries: (T, H, D).
        keys, values: (H_kv, L, D or D_v).
        seen: (T, L) bool, which rows each of them sees; None: all up to itself.
    """
    scale = queries.shape[-1] ** -0.5
    count, few = queries.shape[0], seen is not None or queries.shape[0] == 1
    if few and queries.device.type == "cpu" and keys.shape[-1] == values.shape[-1]:
        # One fused call: the products that `attend` makes of few rows take four times as long at these small shapes.
        folded = queries.transpose(0, 1)[None]  # (1, H, T, D)
        mixed = scaled_dot_product_attention(
            folded, keys[None], values[None], attn_mask=seen, scale=scale, enable_gqa=keys.shape[0] < folded.shape[1]
        )
        return mixed[0].transpose(0, 1).reshape(count, queries.shape[1], -1)
    return attend(queries.transpose(0, 1)[None], [(keys[None], values[None])], scale, None, seen=seen)[0]


def activation(name: str, checkpoint: str) -> Any:
    """Return an activation by its name in configurations.

    Raises:
        UnsupportedModelError: it is not known.
    """
    if name == "silu":
        return silu
    if name in ("gelu", "gelu_pytorch_tanh"):
        return lambda x: gelu(x, approximate="none" if name == "gelu" else "tanh")
    raise UnsupportedModelError(f"draft_head={checkpoint!r} has the activation {name!r}, which is not supported")
