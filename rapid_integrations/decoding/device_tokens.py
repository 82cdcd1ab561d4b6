"""Draft tokens that a device has written and the host does not know yet."""

from __future__ import annotations

from typing import Final, Self, SupportsIndex, overload

from torch import Tensor

UNKNOWN: Final = -1
"""Stands for each of them: no model has this id."""


class DeviceTokens(tuple[int, ...]):
    """Tokens of a chain whose ids lie on a device. To the host each of them is `UNKNOWN`, and their number is known.

    Slices are such tokens, too.

    Args:
        ids: (K,) int64.
    """

    ids: Tensor

    def __new__(cls, ids: Tensor) -> Self:
        """Return K tokens."""
        tokens = super().__new__(cls, (UNKNOWN,) * ids.shape[0])
        tokens.ids = ids
        return tokens

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> tuple[int, ...]: ...
    def __getitem__(self, index: SupportsIndex | slice, /) -> int | tuple[int, ...]:
        """Return one of the tokens, which is `UNKNOWN`, or those of a slice without steps."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        begin, end, step = index.indices(len(self))
        assert step == 1, "a draft is read from its front"
        return DeviceTokens(self.ids.narrow(0, begin, max(end - begin, 0)))
