"""Turns token ids into text that can be shown: whole characters, and no part of a stop string. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\ufffd"  # what a decoder writes for the first bytes of an unfinished character
_UNFINISHED = 4  # tokens; an unfinished character has at most this many
_MOST_HELD = 32  # tokens; a longer run is broken text or real U+FFFD, not an unfinished character


class TextStream:
    """Decodes a growing token sequence piece by piece.

    The joined pieces equal the text of all tokens decoded at once, up to a stop string. A character that spans several
    tokens is held back until it is complete, and so is text that may become a stop string. A character that is still
    incomplete at the end is left out. A U+FFFD that the model wrote stays.

    Args:
        decode: turns token ids into text, without control tokens.
        stop: strings that end the text; the earliest one found counts and is not part of it.
        decode_finished: like `decode`, without an unfinished character at the end. Pass `decode` if unfinished
            characters cannot be detected.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str] = (),
        decode_finished: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        self._decode = decode
        self._decode_finished = decode if decode_finished is None else decode_finished
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._settled = 0  # the text of ids before this one is final
        self._context = 0  # ids from here on are decoded again, to get the spaces between tokens right
        self._held = ""  # decoded, but not shown yet
        self.stopped = False

    @property
    def may_stop(self) -> bool:
        """Whether there are stop strings."""
        return bool(self._stop)

    def push(self, *token_ids: int) -> str:
        """Take further tokens and return the text that is now safe to show."""
        self._ids += token_ids
        new = self._decode_rest()
        if new.endswith(_REPLACEMENT):
            if len(token_ids) > 1:  # tokens before the unfinished character can be shown
                del self._ids[-len(token_ids) :]
                return "".join(map(self.push, token_ids))
            return self._release_broken(new)
        self._settle(len(self._ids))
        return self._release(new)

    def finish(self) -> str:
        """Return the held text; call once, at the end."""
        if self.stopped:
            return ""
        rest = self._rest_by(self._decode_finished)
        self._settle(len(self._ids))
        return self._release(rest) + self._take_held()

    def _decode_rest(self) -> str:
        return self._rest_by(self._decode)

    def _rest_by(self, decode: Callable[[Sequence[int]], str]) -> str:
        before = self._decode(self._ids[self._context : self._settled])
        return decode(self._ids[self._context :])[len(before) :]

    def _release_broken(self, new: str) -> str:
        """Release all but the end of a long run of tokens, as decoding all of it for each new token is quadratic."""
        if len(self._ids) - self._settled < _MOST_HELD:
            return ""
        end = len(self._ids) - _UNFINISHED
        before = self._decode(self._ids[self._context : self._settled])
        certain = self._decode(self._ids[self._context : end])[len(before) :]
        if not new.startswith(certain):
            return ""
        self._settle(end)
        return self._release(certain)

    def _settle(self, end: int) -> None:
        if end > self._settled:
            self._context, self._settled = self._settled, end

    def _release(self, new: str) -> str:
        self._held += new
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = self._held[: min(found)]
            return self._take_held()
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def _take_held(self) -> str:
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a proper start of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
