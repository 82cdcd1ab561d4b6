"""When an answer ends, and what of a round's tokens still belongs to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rapid_integrations.decoding.text_stream import TextStream

StopReason = Literal["eos", "stop", "length"]


@dataclass(frozen=True)
class Taken:
    """The part of a round's tokens that is output.

    Attributes:
        token_ids: the tokens; an end-of-sequence token that ends the answer is the last of them.
        text: what can be shown now.
        finish_reason: why the answer ends here; None while it goes on.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: StopReason | None


class Stopping:
    """Ends an answer at an eos token, a stop string, or a number of tokens; whichever comes first.

    Args:
        eos_token_ids: any of these ends the answer.
        max_new_tokens: output tokens at most.
        text_stream: decodes the output and finds stop strings.
    """

    def __init__(self, eos_token_ids: frozenset[int], max_new_tokens: int, text_stream: TextStream) -> None:
        self.eos_token_ids = eos_token_ids
        self.remaining = max_new_tokens
        self._text = text_stream

    def take(self, token_ids: Sequence[int]) -> Taken:
        """Take the tokens of a round in order, up to the one that ends the answer."""
        taken: list[int] = []
        text = ""
        reason: StopReason | None = None
        for token in token_ids:
            taken.append(token)
            self.remaining -= 1
            if self._text.may_stop:  # at any of them; else they are decoded together
                text += self._text.push(token)
            if self._text.stopped:
                reason = "stop"
            elif token in self.eos_token_ids:
                reason = "eos"
            elif self.remaining == 0:
                reason = "length"
            if reason is not None:
                break
        if not self._text.may_stop:
            text = self._text.push(*taken)
        if reason is not None:
            text += self._text.finish()
        # What was held back may complete a stop string only now, together with the last bytes.
        if reason in ("eos", "length") and self._text.stopped:
            reason = "stop"
        return Taken(tuple(taken), text, reason)
