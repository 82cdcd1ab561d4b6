"""Heads of one layer that feed on their own output: EAGLE's, and the layers that predict further tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rapid_integrations.proposers.heads.blocks import HeadCache
from rapid_integrations.proposers.heads.head import DraftHead, HeadText, Node

_PIECE = 512  # tokens that are read at once


class RecurrentHead(DraftHead):
    """A head with one layer. From a token's predecessor's state and the token, it guesses the token's own state."""

    most_tokens = None

    @abstractmethod
    def fused(self, states: Tensor) -> Tensor:
        """Return the target's states (T, F) as the head's layer reads them, (T, E)."""

    @abstractmethod
    def layer(
        self, states: Tensor, token_ids: Tensor, positions: Tensor, cache: HeadCache, seen: Tensor | None
    ) -> Tensor:
        """Return guessed states, (T, E), which `layer` can read again.

        Args:
            states: (T, E) of the tokens before.
            token_ids: (T,).
            positions: (T,) of the tokens before.
            cache: gets T rows.
            seen: (T, L) bool, which rows each of them sees; None: all up to itself.
        """

    @abstractmethod
    def logits(self, states: Tensor) -> Tensor:
        """Return the logits (T, D) float32 of the tokens behind guessed states (T, E)."""

    def begin(self) -> HeadText:
        """Return a new text."""
        return _RecurrentText(self)


@dataclass(frozen=True, eq=False)
class _Guess:
    """What is held of a place: its state (E,), the position it stands for, and the cache's rows of its draft."""

    state: Tensor
    position: int
    rows: tuple[int, ...]


class _RecurrentText(HeadText):
    def __init__(self, head: RecurrentHead) -> None:
        self._head = head
        self._cache = HeadCache()
        self._committed = 0  # rows of the cache
        self._root: Node | None = None

    @torch.inference_mode()
    def follow(self, positions: Sequence[int], token_ids: Sequence[int], states: Tensor) -> None:
        """Read committed tokens, piece by piece."""
        self._cache.rollback(self._committed)
        guessed = states
        for begin in range(0, len(positions), _PIECE):
            piece = slice(begin, begin + _PIECE)
            fused = self._head.fused(states[piece])
            at = self._tensor(positions[piece], fused)
            guessed = self._head.layer(fused, self._tensor(token_ids[piece], fused), at, self._cache, None)
        self._committed = self._cache.length
        last = guessed[-1:]
        self._root = Node(self._head.logits(last)[0], 0, _Guess(last[0], positions[-1], ()))

    def root(self) -> Node | None:
        """Return the place behind the last committed token."""
        return self._root

    @torch.inference_mode()
    def after(self, nodes: Sequence[Node], token_ids: Sequence[int]) -> list[Node]:
        """Read draft tokens, each of which sees what was committed and its own draft."""
        held: list[_Guess] = [node.held for node in nodes]
        states = torch.stack([each.state for each in held])
        past, count = self._cache.length, len(held)
        seen = None
        if count > 1 or past - self._committed > len(held[0].rows):
            seen = torch.zeros(count, past + count, dtype=torch.bool)
            seen[:, : self._committed] = True
            for row, each in enumerate(held):
                seen[row, [*each.rows, past + row]] = True
            seen = seen.to(states.device)
        positions = [each.position + 1 for each in held]
        guessed = self._head.layer(
            states, self._tensor(token_ids, states), self._tensor(positions, states), self._cache, seen
        )
        logits = self._head.logits(guessed)
        return [
            Node(logits[row], nodes[row].depth + 1, _Guess(guessed[row], positions[row], (*each.rows, past + row)))
            for row, each in enumerate(held)
        ]

    def _tensor(self, numbers: Sequence[int], like: Tensor) -> Tensor:
        return torch.tensor(list(numbers), dtype=torch.int64, device=like.device)
