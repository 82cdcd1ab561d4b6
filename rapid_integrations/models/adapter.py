"""Adapters: products of low rank beside weights that several layers share."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rapid_integrations.cache.arena import Arena
from rapid_integrations.kernels.cpu import NativeAdapter
from rapid_integrations.models.description import Adapter
from rapid_integrations.models.linear import Linear, native_matrix
from rapid_integrations.models.taken_weights import Linears, Matrices, fuse


@dataclass(frozen=True)
class TakenAdapter:
    """An adapter whose weights were taken over: `down` is one product for all parts. It is never quantised."""

    down: Linear
    up: tuple[Linear, ...]
    rank: int

    @classmethod
    def of(cls, adapter: Adapter | None, arena: Arena | None) -> TakenAdapter | None:
        """Take the weights from their modules."""
        if adapter is None:
            return None
        return cls(
            fuse(adapter.down, None, arena),
            tuple(fuse([each], None, arena) for each in adapter.up),
            adapter.up[0].in_features,
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Return up(down(x)), (T, O), of (T, K)."""
        parts = torch.split(self.down(x), self.rank, dim=1)
        return torch.cat([up(each) for up, each in zip(self.up, parts, strict=True)], dim=1)

    @property
    def products(self) -> dict[str, Linear]:
        """All products by name."""
        return {"down": self.down} | {f"up.{index}": each for index, each in enumerate(self.up)}

    def matrices(self, described: Adapter) -> Matrices:
        """Return the products with the modules of `described` whose weights they hold."""
        ups = zip(self.up, described.up, strict=True)
        return [(self.down, Linears(described.down)), *((own, Linears([up])) for own, up in ups)]

    def native(self) -> NativeAdapter:
        """Return it for the kernels."""
        return NativeAdapter(native_matrix(self.down), [native_matrix(each) for each in self.up])
