"""What one reader wants from one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rapid_integrations.cache.hidden_states import WantedStates
from rapid_integrations.cache.kv_cache import KVCache
from rapid_integrations.cache.recorded_state import RecordedState, StatePass
from rapid_integrations.errors import CacheError
from rapid_integrations.sampling.sending import sent


@dataclass(frozen=True, eq=False)
class Rows:
    """Further tokens of one text.

    Attributes:
        token_ids: (T,) int64, on the model's device; T >= 1.
        cache: what has been read of the text so far; the pass writes its rows behind it.
        keep: how many of the last logits are wanted, 0 <= keep <= T.
        of_prompt: they are a piece of a prompt. Few rows are computed in another way than many, with other rounding.
            Those of a prompt are computed as many are, so that they do not depend on how much of it was cached.
        parents: the tokens are a tree. For each of the T tokens it holds the index of the token that it follows, which
            is smaller than its own, or -1 behind what has been read. None is a chain.
        states: the hidden states of these rows that somebody wants, too.
        check: the pass looks for NaN among the logits, for which the host waits. If not, whoever wants them looks.
    """

    token_ids: Tensor
    cache: KVCache
    keep: int
    of_prompt: bool = False
    parents: tuple[int, ...] | None = None
    states: WantedStates | None = None
    check: bool = True

    @property
    def count(self) -> int:
        """T."""
        return self.token_ids.shape[0]

    @property
    def wanted_states(self) -> WantedStates | None:
        """The hidden states that the pass has to give: None before the position from which on they are wanted."""
        if self.states is None or self.cache.length + self.count <= self.states.first:
            return None
        return self.states

    def state_pass(self) -> StatePass | None:
        """Return the pass over the recurrent state of the text; None: it has none.

        Raises:
            CacheError: the tokens are a tree, or another implementation keeps the state.
        """
        state = self.cache.state
        if state is None:
            return None
        if self.parents is not None or not isinstance(state, RecordedState):
            raise CacheError("a text with recurrent states is read as a chain, into a cache of the model's `new_cache`")
        return state.begin(self.cache.length, self.count, of_prompt=self.of_prompt)

    def give(self, states: Tensor) -> None:
        """Hand over the states (T, levels * E) of these rows, before the cache's length is advanced."""
        assert self.states is not None, "somebody wants them"
        self.states.take(self.cache.length, self.token_ids, self.parents, states)

    @property
    def depths(self) -> list[int]:
        """How many of the new tokens come before each of the T tokens in its own text. Its position counts from there.

        Of a chain this is 0, 1, 2, and so on.
        """
        if self.parents is None:
            return list(range(self.count))
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return depths

    @cached_property
    def depths_there(self) -> Tensor:
        """`depths`, (T,) int64, on the device of the ids, for which the host does not wait."""
        device = self.token_ids.device
        if self.parents is None:
            return torch.arange(self.count, device=device)
        return sent(torch.tensor(self.depths, dtype=torch.int64, device="cpu"), device)

    def visible(self, window: int | None, chunk: int | None = None) -> Tensor:
        """Return the mask of a tree's attention, (T, L) bool: True if row i sees key j.

        Args:
            window: keys that a query sees, its own included; None: all.
            chunk: the chunk of so many positions whose keys a query sees; None: all.
        """
        depths, past = self.depths, self.cache.length
        seen = torch.zeros(self.count, past + self.count, dtype=torch.bool, device="cpu")
        for row, (parent, depth) in enumerate(zip(self.parents or range(-1, self.count - 1), depths, strict=True)):
            first = 0 if window is None else max(0, past + depth + 1 - window)
            first = first if chunk is None else max(first, (past + depth) // chunk * chunk)
            seen[row, first:past] = True
            seen[row, past + row] = True
            while parent >= 0 and past + depths[parent] >= first:
                seen[row, past + parent] = True
                parent = parent - 1 if self.parents is None else self.parents[parent]
        return sent(seen, self.token_ids.device)
