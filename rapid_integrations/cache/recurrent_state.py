"""The state of layers that remember a text as a whole: recurrent ones (Mamba, gated delta nets) and short convolutions.

Such a state cannot be cut down to fewer tokens. So it is kept at some positions: at the start of the round, where a
rejected draft is undone, and every so many tokens, where other texts with the same beginning go on. Behind a rollback
the newest of them is the state again, and the next pass reads the tokens from there on once more, without writing keys
and values for them.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rapid_integrations.errors import OneOwner

LEAST_EVERY = 512  # tokens; a prompt is read in pieces of at most this many if its states are kept so often
MOST_EVERY = 4096  # tokens
MOST_REPLAYED = 8
"""Tokens that are read once more beside a draft. More of them get a pass of their own, whose end is then the start."""


@dataclass(frozen=True, eq=False)
class SavedState:
    """The states of all layers behind the first `position` tokens. They never change.

    Attributes:
        position: number of tokens.
        tensors: by names that the model chose; empty before the first token.
    """

    position: int
    tensors: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(each.nbytes for each in self.tensors.values())


_NOTHING = SavedState(0, {})


def spacing(state_bytes: int, bytes_per_token: int) -> int:
    """Return after how many tokens a state is kept, so that states take no more memory than keys and values.

    Args:
        state_bytes: of one state of all layers.
        bytes_per_token: of keys and values; 0 if no layer has any.
    """
    tokens = state_bytes // bytes_per_token + 1 if bytes_per_token else MOST_EVERY
    return min(max(-(-tokens // LEAST_EVERY) * LEAST_EVERY, LEAST_EVERY), MOST_EVERY)


class RecurrentState(OneOwner):
    """The states of one text, and its tokens.

    Args:
        every: tokens after which a state is kept for other texts; see `spacing`.

    Attributes:
        position: tokens that the present state has read. The next pass begins there.
        every: see the arguments.
    """

    def __init__(self, every: int = LEAST_EVERY) -> None:
        self.every = every
        self.position = 0
        self._now: Mapping[str, Tensor] = {}
        self._borrowed = True  # `_now` belongs to a saved state, so a pass must not change it
        self._start = _NOTHING
        self._settled = True
        self._saved: list[SavedState] = []
        self._marks: set[int] = set()
        self._token_ids = array("q")

    def read(self, length: int, token_ids: Tensor) -> Tensor:
        """Note that tokens (T,) follow the first `length`. Return (r + T,): what the state has to read, and they.

        Args:
            length: tokens of the cache.
            token_ids: what the next pass reads, on any device.
        """
        del self._token_ids[length:]
        self._token_ids.extend(token_ids.tolist())
        if self.position == length:
            return token_ids
        unread = torch.tensor(self._token_ids[self.position : length], dtype=torch.int64)
        return torch.cat([unread.to(token_ids.device), token_ids])

    def stop(self, end: int) -> int:
        """Return where the next pass over a prompt ends, at most at `end`, so that a state is kept there."""
        following = (self.position // self.every + 1) * self.every
        return min([end, following, *(mark for mark in self._marks if mark > self.position)])

    def mark(self, position: int) -> None:
        """Have a state kept at a position, because another text has parted from this one there."""
        self._marks.add(position)

    def begin(self) -> dict[str, Tensor]:
        """Return the present state for a pass, which may change it. A pass that fails must call `restore`."""
        if self._settled:
            self._start, self._settled, self._borrowed = SavedState(self.position, self._now), False, True
        if self._is_kept(self.position) and self.position > self._last_saved:
            self._saved.append(SavedState(self.position, self._now))
            self._borrowed = True
        return {name: each.clone() for name, each in self._now.items()} if self._borrowed else dict(self._now)

    def end(self, count: int, tensors: Mapping[str, Tensor]) -> None:
        """Take the state that a pass over the next `count` tokens has left."""
        self.position += count
        self._now, self._borrowed = tensors, False

    def settle(self) -> None:
        """Take what has been read so far, or what is left after a rollback, as part of the text for good."""
        self._settled = True

    def restore(self, length: int) -> None:
        """Go back to the newest state of at most `length` tokens that was kept."""
        newest = max(self._kept(length), key=lambda each: each.position)
        self.position, self._now, self._borrowed = newest.position, newest.tensors, True

    def rollback(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        if length < self.position:
            self.restore(length)
            self._saved = [each for each in self._saved if each.position <= length]
            if self._start.position > length:
                self._start = SavedState(self.position, self._now)
        self._marks = {mark for mark in self._marks if mark <= length}

    def reusable(self, length: int) -> int:
        """Return how many of the first `length` tokens another text need not read again."""
        return max(each.position for each in (*self._kept(length), *self._present(length)))

    def fork(self, length: int) -> RecurrentState:
        """Return the state of another text that begins with the first `length` tokens of this one."""
        other = RecurrentState(self.every)
        other._token_ids = self._token_ids[:length]
        other._saved = [each for each in self._saved if each.position <= length]
        newest = max((*self._kept(length), *self._present(length)), key=lambda each: each.position)
        if newest.position > other._last_saved:
            other._saved.append(newest)
        other.position, other._now, other._start = newest.position, newest.tensors, newest
        self._borrowed = self._borrowed or newest.tensors is self._now
        return other

    @property
    def states(self) -> list[SavedState]:
        """All states that are kept, in the order of their positions. The last one may be the present state."""
        by_position = {each.position: each for each in (*self._kept(self.position), *self._present(self.position))}
        return [by_position[at] for at in sorted(by_position) if at]

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor that is held."""
        held = [self._now, self._start.tensors, *(each.tensors for each in self._saved)]
        return list({id(each): each for tensors in held for each in tensors.values()}.values())

    @property
    def _last_saved(self) -> int:
        return self._saved[-1].position if self._saved else 0

    def _is_kept(self, position: int) -> bool:
        return position > 0 and (position % self.every == 0 or position in self._marks)

    def _kept(self, length: int) -> list[SavedState]:
        return [each for each in (_NOTHING, *self._saved, self._start) if each.position <= length]

    def _present(self, length: int) -> list[SavedState]:
        return [SavedState(self.position, self._now)] if self.position <= length else []
