"""Stream an answer that may hold tool calls. Text is shown as soon as it cannot be the beginning of a call."""

from __future__ import annotations

from collections.abc import Collection

from rapid_integrations.outputs import InvalidToolCall
from rapid_integrations.tool_calls.call_format import CallFormat
from rapid_integrations.tool_calls.parsing import CUT, UNENDED, Parsed, parse_bare_call, parse_calls

# The beginning of an answer that is only a call's JSON, for every template (Qwen2.5-Coder fences it).
_BARE_OPENINGS = ('{"name"', '```json{"name"', '```{"name"')


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
    """

    def __init__(
        self,
        call_format: CallFormat,
        names: Collection[str],
        parallel: bool,
        required: bool = False,
        bare: bool = True,
    ) -> None:
        self._format = call_format
        self._names = names
        self._limit = None if parallel else 1
        self._required = required
        self._bare = bare
        self._held = ""
        self._opened = False
        self._begun = False  # whether something other than white space was shown

    def push(self, text: str) -> str:
        """Take more text and return what is safe to show."""
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
        return min(map(self._found, dict.fromkeys(way.opening for way in self._format.ways)))

    def _found(self, opening: str) -> int:
        """Return the position in the held text where `opening` stands or may begin."""
        at = self._held.find(opening[0])
        while at >= 0 and not self._may_be(opening, at):
            at = self._held.find(opening[0], at + 1)
        return at if at >= 0 else len(self._held)

    def _may_be(self, opening: str, start: int) -> bool:
        """Whether the held text from `start` on is `opening`, or the beginning of it. White space does not count."""
        matched = 0
        for character in self._held[start:]:
            if character.isspace():
                continue
            if character != opening[matched]:
                return False
            matched += 1
            if matched == len(opening):
                self._opened = True
                return True
        return True
