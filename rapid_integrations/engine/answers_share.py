"""What running answers get of the time while others read their prompts."""

from __future__ import annotations

ANSWERS_SHARE = 0.25  # of the time, if there is also a prompt to read


class AnswersShare:
    """Shares the time between the passes of running answers and the pieces of prompts.

    A piece takes as long as ten to forty passes of answers. If one pass followed each piece, an answer would nearly
    stand still while others read. An answer also needs little time until it ends, so letting it go on delays a prompt
    less than waiting would delay the answer. With a larger share, fewer answers would run at once and share passes.
    """

    def __init__(self) -> None:
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the next pass is for the answers. After each piece there is one in any case."""
        return self._due > 0

    def read_piece(self, seconds: float) -> None:
        """Note how long a piece of a prompt has taken."""
        self._due = seconds * ANSWERS_SHARE / (1 - ANSWERS_SHARE)

    def wrote(self, seconds: float) -> None:
        """Note how long a pass for the answers has taken."""
        self._due -= seconds
