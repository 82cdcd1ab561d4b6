"""A constraint that is a function of the output; it notices when it is asked for what cannot be."""

from collections.abc import Callable, Collection, Sequence

import torch


class ScriptedConstraint:
    """Allows `allowed_after(output)` behind each output (committed tokens and a draft)."""

    def __init__(self, allowed_after: Callable[[tuple[int, ...]], Collection[int]], vocab_size: int) -> None:
        self._allowed_after = allowed_after
        self._vocab_size = vocab_size
        self.output: tuple[int, ...] = ()

    def allowed(self, draft: Sequence[int] = ()) -> torch.Tensor:
        for position, token in enumerate(draft):
            assert token in self._allowed_after((*self.output, *draft[:position])), "a forbidden token was drafted"
        mask = torch.zeros(self._vocab_size, dtype=torch.bool)
        mask[list(self._allowed_after((*self.output, *draft)))] = True
        return mask

    def commit(self, token_ids: Sequence[int]) -> None:
        self.allowed(token_ids)
        self.output += tuple(token_ids)


def hashed(seed: int, vocab_size: int) -> Callable[[tuple[int, ...]], set[int]]:
    """Return a rule that allows a different non-empty set behind each text, often a single token."""

    def allowed_after(output: tuple[int, ...]) -> set[int]:
        state = seed
        for token in output:
            state = (state * 31 + token + 1) % 1009
        chosen = {token for token in range(vocab_size) if (state >> token) & 1}
        return chosen or {state % vocab_size}

    return allowed_after
