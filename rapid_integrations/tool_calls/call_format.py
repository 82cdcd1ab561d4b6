r"""Read the format of a tool call from a model's chat template.

A conversation with a call of known name and arguments is rendered. The text that the template writes around them is the
format: `<tool_call>\n{"name": "N", "arguments": {...}}\n</tool_call>` (Hermes, Qwen), `{"name": "N", "parameters":
{...}}` (Llama 3), `[TOOL_CALLS] [{"name": "N", "arguments": {...}, "id": "I"}]` (Mistral). A second call shows the
text between two calls.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from rapid_integrations.errors import ConfigurationError, PromptError

RenderChat: TypeAlias = Callable[[list[dict[str, Any]], "list[dict[str, Any]] | None", bool], str]
"""Renders (messages, tools, whether to add the opening of an answer) with a model's chat template."""

# Words that no template writes by itself. Some templates (Mistral) insist on ids of nine letters and digits.
_NAMES, _IDS = ("zqfirst", "zqsecond"), ("zqcall001", "zqcall002")
_KEY, _VALUE, _TEXT = "zqkey", "zqvalue", "zqtext"
_ARGUMENTS = re.compile(rf'\{{\s*"{_KEY}"\s*:\s*"{_VALUE}"\s*\}}')


@dataclass(frozen=True)
class CallFormat:
    """The format of calls: `before call (between call)* after`, and of one call: `head NAME middle ARGUMENTS tail`.

    Attributes:
        before, between, after: the text around the calls of one answer.
        head, middle, tail: the text around a call's name and its JSON arguments.
        id_tail: the text after the call's id, which follows `tail`; None if calls carry no id.
        parallel: whether one answer may hold several calls.
        arguments_as_text: whether the template takes arguments as a JSON string instead of a mapping.
        marker: the part of `head` before the JSON object that holds name and arguments.
        keys: the names of that object's entries for name, arguments and id (None if there is no id); None if there is
            no such object, so that name and arguments are separate.
        closing: the text after the object within a call.
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

    @property
    def marked(self) -> bool:
        """Whether calls begin with more than the JSON itself. If not, only the beginning of an answer can be a call."""
        return self.keys is None or bool((self.before + self.marker).strip())

    @property
    def opening(self) -> str:
        """The text that marks a call, without white space."""
        whole = self.before + (self.marker + "{" if self.keys is not None and self.marked else self.head)
        return "".join(whole.split())


def learn_call_format(render: RenderChat, ends: Iterable[str], model: str) -> CallFormat:
    """Read the format from a template.

    Args:
        render: the template.
        ends: the eos tokens, as text.
        model: the model's name, for error messages.

    Raises:
        ConfigurationError: the template ignores tools, or does not write calls with JSON arguments.
    """
    user = {"role": "user", "content": "zquser"}
    tools = [_declaration(name) for name in _NAMES]
    try:
        prompt = render([user], tools, True)
        ignored = prompt == render([user], None, True)
        plain = render([user, {"role": "assistant", "content": _TEXT}], tools, False)
    except PromptError as error:
        raise _unusable(model, f"its chat template fails on a message with tools ({error})") from None
    if ignored or _TEXT not in plain:
        raise ConfigurationError(
            f"{model} cannot call tools: its chat template writes the same text with tools and without. Use a model "
            "that was trained to call tools (Qwen2.5-Instruct, Llama-3.1-Instruct), or describe them in the prompt "
            "and ask for structured output"
        )
    begin, end = plain.split(_TEXT, 1)

    def written(count: int, as_text: bool) -> str:
        """Return the template's text for an answer of `count` calls, "" if it fails."""
        calls = [_call(name, call_id, as_text) for name, call_id in zip(_NAMES[:count], _IDS, strict=False)]
        try:
            text = render([user, {"role": "assistant", "content": "", "tool_calls": calls}], tools, False)
        except PromptError:
            return ""
        answer = text[max(len(os.path.commonprefix([text, other])) for other in (prompt, begin)) :]
        last = max((match.end() for match in _ARGUMENTS.finditer(answer)), default=0)
        stops = [at for stop in (end, end.strip(), *ends) if stop and (at := answer.find(stop, last)) >= 0]
        return answer[: stops[0]] if stops else answer

    for as_text in (False, True):
        answer = written(1, as_text)
        if answer.count(_NAMES[0]) == 1 and len(_ARGUMENTS.findall(answer)) == 1:
            return _read(answer, written(2, as_text), as_text, model)
    raise _unusable(model, "its chat template does not write a call's arguments as JSON")


