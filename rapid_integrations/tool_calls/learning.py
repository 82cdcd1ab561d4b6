r"""Read the format of a tool call from a model's chat template.

A conversation with a call of known name and arguments is rendered. The text that the template writes around them is the
format: `<tool_call>\n{"name": "N", "arguments": {...}}\n</tool_call>` (Hermes, Qwen), `{"name": "N", "parameters":
{...}}` (Llama 3), `[TOOL_CALLS] [{"name": "N", "arguments": {...}, "id": "I"}]` (Mistral). A second call shows the
text between two calls. Arguments that are written one by one are learnt in `tagged`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from rapid_integrations.errors import ConfigurationError, PromptError
from rapid_integrations.tool_calls.call_format import CallFormat
from rapid_integrations.tool_calls.harmony import HARMONY, is_harmony
from rapid_integrations.tool_calls.literals import LiteralArguments, learn_literals
from rapid_integrations.tool_calls.tagged import KEY, VALUE, TaggedArguments, learn_arguments

RenderChat: TypeAlias = Callable[[list[dict[str, Any]], "list[dict[str, Any]] | None", bool], str]
"""Renders (messages, tools, whether to add the opening of an answer) with a model's chat template."""
Written: TypeAlias = Callable[[list[dict[str, Any]]], str]

# Words that no template writes by itself. Some templates (Mistral) insist on ids of nine letters and digits.
_NAMES, _IDS = ("zqfirst", "zqsecond"), ("zqcall001", "zqcall002")
_TEXT = "zqtext"
_LONGEST_END = 200  # characters behind the last call; the longest known has 60
_ARGUMENTS = re.compile(rf'\{{\s*"{KEY}"\s*:\s*"{VALUE}"\s*\}}')
_PLAIN = {KEY: VALUE}
_CUT_TAG = re.compile(r"[<\[][^<>\[\]\s\"{}]*\Z")


def learn_call_format(
    render: RenderChat, ends: Iterable[str], model: str, known: CallFormat | None = None
) -> CallFormat:
    """Read the format from a template. What cannot be read is refused.

    Args:
        render: the template.
        ends: the eos tokens, as text.
        model: the model's name, for error messages.
        known: the format if the template shows tools and writes no calls; see `known_forms`.

    Raises:
        ConfigurationError: the template ignores tools, or writes arguments in a form that is neither JSON nor tagged.
    """
    user = {"role": "user", "content": "zquser"}
    tools = [_declaration(name) for name in _NAMES]
    try:
        prompt = render([user], tools, True)
        ignored = prompt == _without_tools(render, user)
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

    def written(calls: list[dict[str, Any]]) -> str:
        """Return the template's text for an answer of these calls, "" if it fails."""
        try:
            text = render([user, {"role": "assistant", "content": "", "tool_calls": calls}], tools, False)
        except PromptError:
            return ""
        answer = text[max(len(_common(text, other)) for other in (prompt, begin)) :]
        marks = [_ARGUMENTS, *map(re.compile, (VALUE, *_NAMES))]
        last = max((match.end() for mark in marks for match in mark.finditer(answer)), default=0)
        stops = [at for stop in (end, end.strip(), *ends) if stop and (at := answer.find(stop, last)) >= 0]
        return answer[: stops[0]] if stops else answer

    if known is not None and not any(_NAMES[0] in text or _IDS[0] in text for text in _texts_of_one(written)):
        return known
    found = _learnt(written, model)
    if any(stop and stop in found.before + found.head for stop in ends):
        raise _unusable(model, "its chat template begins a call with the token that ends an answer")
    if len(found.tail + found.after) > _LONGEST_END:
        raise _unusable(model, "its chat template writes more than its end behind a call")
    return found


def _texts_of_one(written: Written) -> Iterator[str]:
    """Return the texts for one call, whose arguments are a mapping or a text."""
    return (written([_call(_NAMES[0], _IDS[0], given)]) for given in (_PLAIN, json.dumps(_PLAIN)))


def _learnt(written: Written, model: str) -> CallFormat:
    """Return the format, from the template's text for calls.

    Args:
        written: returns the text for an answer of some calls, "" if the template fails.
        model: the model's name.
    """
    ids: tuple[str, ...] = _IDS

    def calls(count: int, given: Any) -> list[dict[str, Any]]:
        return [_call(name, call_id, given) for name, call_id in zip(_NAMES[:count], ids, strict=False)]

    as_json = json.dumps(_PLAIN)
    one = written(calls(1, _PLAIN))
    if is_harmony(one):
        return HARMONY
    if _NAMES[0] not in one and _IDS[0] in one:  # Kimi-K2's ids hold the names
        ids = tuple(f"functions.{name}:{number}" for number, name in enumerate(_NAMES))
        one = written(calls(1, _PLAIN))
    if _holds_one(one):
        return _read(one, written(calls(2, _PLAIN)), False, model)
    for learn in (learn_arguments, learn_literals):
        if (learnt := learn(lambda given: written(calls(1, given)), _NAMES[0])) is not None:
            middle, tagged = learnt
            return _read_tagged(middle, tagged, one, written(calls(2, _PLAIN)), model)
    # A template that writes a mapping in a form of its own takes no text, although it may write one.
    if (KEY not in one or repr(_PLAIN) in one) and _holds_one(one := written(calls(1, as_json))):
        return _read(one, written(calls(2, as_json)), True, model)
    raise _unusable(model, "its chat template does not write a call's arguments as JSON, as literals or between marks")


