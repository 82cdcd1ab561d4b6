"""What positions do to queries and keys: the rotary embeddings of a model, and factors that grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.kernels.layers import Rope
from rapid_integrations.models.description import Attention, Growth, Rotation

_LEAST = 2048  # positions whose cosines are computed at once

Tables: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines, each (positions, pairs of all rotations) float32."""


class Rotations:
    """All rotations of a model, side by side in one table.

    Args:
        rotations: of the model.
        device: where the tables lie.
    """

    def __init__(self, rotations: Sequence[Rotation], device: torch.device) -> None:
        self._rotations = rotations
        self._device = device
        self._tables: dict[bool, Tables] = {}

    @property
    def pairs(self) -> int:
        """Columns of the tables."""
        return sum(len(rotation.inverse_frequencies) for rotation in self._rotations)

    @property
    def switch(self) -> int | None:
        """Capacity in tokens above which other angles are used; None: there are no others."""
        return next((each.switch for each in self._rotations if each.long is not None), None)

    def rope(self, attention: Attention | None) -> Rope:
        """Return how an attention's heads are rotated; without one, nothing is."""
        if attention is None:
            return Rope()
        if attention.rotation is None:
            return Rope(norm_behind=attention.norm_behind)
        before = self._rotations[: attention.rotation]
        return Rope(
            first=sum(len(rotation.inverse_frequencies) for rotation in before),
            pairs=len(self._rotations[attention.rotation].inverse_frequencies),
            interleaved=attention.interleaved,
            norm_behind=attention.norm_behind,
        )

    def tables(self, length: int, long: bool = False) -> Tables:
        """Return the tables of at least the first `length` positions; they are kept for later passes."""
        known = self._tables.get(long)
        if known is None or known[0].shape[0] < length:
            known = self._tables[long] = self.of(torch.arange(max(_LEAST, 2 * length), device=self._device), long)
        return known

    def of(self, positions: Tensor, long: bool = False) -> Tables:
        """Return the rows of the tables for these positions."""
        # dtype and device are explicit, because a process may have other defaults while a model is being loaded.
        parts = []
        for rotation in self._rotations:
            other = rotation.long if long else None
            angles = (rotation.inverse_frequencies if other is None else other).to(self._device, torch.float32)
            turned = positions[:, None].float() * angles
            parts.append((turned.cos() * rotation.scaling, turned.sin() * rotation.scaling))
        if not parts:
            nothing = torch.empty(len(positions), 0, dtype=torch.float32, device=self._device)
            return nothing, nothing
        cos, sin = (torch.cat(each, dim=1).contiguous() for each in zip(*parts, strict=True))
        return cos, sin


def spread_over_head(tables: Tables, rope: Rope, head_dim: int, dtype: torch.dtype) -> Tables:
    """Return cosine and signed sine of each number of a head, (T, 1, D): what `turned` multiplies with."""
    cos, sin = (table[:, rope.first : rope.first + rope.pairs] for table in tables)
    if rope.interleaved:
        cos, sin = cos.repeat_interleave(2, dim=1), torch.stack([-sin, sin], dim=2).flatten(1)
    else:
        cos, sin = torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)
    if beyond := head_dim - 2 * rope.pairs:
        cos = torch.cat([cos, cos.new_ones(len(cos), beyond)], dim=1)
        sin = torch.cat([sin, sin.new_zeros(len(sin), beyond)], dim=1)
    return cos[:, None].to(dtype), sin[:, None].to(dtype)


def turned(x: Tensor, rope: Rope, cos: Tensor, sin: Tensor) -> Tensor:
    """Return (T, H, D) rotated; `cos` and `sin` as `spread_over_head` returns them."""
    head_dim = x.shape[-1]
    if not rope.pairs:
        return x
    if not rope.interleaved and 2 * rope.pairs == head_dim:
        return torch.addcmul(x * cos, x.roll(rope.pairs, -1), sin)
    numbers = torch.arange(head_dim, device=x.device)
    if rope.interleaved:
        partners = numbers ^ 1
    else:
        partners = torch.where(numbers < 2 * rope.pairs, (numbers + rope.pairs) % (2 * rope.pairs), numbers)
    return torch.addcmul(x * cos, x[..., partners], sin)


def grown(qk: Tensor, heads: int, growth: Growth, rows: Rows) -> Tensor:
    """Return queries and keys of a reader's rows, (T, H + H_kv, D), of which the queries have grown."""
    positions = rows.cache.position + rows.depths_there
    factors = 1 + growth.scale * torch.log1p(torch.floor((positions.float() + growth.ahead) / growth.every))
    return torch.cat([(qk[:, :heads] * factors[:, None, None]).to(qk.dtype), qk[:, heads:]], dim=1)
