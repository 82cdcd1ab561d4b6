"""Tells the thinking at the beginning of an answer apart from the answer, for servers and frameworks.

Models such as Qwen3 write `<think>...</think>` first. Whether a model does is read from its chat template, which has to
know the mark (`rapid_integrations.models.thinking_marks`). Only the beginning of an answer can be thinking, so the same
words further on are text.
"""

from __future__ import annotations

from typing import TypeVar

from rapid_integrations.models.thinking_marks import Marks
from rapid_integrations.outputs import Completion, CompletionChunk, Source

Part = TypeVar("Part", Completion, CompletionChunk)


class Thinking:
    """Takes the pieces of an answer in turn and tells its thinking apart.

    White space around the thinking and before the answer belongs to neither.

    Args:
        marks: see `marks_of`. With None, everything is answer.
    """

    def __init__(self, marks: Marks | None) -> None:
        self._marks = marks
        self._state = "thinking" if marks is not None and marks.opened else "before"
        self._held = ""  # text that is not told apart yet
        self._seen = 0  # characters so far
        self._begin: int | None = None  # where the answer begins among them
        self._thought = False  # whether any thinking has come

    def part(self, given: Part) -> tuple[str, Part]:
        """Return the thinking in the next piece, or in the whole answer, and the piece without it.

        Sources are only those of the answer, with their places in its text.
        """
        if self._marks is None:
            return "", given
        thinking, answer = self._told(self._marks, given.text, given.finish_reason is not None)
        begin = self._seen if self._begin is None else self._begin
        sources = tuple(_moved(source, begin) for source in given.sources if source.answer_start >= begin)
        return thinking, given.model_copy(update={"text": answer, "sources": sources})

    def _told(self, marks: Marks, text: str, last: bool) -> tuple[str, str]:
        """Return the thinking and the answer that become certain with the next text."""
        self._seen += len(text)
        self._held += text
        thinking = ""
        if self._state == "before":
            begun = self._held.lstrip()
            if begun.startswith(marks.opening):
                self._state, self._held = "thinking", begun[len(marks.opening) :]
            elif begun.startswith(marks.headers):
                self._state = "between"
            elif last or not any(each.startswith(begun) for each in (marks.opening, *marks.headers)):
                self._state, self._begin = "answer", 0
            else:
                return "", ""
        while self._state in ("thinking", "between"):
            if self._state == "thinking":
                end = self._held.find(marks.closing)
                if end < 0:
                    more = self._thinking(self._held if last else _certain(self._held, marks.closing))
                    return thinking + more, ""
                thinking += self._thinking(self._held[:end])
                self._state, self._held = "between", self._held.lstrip()[len(marks.closing) :]
            self._held = self._held.lstrip()
            if further := next((each for each in marks.again if self._held.startswith(each)), None):
                self._state, self._held = "thinking", self._held[len(further) :]
                thinking += "\n" if self._thought else ""
            elif header := next((each for each in marks.headers if self._held.startswith(each)), None):
                self._state, self._held = "headed", self._held[len(header) :]
            elif self._may_head(marks) and not (last and ">" not in self._held):
                return thinking, ""  # it may become one of them, or is cut off in one
            else:
                self._state = "headed"
        if self._state == "headed":
            self._held = self._held.lstrip()
            if not self._held:
                return thinking, ""
            self._state, self._begin = "answer", self._seen - len(self._held)
        answer, self._held = self._held, ""
        if marks.trailer:
            whole = answer.rstrip()
            kept = whole.removesuffix(marks.trailer) if whole.endswith(marks.trailer) else answer
            kept = kept if last else _certain(kept, marks.trailer)
            answer, self._held = kept, "" if last else answer[len(kept) :]
        return thinking, answer

    def _may_head(self, marks: Marks) -> bool:
        """Whether what is held is nothing, or the beginning of a text that stands before an answer."""
        return any(each.startswith(self._held) for each in ("", *marks.headers, *marks.again))

    def _thinking(self, text: str) -> str:
        """Return the thinking in a text that is the beginning of what is held, which is held no more.

        White space at its end is held on: it may stand before the end of the thinking.
        """
        text = text.rstrip()
        self._held = self._held[len(text) :]
        if not self._thought:
            text = text.lstrip()
        self._thought = self._thought or bool(text)
        return text


def _certain(text: str, mark: str) -> str:
    """Return a text without what may be the beginning of a mark at its end."""
    unsure = next(length for length in range(len(mark) - 1, -1, -1) if text.endswith(mark[:length]))
    return text[: len(text) - unsure]


def _moved(source: Source, begin: int) -> Source:
    places = {"answer_start": source.answer_start - begin, "answer_end": source.answer_end - begin}
    return source.model_copy(update=places)
