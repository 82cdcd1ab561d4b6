"""The state of recurrent layers that are computed here: what has been added to it last can be taken back.

A state holds one matrix for each head and cannot be cut down to fewer tokens. But what a token adds to it is little: a
row of numbers for each layer. So the rows of the tokens that may still be rejected are recorded, and the state is that
before them. The next pass adds those that were kept, and goes on from there. To take tokens back is to forget rows.

States are also kept every so many tokens of a prompt, for other texts that begin like this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rapid_integrations.cache.recurrent_state import LEAST_EVERY, SavedState
from rapid_integrations.errors import CacheError, OneOwner

MOST_RECORDED = 128
"""Rows of one pass that are recorded. More of them are no draft: they are read for good, as those of a prompt are."""

_LEAST_ROOM = 16  # rows that are recorded without asking for more memory


@dataclass(frozen=True)
class StateShape:
    """The numbers of a state, of R layers.

    Attributes:
        layers: R.
        heads, key_dim, value_dim: H, D_k and D_v of the matrices.
        channels: C numbers of a row are convolved.
        rates: its others, which say how much is kept and added.
        taps: W rows that a convolution reads, its own included.
        device: where the state lies.
    """

    layers: int
    heads: int
    key_dim: int
    value_dim: int
    channels: int
    rates: int
    taps: int
    device: torch.device = torch.device("cpu")

    @property
    def width(self) -> int:
        """Numbers of a recorded row."""
        return self.channels + self.rates

    @property
    def nbytes(self) -> int:
        """Bytes of a state."""
        matrices = self.heads * self.key_dim * self.value_dim
        return 4 * self.layers * (matrices + (self.taps - 1) * self.channels)

    def empty(self) -> LayersState:
        """Return a state without its numbers."""
        matrices = self.layers, self.heads, self.key_dim, self.value_dim
        inputs = self.layers, self.taps - 1, self.channels
        return LayersState(*(torch.empty(each, dtype=torch.float32, device=self.device) for each in (matrices, inputs)))

    def beginning(self) -> LayersState:
        """Return the state before the first token."""
        state = self.empty()
        return LayersState(state.matrices.zero_(), state.inputs.zero_())


@dataclass(frozen=True, eq=False)
class LayersState:
    """A state of all layers.

    Attributes:
        matrices: (R, H, D_k, D_v) float32.
        inputs: (R, W - 1, C) float32, what was convolved last.
    """

    matrices: Tensor
    inputs: Tensor

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Both, by name."""
        return {"matrices": self.matrices, "inputs": self.inputs}


@dataclass(frozen=True, eq=False)
class StatePass:
    """One pass over the rows that are recorded and T new ones.

    Whoever computes it fills in the new rows and the states, and then calls `end`.

    Attributes:
        before: the state before the first recorded row.
        recorded: (R, n, C + rates) float32, the rows of each layer that are recorded.
        rows: (R, n + T, C + rates), the same with room for the new rows behind them; None: those are not recorded, as
            the last stop lies behind all of them.
        stops: numbers of rows, recorded and new ones, ascending, behind which the state is wanted. The last one becomes
            the present state.
        states: of each stop.
        count: T.
        of: the state that the pass goes on from.
    """

    before: LayersState
    recorded: Tensor
    rows: Tensor | None
    stops: Sequence[int]
    states: Sequence[LayersState]
    count: int
    of: RecordedState

    def end(self) -> None:
        """Let the state be what was filled in. A pass that fails does not come to this, and has changed nothing."""
        self.of.end(self)


