"""The suffix indexes of prompts, built once for a document and kept for the next questions about it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rapid_integrations.cache.growing_text import GrowingText
from rapid_integrations.cache.prefix_cache import TokenIds, common_prefix
from rapid_integrations.cache.suffix_index import SuffixIndex
from rapid_integrations.errors import SharedResource

MOST_TOKENS = 4_000_000  # of all indexes together; a token takes 16 bytes
MOST_ANSWERS = 8  # to questions about one document
_LARGEST_REST = 1024  # tokens behind a document that are searched without an index of their own


@dataclass(eq=False)
class IndexedText:
    """A prompt, and what is known of it.

    Attributes:
        token_ids: (n,), the prompt that was indexed.
        index: of these tokens.
        answers: the newest answers to questions about it, that of a running request included.
    """

    token_ids: TokenIds
    index: SuffixIndex
    answers: deque[GrowingText] = field(default_factory=lambda: deque(maxlen=MOST_ANSWERS))


class IndexedTexts(SharedResource):
    """Keeps the indexes of the most recently used prompts.

    A prompt that begins with most of an earlier one (another question about its document) uses the index of that one,
    as far as both agree.
    """

    def __init__(self) -> None:
        self._kept: list[IndexedText] = []  # the most recently used one is the last

    def of(self, token_ids: Sequence[int]) -> tuple[IndexedText, int]:
        """Return an indexed text, and how many of `token_ids` it begins with: all of them if it was indexed now."""
        ids = np.asarray(token_ids, dtype=np.int64)
        shared, best = max(
            ((common_prefix(each.token_ids, ids), each) for each in self._kept),
            key=lambda pair: pair[0],
            default=(0, None),
        )
        if best is None or len(ids) - shared > _LARGEST_REST or 2 * shared < len(ids):
            shared, best = len(ids), IndexedText(ids, SuffixIndex.build(ids))
        else:
            self._kept.remove(best)
        self._kept.append(best)
        while len(self._kept) > 1 and sum(len(each.token_ids) for each in self._kept) > MOST_TOKENS:
            del self._kept[0]
        return best, shared

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()
