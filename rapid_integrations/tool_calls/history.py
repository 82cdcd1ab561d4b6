"""Render a conversation in which tools were called, so that no call, text or result is lost.

Some chat templates write no earlier calls (LFM2, Granite 3.3, SmolLM3), only the first of several (GigaChat, GPT-OSS),
refuse several (Llama 3), or leave out what the model said beside a call (Llama 3, Mistral, Command). What a template
does with a conversation is seen by rendering it with marks in place of contents and arguments. If all are there, the
template's own text stands. Otherwise the messages are given in another way: one call a message, the text in a message
of its own, or the calls as text, as the model writes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from rapid_integrations.errors import PromptError
from rapid_integrations.tool_calls.call_format import CallFormat
from rapid_integrations.tool_calls.request import with_arguments_as

Messages: TypeAlias = Sequence[Mapping[str, Any]]
Render: TypeAlias = Callable[[list[dict[str, Any]]], str]
"""Renders messages with a model's chat template and the tools of the request."""

_USER = {"role": "user", "content": "zquser"}
_CALL = {"id": "zqcall001", "type": "function", "function": {"name": "zqfirst", "arguments": {"zqkey": "zqvalue"}}}


def calls_tools(messages: Messages) -> bool:
    """Whether there are calls of tools or results of such among the messages."""
    return any(message.get("tool_calls") or message.get("role") == "tool" for message in messages)


@dataclass(frozen=True)
class History:
    """Renders conversations with calls.

    Attributes:
        render: the template.
        form: how the model writes calls; None if that is not known.
        writes_calls: whether the template reads "tool_calls" at all.
        model: the model's name, for messages.
    """

    render: Render
    form: CallFormat | None
    writes_calls: bool
    model: str

    def text(self, messages: Messages) -> str:
        """Return the rendered conversation. It is the template's own text if that holds all of it.

        Raises:
            PromptError: the template refuses the messages, or leaves one out however it is given.
        """
        probe, lost, refused = _with_marks(messages), None, None
        for way in self._ways(messages):
            if way.kind == "written" and self.writes_calls and lost is None and not _broken(messages):
                continue  # what the template refuses is not passed by it
            try:
                place = _left_out(probe, self._rendered(way, probe))
                if place is None:
                    text = self._rendered(way, messages)
                    if (place := self._cut(way, messages, text)) is None:
                        return text
                lost = place if lost is None else lost
            except PromptError as error:
                refused = error if refused is None else refused
        if lost is not None:
            raise self._unwritten(messages, lost)
        if refused is None or not self.writes_calls:  # there is no way to give the calls
            calls = next((at for at, message in enumerate(messages) if message.get("tool_calls")), None)
            if calls is not None:
                raise self._unwritten(messages, calls)
        return self._rendered(_Way(), messages)  # says why, or is right although marks in its place are refused

    def _ways(self, messages: Messages) -> Iterator[_Way]:
        """Return the ways to give the messages, without those that change nothing further."""
        counts = [len(message.get("tool_calls") or ()) for message in messages]
        spoken = any(_has_text(message) for message, count in zip(messages, counts, strict=True) if count)
        kinds = ["calls"] if self.writes_calls or not any(counts) else []
        if spoken and self.writes_calls:
            kinds += [*(["beside"] if self._fits else []), "apart", *(["inserted"] if self.form else [])]
        if any(counts) and self.form is not None and (not self.writes_calls or self._fits):
            kinds.append("written")
        empty = any(message.get("content") is None for message in messages)
        forms = [self.form.arguments_as_text] if self.form is not None else [False, True]
        for kind, alone, filled, as_text in itertools.product(kinds, (False, True), (False, True), forms):
            if (alone and max(counts) < 2) or (filled and not empty):
                continue
            several = not alone and max(counts) > 1
            if kind in ("beside", "written") and several and self.form is not None and not self.form.parallel:
                continue
            yield _Way(kind, alone, filled, as_text)

    @property
    def _fits(self) -> bool:
        """Whether the template writes a call where it writes an answer's text, so that both may stand together.

        Command and GPT-OSS put a text into an own part of the answer.
        """
        if self.form is None:
            return False
        try:
            spoken = self.render([_USER, {"role": "assistant", "content": "zqtext"}])
            called = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
            calling = self.render(with_arguments_as([_USER, called], self.form.arguments_as_text))
        except PromptError:
            return False
        return "zqtext" in spoken and calling.startswith(spoken[: spoken.index("zqtext")].rstrip())

    def _rendered(self, way: _Way, messages: Messages) -> str:
        given = way.given(messages, self.form)
        text = self.render(with_arguments_as(given, way.as_text))
        return text if way.kind != "inserted" or self.form is None else _with_texts(text, given, self.form)

    def _cut(self, way: _Way, messages: Messages, text: str) -> int | None:
        """Return the place of the first message whose calls, given as text, the template has cut; None without one.

        A template may take a content for one with thinking, and cut it at "</think>".
        """
        if way.kind not in ("beside", "written") or self.form is None:
            return None
        given = _one_call_each(messages) if way.alone else messages
        for message in given:
            calls = list(message.get("tool_calls") or ())
            as_text = bool(calls) and (way.kind == "written" or _has_text(message))
            if as_text and _write(self.form, calls).strip() not in text:
                return next(at for at, each in enumerate(messages) if calls[0] in (each.get("tool_calls") or ()))
        return None

    def _unwritten(self, messages: Messages, place: int) -> PromptError:
        """Return the error for a message (the first is 0) that the model would not see."""
        message = messages[place]
        if message.get("tool_calls") and self.writes_calls:
            return PromptError(
                f"message {place + 1} calls tools, and the chat template of {self.model} does not write all of it, so "
                "the model would not see it. Write the call and its result as text, or leave them out",
                code="not_written",
            )
        if message.get("tool_calls"):
            return PromptError(
                f"message {place + 1} calls tools, and the chat template of {self.model} writes no calls, so the "
                "model would not see them. Write the call and its result as text, leave them out, or use a model that "
                "was trained to call tools",
                code="no_tool_calls",
            )
        return PromptError(
            f"the chat template of {self.model} does not write message {place + 1}, of the role "
            f"{message.get('role')!r:.40}, so the model would not see it. Write it as text into a message of the role "
            "'user', leave it out, or use a model that was trained to call tools",
            code="not_written",
        )


