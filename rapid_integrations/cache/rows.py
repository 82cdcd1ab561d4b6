"""What one reader wants from one forward pass."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rapid_integrations.cache.kv_cache import KVCache


@dataclass(frozen=True, eq=False)
class Rows:
    """Further tokens of one text.

    Attributes:
        token_ids: (T,) int64, on the model's device; T >= 1.
        cache: what has been read of the text so far; the pass writes its rows behind it.
        keep: how many of the last logits are wanted, 0 <= keep <= T.
        of_prompt: they are a piece of a prompt. Few rows are computed in another way than many, with other rounding.
            Those of a prompt are computed as many are, so that they do not depend on how much of it was cached.
    """

    token_ids: Tensor
    cache: KVCache
    keep: int
    of_prompt: bool = False

    @property
    def count(self) -> int:
        """T."""
        return self.token_ids.shape[0]
