"""How a model holds its matrices: whole, by rows or columns, one for each expert, or beside an adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn


@dataclass(frozen=True)
class RowsOf:
    """Some rows of a module's matrix, in the order in which this package computes with them.

    Attributes:
        module: the matrix (O, K). All descriptions of its rows together have each of them once.
        rows: (o,) int64, their numbers; -1 stands for a row of zeros.
    """

    module: nn.Linear
    rows: Tensor

    @property
    def out_features(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def weight(self) -> Tensor:
        """The rows, (o, K)."""
        return _taken(self.module.weight, self.rows, 0)

    @property
    def stored(self) -> Any:
        """The rows in the blocks of a file, as `StoredBlocks`; None: they are numbers."""
        whole = getattr(self.module, "stored", None)
        return None if whole is None else whole.some(self.rows)

    @property
    def bias(self) -> Tensor | None:
        """Their biases, (o,); None: there are none."""
        bias = self.module.bias
        return None if bias is None else _taken(bias, self.rows, 0)


@dataclass(frozen=True)
class ColumnsOf:
    """A module whose matrix has columns of zeros beside its own: those of heads whose values are narrower than keys.

    Attributes:
        module: the matrix (O, k).
        columns: (K,) int64, its columns in the order in which this package computes with them, each once; -1 stands for
            a column of zeros.
    """

    module: nn.Linear
    columns: Tensor

    @property
    def in_features(self) -> int:
        """K."""
        return len(self.columns)

    @property
    def out_features(self) -> int:
        """O."""
        return self.module.out_features

    @property
    def weight(self) -> Tensor:
        """The matrix, (O, K)."""
        return _taken(self.module.weight, self.columns, 1)

    @property
    def bias(self) -> Tensor | None:
        """Its biases, (O,); None: there are none."""
        return self.module.bias


def _taken(whole: Tensor, numbers: Tensor, dimension: int) -> Tensor:
    """Return slices of a tensor by their numbers, of which -1 stands for zeros."""
    numbers = numbers.to(whole.device)
    found = whole.index_select(dimension, numbers.clamp(min=0))
    absent = (numbers < 0).view([-1 if axis == dimension else 1 for axis in range(whole.dim())])
    return found.masked_fill(absent, 0)


@dataclass(frozen=True)
class Transposed:
    """A module whose matrix lies by columns: (K, O), as GPT-2's `Conv1D` has it."""

    module: Any
    out_features: int
    in_features: int

    @property
    def weight(self) -> Tensor:
        """The matrix, (O, K)."""
        rows: Tensor = self.module.weight.t()
        return rows

    @property
    def bias(self) -> Tensor | None:
        """Its biases, (O,); None: there are none."""
        bias: Tensor | None = self.module.bias
        return bias


OneMatrix: TypeAlias = nn.Linear | Transposed | ColumnsOf
"""A whole matrix."""

Inputs: TypeAlias = tuple[nn.Linear | RowsOf | Transposed, ...]
"""Matrices with the same input. Their outputs lie one behind the other."""


@dataclass(frozen=True)
class Adapter:
    """A product of low rank beside one of which several layers share the weights: up(down(x)) (arXiv 2106.09685).

    Attributes:
        down: matrices (R, K), which read what those read beside which they stand.
        up: of each of them the matrix (o, R) behind it. What they give lies one behind the other.
    """

    down: tuple[nn.Linear, ...]
    up: tuple[nn.Linear, ...]


@dataclass(frozen=True)
class Stack:
    """One matrix for each expert, in one parameter of a module.

    Attributes:
        module, name: whose parameter, (N, O, K) unless `taken` says how it becomes that.
        bias: name of the parameter (N, O) of biases; None: there are none.
        taken, given: from the model's form to (N, O, K) and back; None: it has this form already.
        taken_bias: the same for biases.
    """

    module: nn.Module
    name: str
    bias: str | None = None
    taken: Callable[[Tensor], Tensor] | None = None
    given: Callable[[Tensor], Tensor] | None = None
    taken_bias: Callable[[Tensor], Tensor] | None = None

    @property
    def parameters(self) -> list[Tensor]:
        """What it holds of the module."""
        return [getattr(self.module, name) for name in (self.name, self.bias) if name is not None]