@dataclass(frozen=True)
class _Way:
    """A way to give messages to a template.

    Attributes:
        kind: "calls" as they are; "apart": a text beside calls in a message before them; "beside": calls as text behind
            the text that stands beside them; "inserted": a text beside calls is put in front of them; "written": all
            calls as text.
        alone: whether each call is in a message of its own, with its result behind it.
        filled: whether a missing content is "".
        as_text: whether arguments are a JSON text.
    """

    kind: str = "calls"
    alone: bool = False
    filled: bool = False
    as_text: bool = False

    def given(self, messages: Messages, form: CallFormat | None) -> list[dict[str, Any]]:
        """Return the messages given in this way."""
        found = _one_call_each(messages) if self.alone else [dict(message) for message in messages]
        if self.filled:
            found = [{**message, "content": ""} if message.get("content") is None else message for message in found]
        given: list[dict[str, Any]] = []
        for message in found:
            calls, text = message.get("tool_calls"), message.get("content")
            if calls and form is not None and (self.kind == "written" or self.kind == "beside" and _has_text(message)):
                kept = {key: value for key, value in message.items() if key != "tool_calls"}
                given.append({**kept, "content": (text or "") + _written_behind(text, form, calls)})
            elif calls and self.kind == "apart" and _has_text(message):
                given += [{"role": message["role"], "content": text}, {**message, "content": ""}]
            else:
                given.append(message)
        return given


def _with_texts(rendered: str, messages: Messages, form: CallFormat) -> str:
    """Return a rendered conversation with what was said beside calls in front of these, where the template left it out.

    Mistral's templates leave it out, and refuse it in a message of its own.
    """
    parts, position = [], 0
    for message in messages:
        if not (calls := message.get("tool_calls")):
            continue
        written = _write(form, calls).strip()
        if (at := rendered.find(written, position)) < 0:
            break
        said = message["content"].strip() + _break_before(form) if _has_text(message) else ""
        parts += [rendered[position:at], said, written]
        position = at + len(written)
    return "".join([*parts, rendered[position:]])