def _without_tools(render: RenderChat, user: dict[str, Any]) -> str:
    """Return the prompt without tools, "" from a template that writes none without (Hermes')."""
    try:
        return render([user], None, True)
    except PromptError:
        return ""


def _holds_one(answer: str) -> bool:
    return answer.count(_NAMES[0]) == 1 and len(_ARGUMENTS.findall(answer)) == 1


def _read_tagged(middle: str, tagged: TaggedArguments | LiteralArguments, one: str, two: str, model: str) -> CallFormat:
    """Derive the format from the texts for one call and for two, whose arguments are written one by one."""
    plain = tagged.write(_PLAIN)
    one, two = (text.replace(plain, json.dumps(_PLAIN)) for text in (one, two))
    found = _read(one, two, False, model)
    if found.middle + found.identity_tail != middle or not found.tail.strip():
        raise _unusable(model, "its chat template writes nothing behind a call's arguments")
    # Qwen3-Coder at times leaves out the first of two tags that begin a call.
    inner = re.search(r"(?<=>)\s*(<\w+=)\Z", found.head)
    return replace(found, tagged=tagged, also=((inner[1], found.middle),) if inner else ())


def _read(one: str, two: str, as_text: bool, model: str) -> CallFormat:
    """Derive the format from the texts for one call and for two."""
    first, middle, last = _around(one)
    if middle is None:
        raise _unusable(model, "its chat template writes a call's arguments before its name")
    before, head, between, tail, after, parallel = "", first, "", last, "", False
    identity, own, identity_tail = _identity(middle, "")
    if two.count(_NAMES[1]) == 1 and len(_ARGUMENTS.findall(two)) == 2:
        beside = two[two.index(_NAMES[1]) + len(_NAMES[1]) : list(_ARGUMENTS.finditer(two))[1].start()]
        identity, own, identity_tail = _identity(middle, beside)
        if identity is not None:  # otherwise the two calls could not be compared
            two = two.replace(_NAMES[1] + beside, _NAMES[1] + middle)
        start = next(_ARGUMENTS.finditer(two)).end()
        joint = two[start : two.index(_NAMES[1])]  # the first call's tail, the text between, the second one's head
        tail = _common(last, joint)
        rest = joint[len(tail) :]
        head = os.path.commonprefix([first[::-1], rest[::-1]])[::-1]
        between, before, after = rest[: len(rest) - len(head)], first[: len(first) - len(head)], last[len(tail) :]
        second = two[start + len(joint) :].replace(_IDS[1], _IDS[0])
        parallel = second == f"{_NAMES[1]}{middle}{_ARGUMENTS.search(one)[0]}{last}"  # type: ignore[index]
        if not parallel:  # calls are numbered, or the like
            before, head, between, tail, after = "", first, "", last, ""
    numbers = [re.search(r"\d+\Z", text) for text in (before, between)]
    numbered = bool(numbers[0] and numbers[1] and int(numbers[1][0]) == int(numbers[0][0]) + 1)
    if numbered:
        before, between = (re.sub(r"\d+\Z", "", text) for text in (before, between))
    parts = tail.split(_IDS[0])
    if len(parts) > 2 or _IDS[0] in before + head + own + identity_tail + after:
        raise _unusable(model, "its chat template writes a call's id before its name, or more than once")
    if not (before + head).strip():
        raise _unusable(model, "its chat template begins a call with nothing but its name")
    call = f"{head}{_NAMES[0]}{middle}{json.dumps(_PLAIN)}{tail}"
    marker, keys, closing = _object_in(call)
    return CallFormat(
        before=before,
        head=head,
        middle=own,
        tail=parts[0],
        between=between,
        after=after,
        id_tail=parts[1] if len(parts) == 2 else None,
        parallel=parallel,
        arguments_as_text=as_text,
        marker=marker,
        keys=keys,
        closing=closing,
        identity=identity,
        identity_tail=identity_tail,
        numbered=numbered,
    )


def _identity(middle: str, beside: str) -> tuple[Literal["id", "number"] | None, str, str]:
    """Return what identifies a call between its name and its arguments, and the text before and after that.

    Args:
        middle: the text between name and arguments.
        beside: the same of a second call in the answer, "" if there is none.
    """
    if middle.count(_IDS[0]) == 1:
        before, after = middle.split(_IDS[0])
        return "id", before, after
    numbers = re.fullmatch(r"(\D*)(\d+)(\D*)", middle), re.fullmatch(r"(\D*)(\d+)(\D*)", beside)
    if numbers[0] and numbers[1] and int(numbers[1][2]) == int(numbers[0][2]) + 1 and numbers[0][1] == numbers[1][1]:
        return "number", numbers[0][1], numbers[0][3]
    return None, middle, ""


def _common(text: str, other: str) -> str:
    """Return what both texts begin with, without a tag that only begins alike: it may be one token."""
    common = os.path.commonprefix([text, other])
    cut = _CUT_TAG.search(common)
    return common if cut is None or common == other else common[: cut.start()]


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
        name, arguments, call_id = (keys.get(json.dumps(each)) for each in (_NAMES[0], _PLAIN, _IDS[0]))
        if name is not None and arguments is not None:
            return call[:brace], (name, arguments, call_id), call[end:]
    return "", None, ""


def _declaration(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {KEY: {"type": "string", "description": "zq"}}, "required": [KEY]}
    return {"type": "function", "function": {"name": name, "description": "zq", "parameters": parameters}}


def _call(name: str, call_id: str, given: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": given}}


def _unusable(model: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"{model} cannot call tools here: {reason}. Use a model whose calls are one of these, or describe the tools in "
        "the prompt and ask for structured output"
    )
