"""What every trained head can do: follow a target's text, and say which tokens may come next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Node:
    """A place in a draft.

    Attributes:
        logits: (D,) float32, of the token that comes next, over the head's own vocabulary.
        depth: draft tokens before it.
        held: what its head needs to go on from here.
    """

    logits: Tensor
    depth: int
    held: Any = None


class HeadText(ABC):
    """One text that a head follows, with a cache of its own if the head attends."""

    @abstractmethod
    def follow(self, positions: Sequence[int], token_ids: Sequence[int], states: Tensor) -> None:
        """Read committed tokens, and forget all draft tokens.

        Args:
            positions: (T,) of the rows whose states are given, ascending.
            token_ids: (T,) the token that comes behind each of them.
            states: (T, F) the target's hidden states of the rows.
        """

    @abstractmethod
    def root(self) -> Node | None:
        """Return the place behind the last token that was read; None if nothing has been read."""

    @abstractmethod
    def after(self, nodes: Sequence[Node], token_ids: Sequence[int]) -> list[Node]:
        """Return the places behind draft tokens, each of which follows the node of the same index."""


class DraftHead(ABC):
    """A trained head, made for the hidden states of one target.

    Attributes:
        name: folder or name, for messages and statistics.
        kind: "eagle", "eagle3", "medusa", "hydra" or "mtp".
        levels: the hidden states that it reads; see `WantedStates`.
        most_tokens: draft tokens in a row at most; None for any number.
        window: tokens of a prompt whose states it reads at most.
        vocabulary: (D,) int64, the target's token for each of the head's; None if they are the same.
        step_bytes: bytes of weights that a draft token reads.
        num_parameters: of the checkpoint.
    """

    name: str
    kind: str
    levels: tuple[int, ...]
    most_tokens: int | None
    window: int
    vocabulary: Tensor | None
    step_bytes: int
    num_parameters: int

    @abstractmethod
    def begin(self) -> HeadText:
        """Return a new text."""