class RecordedState(OneOwner):
    """The states of one text, and what its newest tokens add to them.

    Args:
        shape: of a state.
        every: tokens after which a state is kept for other texts; see `recurrent_state.spacing`.

    Attributes:
        position: tokens that the present state has read. Those behind them are recorded.
        shape, every: see the arguments.
    """

    def __init__(self, shape: StateShape, every: int = LEAST_EVERY) -> None:
        self.shape, self.every = shape, every
        self.position = 0
        self._now: LayersState | None = None  # None: nothing has been read
        self._borrowed = False  # others refer to `_now`, so its memory may not be used again
        self._spare: LayersState | None = None
        self._saved: list[tuple[int, LayersState]] = []
        self._marks: set[int] = set()
        self._settled = 0  # tokens that belong to the text for good
        self._held = torch.empty(shape.layers, 0, shape.width, dtype=torch.float32, device=shape.device)
        self._first = self._count = 0  # of `_held`, what is recorded

    @property
    def length(self) -> int:
        """Tokens that were read: by the present state, and those that are recorded."""
        return self.position + self._count

    def begin(self, length: int, count: int, *, of_prompt: bool) -> StatePass:
        """Return what a pass over the next `count` tokens needs. Nothing changes before `end`.

        Args:
            length: tokens of the cache.
            count: T.
            of_prompt: they belong to a prompt, so none of them will be taken back.

        Raises:
            CacheError: the state has not read just these tokens.
        """
        if length != self.length:
            raise CacheError(f"the recurrent state has read {self.length:,} tokens, and the cache {length:,}")
        if self._now is None:
            self._now = self.shape.beginning()
        whole = of_prompt or count > MOST_RECORDED
        last = length + count if whole else self._settled
        places = sorted({*(self._kept_between(self.position, last) if whole else ()), last} - {self.position})
        states = [self.shape.empty() for _ in places[:-1]]
        if places:
            states.append(self.shape.empty() if self._spare is None else self._spare)
        rows = None
        if not whole:
            self._make_room(count)
            rows = self._held[:, self._first : self._first + self._count + count]
        recorded = self._held[:, self._first : self._first + self._count]
        return StatePass(self._now, recorded, rows, [each - self.position for each in places], states, count, self)

    def end(self, done: StatePass) -> None:
        """Take what a pass has filled in."""
        self._count += done.count
        if not done.stops:
            return
        for stop, state in zip(done.stops[:-1], done.states[:-1], strict=True):
            self._save(self.position + stop, state)
        self._spare = None if self._borrowed else self._now
        self._now, self._borrowed = done.states[-1], False
        self.position += done.stops[-1]
        self._first += done.stops[-1]
        self._count -= done.stops[-1]
        self._settled = max(self._settled, self.position)
        if self.position in self._kept_between(self.position - 1, self.position):
            self._save(self.position, self._now)
            self._borrowed = True
        if not self._count:
            self._first = 0

    def settle(self) -> None:
        """Take what has been read so far as part of the text for good."""
        self._settled = self.length

    def rollback(self, length: int) -> None:
        """Forget the tokens after the first `length`.

        Raises:
            CacheError: the state there is not kept.
        """
        if length < self.position:
            state = dict(self._saved).get(length)
            if state is None and length:
                raise CacheError(
                    f"cannot roll back to {length:,} tokens: of a recurrent state there are those behind "
                    f"{self.reusable(length):,} and {self.position:,} tokens",
                    code="rollback",
                )
            self.position, self._now, self._borrowed, self._count = length, state, state is not None, 0
            self._saved = [each for each in self._saved if each[0] <= length]
        self._count = min(self._count, length - self.position)
        self._settled = min(self._settled, length)
        self._marks = {mark for mark in self._marks if mark <= length}

    def mark(self, position: int) -> None:
        """Have a state kept at a position, because another text has parted from this one there."""
        self._marks.add(position)

    def reusable(self, length: int) -> int:
        """Return how many of the first `length` tokens another text need not read again."""
        if self.position <= length:
            return min(length, self.length)
        return max((at for at, _ in self._saved if at <= length), default=0)

    def fork(self, length: int) -> RecordedState:
        """Return the state of another text that begins with the first `length` tokens of this one.

        Raises:
            CacheError: `length` is not `reusable`.
        """
        if self.reusable(length) != length:
            raise CacheError(
                f"cannot fork {length:,} tokens: of a recurrent state there are those behind "
                f"{self.reusable(length):,} and {self.position:,} tokens",
                code="fork",
            )
        other = RecordedState(self.shape, self.every)
        other._saved = [each for each in self._saved if each[0] <= length]
        if self.position <= length:
            other.position, other._now = self.position, self._now
            other._count = length - self.position
            other._held = self._held[:, self._first : self._first + other._count].clone()
            self._borrowed = True
        elif length:
            other.position, other._now = other._saved[-1]
        other._borrowed, other._settled = True, length
        return other

    def take(self, states: Sequence[tuple[int, LayersState]]) -> None:
        """Begin with states of another process, in the order of their positions; the last one is the present one."""
        self._saved = list(states)
        self.position, self._now = states[-1]
        self._borrowed, self._settled = True, self.position

    @property
    def states(self) -> list[SavedState]:
        """All states that are held behind some tokens, in the order of their positions."""
        held = dict(self._saved) | ({} if self._now is None else {self.position: self._now})
        return [SavedState(at, held[at].tensors) for at in sorted(held) if at]

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor that is held."""
        states = [self._now, self._spare, *(each for _, each in self._saved)]
        held = [each for state in states if state is not None for each in (state.matrices, state.inputs)]
        return [*{id(each): each for each in held}.values(), self._held]

    def _kept_between(self, begin: int, end: int) -> set[int]:
        """Return the positions above `begin`, up to `end`, at which a state is kept."""
        multiples = range((begin // self.every + 1) * self.every, end + 1, self.every)
        return {*multiples, *(mark for mark in self._marks if begin < mark <= end)}

    def _save(self, position: int, state: LayersState) -> None:
        self._saved = [each for each in self._saved if each[0] < position] + [(position, state)]

    def _make_room(self, count: int) -> None:
        needed = self._count + count
        if self._first + needed <= self._held.shape[1]:
            return
        held = self._held[:, self._first : self._first + self._count]
        # What was made in inference mode may be written to there alone, where not every pass runs.
        if needed <= self._held.shape[1] and (torch.is_inference_mode_enabled() or not self._held.is_inference()):
            self._held[:, : self._count] = held.clone()
        else:
            room = max(_LEAST_ROOM, 2 * needed if self._count else needed)
            grown = torch.empty(self.shape.layers, room, self.shape.width, device=self.shape.device)
            grown[:, : self._count] = held
            self._held = grown
        self._first = 0
