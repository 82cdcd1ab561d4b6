"""Stream an answer that may hold tool calls. Text is shown as soon as it cannot be the beginning of a call."""

from __future__ import annotations

from collections.abc import Collection

from rapid_integrations.models.thinking_marks import Marks
from rapid_integrations.outputs import InvalidToolCall
from rapid_integrations.tool_calls.behind_thinking import Place
from rapid_integrations.tool_calls.call_format import CallFormat
from rapid_integrations.tool_calls.parsing import (
    CUT,
    UNENDED,
    Parsed,
    parse_bare_call,
    parse_calls,
    places_of_calls,
)

# The beginning of an answer that is only a call's JSON, for every template (Qwen2.5-Coder fences it).
_BARE_OPENINGS = ('{"name"', '```json{"name"', '```{"name"')


_MOST_PLACES = 100  # at which calls are looked for in thinking without an end


class ToolCallStream:
    """Takes an answer's text piece by piece and returns text without calls.

    Everything after a call's opening is held back until the end, because only then is it known whether it is a call.
    White space is held back, too, because it belongs to a call that follows.

    Args:
        call_format: the format of calls.
        names: the names of the declared tools; see `parse_calls`.
        parallel: whether an answer may hold several calls. If not, further calls are invalid.
        required: whether the answer consists only of calls.
        bare: whether an answer that is only a call's JSON counts as a call, for every template.
        marks: how thinking begins and ends; None if it is not told apart. A call inside of it is thinking, unless the
            answer ends with it: Qwen3.5 and Ling at times call without an end of their thinking.

    Attributes:
        in_thinking: whether the calls stand in thinking that does not end, so that no grammar was followed.
    """

    def __init__(
        self,
        call_format: CallFormat,
        names: Collection[str],
        parallel: bool,
        required: bool = False,
        bare: bool = True,
        marks: Marks | None = None,
    ) -> None:
        self._format = call_format
        self._names = names
        self._limit = None if parallel else 1
        self._required = required
        self._bare = bare
        self._marks = marks
        self._place = Place.first(marks)
        self._thought = ""  # thinking from the opening of a call on
        self._thinking_opened = self._thinking_begun = False  # whether its mark, and more than white space, was shown
        self.in_thinking = False
        self._held = ""
        self._opened = False
        self._begun = False  # whether something other than white space was shown

    def push(self, text: str) -> str:
        """Take more text and return what is safe to show."""
        thought = ""
        if self._marks is not None and self._place.kind != "answer":
            self._place, thought, text = self._place.behind(text, self._marks)
            thought = self._safe(thought, self._marks)
        return thought + self._push(text)

    def _safe(self, thought: str, marks: Marks) -> str:
        """Take more thinking and return what is safe to show: all that is not behind the opening of a call."""
        self._thought += thought
        begin = 0
        if self._thought and not self._thinking_opened:
            begin = 0 if marks.opened else self._thought.find(marks.opening) + len(marks.opening)
            self._thinking_opened = True
        if (end := self._thought.rfind(marks.closing)) >= 0:
            begin = max(begin, end + len(marks.closing))
        at = len(self._thought)
        if self._place.kind == "thinking":
            at = begin + self._call_in(self._thought[begin:])
        self._thinking_begun = self._thinking_begun or bool(self._thought[begin:at].strip())
        shown, self._thought = self._thought[:at], self._thought[at:]
        return shown

    def _call_in(self, text: str) -> int:
        """Return the position in thinking where a call has begun or may have begun."""
        if not self._format.marked:
            start = len(text) - len(text.lstrip())
            begins = not self._thinking_begun and _begins(text, start, self._format.opening) is not None
            return start if begins else len(text)
        return min(_found(text, opening)[0] for opening in dict.fromkeys(way.opening for way in self._format.ways))

    def _in_thinking(self, cut: bool) -> Parsed:
        """Return what is held of thinking that does not end, and the calls with which the answer ends."""
        text = self._thought
        for at in () if cut else places_of_calls(text, self._format)[-_MOST_PLACES:]:
            parsed = parse_calls(text[at:], self._format, self._names, self._limit)
            if not parsed.text.strip() and (parsed.calls or parsed.invalid):
                self.in_thinking = True
                return Parsed(text[:at], parsed.calls, parsed.invalid)
        return Parsed(text, [], [])

    def _push(self, text: str) -> str:
        self._held += text
        if self._opened or self._required:
            return ""
        at = len(self._held[: self._candidate()].rstrip())
        shown, self._held = self._held[:at], self._held[at:]
        self._begun = self._begun or bool(shown)
        return shown

    def finish(self, *, cut: bool = False) -> Parsed:
        """Return the rest of the text, the calls, and the invalid calls.

        Call it once, at the end. `cut` says whether max_new_tokens ended the answer.
        """
        if self._place.kind == "thinking":
            return self._in_thinking(cut)
        if self._place.kind in ("before", "between"):
            self._held += self._place.held
        if self._bare and not self._begun and (bare := parse_bare_call(self._held, self._names, cut=cut)) is not None:
            return bare
        if not self._format.marked and self._begun:
            return Parsed(self._held, [], [])
        parsed = parse_calls(self._held, self._format, self._names, self._limit, cut=cut)
        if self._required and (parsed.text.strip() or not (parsed.calls or parsed.invalid)):  # too short to be told
            error = CUT if cut else UNENDED
            return Parsed("", parsed.calls, [*parsed.invalid, InvalidToolCall(name=None, arguments="", error=error)])
        return parsed

    def _candidate(self) -> int:
        """Return the position in the held text where a call has begun or may have begun."""
        start = len(self._held) - len(self._held.lstrip())
        if self._bare and not self._begun and any(self._may_be(opening, start) for opening in _BARE_OPENINGS):
            return start
        if not self._format.marked:
            may_open = not self._begun and self._may_be(self._format.opening, start)
            return start if may_open else len(self._held)
        places = [_found(self._held, opening) for opening in dict.fromkeys(way.opening for way in self._format.ways)]
        self._opened = self._opened or any(whole for _, whole in places)
        return min(at for at, _ in places)

    def _may_be(self, opening: str, start: int) -> bool:
        """Whether the held text from `start` on is `opening`, or the beginning of it. White space does not count."""
        begins = _begins(self._held, start, opening)
        self._opened = self._opened or begins is True
        return begins is not None


def _found(text: str, opening: str) -> tuple[int, bool]:
    """Return the position in a text where `opening` stands or may begin, and whether it stands there."""
    at = text.find(opening[0])
    while at >= 0:
        if (begins := _begins(text, at, opening)) is not None:
            return at, begins
        at = text.find(opening[0], at + 1)
    return len(text), False


def _begins(text: str, start: int, opening: str) -> bool | None:
    """Whether a text is `opening` from `start` on. None if it is not; False if it ends within. Blanks do not count."""
    matched = 0
    for character in text[start:]:
        if character.isspace():
            continue
        if character != opening[matched]:
            return None
        matched += 1
        if matched == len(opening):
            return True
    return False
