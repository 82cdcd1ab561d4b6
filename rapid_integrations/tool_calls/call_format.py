"""The format in which a model writes tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rapid_integrations.tool_calls.literals import LiteralArguments
from rapid_integrations.tool_calls.tagged import TaggedArguments


@dataclass(frozen=True)
class CallFormat:
    """The format of calls: `before call (between call)* after`, and of one call: `head NAME middle ARGUMENTS tail`.

    Attributes:
        before, between, after: the text around the calls of one answer.
        head, middle, tail: the text around a call's name and its arguments.
        id_tail: the text after the call's id, which follows `tail`; None if calls carry no id there.
        identity: what follows `middle`: the call's "id" (Mistral Small 3.2), or its "number" (Kimi-K2); None if nothing
            does.
        identity_tail: the text between the identity and the arguments.
        parallel: whether one answer may hold several calls.
        arguments_as_text: whether the template takes arguments as a JSON string instead of a mapping.
        marker: the part of `head` before the JSON object that holds name and arguments.
        keys: the names of that object's entries for name, arguments and id (None if there is no id); None if there is
            no such object, so that name and arguments are separate.
        closing: the text after the object within a call.
        numbered: whether each call's number stands before its `head` (Command).
        tagged: how arguments are written one by one; None if they are one JSON object.
        also: further heads and middles with which the model may write calls. They are read, and not enforced.
        openings_of_text: texts that begin with the same control token as a call, and are none.
    """

    before: str
    head: str
    middle: str
    tail: str
    between: str
    after: str
    id_tail: str | None
    parallel: bool
    arguments_as_text: bool
    marker: str
    keys: tuple[str, str, str | None] | None
    closing: str
    identity: Literal["id", "number"] | None = None
    identity_tail: str = ""
    numbered: bool = False
    tagged: TaggedArguments | LiteralArguments | None = None
    also: tuple[tuple[str, str], ...] = ()
    openings_of_text: tuple[str, ...] = ()

    @property
    def marked(self) -> bool:
        """Whether calls begin with more than the JSON itself. If not, only the beginning of an answer can be a call."""
        return self.keys is None or bool((self.before + self.marker).strip())

    @property
    def opening(self) -> str:
        """The text that marks a call, without white space."""
        begins = self.marker + "{" if self.keys is not None and self.marked else self.head
        whole = self.before + ("" if self.numbered else begins)
        return "".join(whole.split())

    @property
    def ways(self) -> tuple[CallFormat, ...]:
        """This format, and those with the other heads and middles."""
        return (self, *(replace(self, head=head, middle=middle, also=()) for head, middle in self.also))

    @property
    def written(self) -> str:
        """Every text that the template writes around the parts of calls."""
        call = self.head + self.middle + self.identity_tail + self.tail + (self.id_tail or "")
        others = "".join(text for way in (*self.also, self.openings_of_text) for text in way)
        of_arguments = self.tagged.written if self.tagged else ""
        return self.before + call + self.between + self.after + of_arguments + others

    def write(self, calls: Sequence[tuple[str, Any, str | None]]) -> str:
        """Return calls as the model writes them.

        Args:
            calls: name, arguments and id of each. Arguments that are a text stand as they are.
        """
        written = (self._call(number, *call) for number, call in enumerate(calls))
        return self.before + self.between.join(written) + self.after

    def _call(self, number: int, name: str, arguments: Any, call_id: str | None) -> str:
        name = name if self.keys is None else json.dumps(name, ensure_ascii=False)[1:-1]
        call_id = call_id or f"call{number:05d}"  # nine letters and digits, which the strictest templates want
        identity = {"id": call_id, "number": str(number), None: ""}[self.identity]
        if self.tagged is not None and isinstance(arguments, Mapping):
            arguments = self.tagged.write(arguments)
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return (
            (str(number) if self.numbered else "")
            + self.head
            + name
            + self.middle
            + identity
            + self.identity_tail
            + text
            + self.tail
            + ("" if self.id_tail is None else call_id + self.id_tail)
        )

    def identified(self, name: str, number: str) -> str | None:
        """Return the id of a call that carries its number: "functions.search:0"; None if it carries none."""
        if self.identity != "number":
            return None
        begin = re.search(r"[\w.-]*$", self.head)
        return (begin[0] if begin else "") + name + self.middle + number