def _broken(messages: Messages) -> bool:
    """Whether a call has arguments that are no object."""
    calls = [call for message in with_arguments_as(messages, False) for call in message.get("tool_calls") or ()]
    return any(not isinstance((call.get("function") or {}).get("arguments", {}), Mapping) for call in calls)


def _has_text(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, str) and bool(content.strip())


def _written_behind(text: Any, form: CallFormat, calls: Sequence[Mapping[str, Any]]) -> str:
    """Return calls as the model writes them, with a line break in front if calls are parted by one and a text is."""
    written = _write(form, calls).lstrip()
    return (_break_before(form) if text else "") + written


def _break_before(form: CallFormat) -> str:
    """Return the white space between a text and a call, which answers are shown without."""
    opening = form.before + form.head
    own = opening[: len(opening) - len(opening.lstrip())]
    return own or (form.between if form.between.isspace() else "")


def _write(form: CallFormat, calls: Sequence[Mapping[str, Any]]) -> str:
    """Return calls of OpenAI's form as the model writes them."""
    read = with_arguments_as([{"tool_calls": calls}], False)[0]["tool_calls"]
    functions = [(call.get("id"), call.get("function") or {}) for call in read]
    return form.write([(str(each.get("name")), each.get("arguments", {}), call_id) for call_id, each in functions])


def _one_call_each(messages: Messages) -> list[dict[str, Any]]:
    """Return the messages with one call each, and behind each call what follows with its id, or else in its order."""
    found: list[dict[str, Any]] = []
    at = 0
    while at < len(messages):
        message = dict(messages[at])
        at += 1
        calls = list(message.get("tool_calls") or ())
        if len(calls) < 2:
            found.append(message)
            continue
        results = list(itertools.takewhile(lambda each: each.get("role") == "tool", messages[at:]))
        at += len(results)
        of_calls = _results_of(calls, [dict(result) for result in results])
        for number, (call, own) in enumerate(zip(calls, of_calls, strict=True)):
            first = message if number == 0 else {"role": message["role"], "content": ""}
            found += [{**first, "tool_calls": [call]}, *own]
    return found


def _results_of(calls: Sequence[Mapping[str, Any]], results: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the results of each call: by their ids, if all are known, and otherwise one after another."""
    ids = [call.get("id") for call in calls]
    places = [ids.index(id_) if (id_ := result.get("tool_call_id")) in ids else -1 for result in results]
    if -1 in places or len(set(ids)) < len(ids):
        places = [min(number, len(calls) - 1) for number in range(len(results))]
    return [
        [result for result, of in zip(results, places, strict=True) if of == number] for number in range(len(calls))
    ]


def _with_marks(messages: Messages) -> list[dict[str, Any]]:
    """Return the messages with a mark in place of each content that is not blank, and of all arguments."""
    marked = []
    for at, message in enumerate(messages):
        given = dict(message)
        if _has_text(message):
            given["content"] = _mark(at)
        if message.get("tool_calls"):
            given["tool_calls"] = [
                {**call, "function": {**(call.get("function") or {}), "arguments": {_mark(at, n): _mark(at, n)}}}
                for n, call in enumerate(message["tool_calls"])
            ]
        marked.append(given)
    return marked


def _left_out(marked: Messages, rendered: str) -> int | None:
    """Return the place of the first message whose marks are not all in the text; None if there is none."""
    for at, message in enumerate(marked):
        calls = range(len(message.get("tool_calls") or ()))
        marks = [*([_mark(at)] if _has_text(message) else []), *(_mark(at, number) for number in calls)]
        if any(mark not in rendered for mark in marks):
            return at
    return None


def _mark(message: int, call: int | None = None) -> str:
    """Return a word that stands for a message's content or a call's arguments, and that no template writes."""
    return f"zqm{message:05d}x" if call is None else f"zqm{message:05d}c{call:04d}x"