def _read(one: str, two: str, as_text: bool, model: str) -> CallFormat:
    """Derive the format from the texts for one call and for two."""
    first, middle, last = _around(one)
    if middle is None:
        raise _unusable(model, "its chat template writes a call's arguments before its name")
    before, head, between, tail, after, parallel = "", first, "", last, "", False
    if two.count(_NAMES[1]) == 1 and len(_ARGUMENTS.findall(two)) == 2:
        start = next(_ARGUMENTS.finditer(two)).end()
        joint = two[start : two.index(_NAMES[1])]  # the first call's tail, the text between, the second one's head
        tail = os.path.commonprefix([last, joint])
        rest = joint[len(tail) :]
        head = os.path.commonprefix([first[::-1], rest[::-1]])[::-1]
        between, before, after = rest[: len(rest) - len(head)], first[: len(first) - len(head)], last[len(tail) :]
        second = two[start + len(joint) :].replace(_IDS[1], _IDS[0])
        parallel = second == f"{_NAMES[1]}{middle}{_ARGUMENTS.search(one)[0]}{last}"  # type: ignore[index]
        if not parallel:  # calls are numbered, or the like
            before, head, between, tail, after = "", first, "", last, ""
    parts = tail.split(_IDS[0])
    if len(parts) > 2 or _IDS[0] in before + head + middle + after:
        raise _unusable(model, "its chat template does not write a call's id after its arguments")
    call = f"{head}{_NAMES[0]}{middle}{json.dumps({_KEY: _VALUE})}{tail}"
    marker, keys, closing = _object_in(call)
    return CallFormat(
        before=before,
        head=head,
        middle=middle,
        tail=parts[0],
        between=between,
        after=after,
        id_tail=parts[1] if len(parts) == 2 else None,
        parallel=parallel,
        arguments_as_text=as_text,
        marker=marker,
        keys=keys,
        closing=closing,
    )


def _around(answer: str) -> tuple[str, str | None, str]:
    """Return the text before the name, between name and arguments (None if they come first), and after both."""
    name = answer.index(_NAMES[0])
    arguments = _ARGUMENTS.search(answer)
    assert arguments is not None
    if arguments.start() < name:
        return "", None, ""
    return answer[:name], answer[name + len(_NAMES[0]) : arguments.start()], answer[arguments.end() :]


def _object_in(call: str) -> tuple[str, tuple[str, str, str | None] | None, str]:
    """Return the text before the JSON object with name and arguments, its keys, and the text after it."""
    for brace in (match.start() for match in re.finditer(r"\{", call)):
        try:
            found, end = json.JSONDecoder().raw_decode(call, brace)
        except ValueError:
            continue
        keys = {json.dumps(value): key for key, value in found.items()}
        name, arguments, call_id = (keys.get(json.dumps(each)) for each in (_NAMES[0], {_KEY: _VALUE}, _IDS[0]))
        if name is not None and arguments is not None:
            return call[:brace], (name, arguments, call_id), call[end:]
    return "", None, ""


def _declaration(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {_KEY: {"type": "string"}}, "required": [_KEY]}
    return {"type": "function", "function": {"name": name, "description": "zq", "parameters": parameters}}


def _call(name: str, call_id: str, as_text: bool) -> dict[str, Any]:
    arguments = {_KEY: _VALUE}
    given = json.dumps(arguments) if as_text else arguments
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": given}}


def _unusable(model: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"{model} cannot call tools here: {reason}. Use a model whose calls are JSON, or describe the tools in the "
        "prompt and ask for structured output"
    )
