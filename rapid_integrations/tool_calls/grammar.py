"""The grammar of an answer that calls tools, in llguidance's variant of Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rapid_integrations.structured.grammar import JSON_OPTIONS
from rapid_integrations.tool_calls.call_format import CallFormat

_SPREADING = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties", "additionalProperties")


def tool_grammar(
    call_format: CallFormat,
    parameters: Mapping[str, Mapping[str, Any]],
    specials: Mapping[str, int],
    eos_token_ids: Sequence[int],
    *,
    required: bool,
    parallel: bool,
) -> str:
    """Return the grammar.

    Args:
        call_format: how calls are written.
        parameters: the JSON schema of each tool's arguments, by name.
        specials: tokens that stand for a whole string and that no text is made of, by that string.
        eos_token_ids: what ends the answer.
        required: nothing but calls; otherwise text, in which a call's opening must lead to a call. Behind the calls
            the answer ends.
        parallel: whether several calls may follow one another.
    """
    text, cut = ([], 0) if required else _text(call_format, specials, eos_token_ids)
    between = _literal(call_format.between, specials)
    repeated = f" ({between} call)*" if parallel and call_format.parallel else ""
    numbers = range(len(parameters))
    rules = [
        f"calls: first{repeated} {_literal(call_format.after, specials)}",
        "first: " + " | ".join(f"first_{number}" for number in numbers),
        "call: " + " | ".join(f"call_{number}" for number in numbers),
    ]
    for number, (name, schema) in enumerate(parameters.items()):
        head = call_format.head + name + call_format.middle
        identity = "" if call_format.id_tail is None else f"CALL_ID {_literal(call_format.id_tail, specials)}"
        rest = f"arguments_{number} {_literal(call_format.tail, specials)} {identity}"
        rules += [
            f"first_{number}: {_literal((call_format.before + head)[cut:], specials)} {rest}",
            f"call_{number}: {_literal(head, specials)} {rest}",
            f"arguments_{number}: %json {json.dumps(arguments_schema(schema))}",
        ]
    if call_format.id_tail is not None:
        rules.append("CALL_ID: /[a-zA-Z0-9]{9}/")
    return "\n".join([*(text or ["start: calls"]), *rules])


def arguments_schema(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the schema of a tool's arguments: an object, without entries that nothing declares."""
    schema: dict[str, Any] = {"type": "object", **(parameters or {})}
    if not any(key in schema for key in _SPREADING):
        schema["additionalProperties"] = False
    return {"x-guidance": JSON_OPTIONS, **schema}


def _text(call_format: CallFormat, specials: Mapping[str, int], eos: Sequence[int]) -> tuple[list[str], int]:
    """Return the rules for text with calls at its end, and how much of the first call's opening they consume."""
    opening = call_format.before + call_format.head
    blank = len(opening) - len(opening.lstrip())
    leading = next((token for text, token in specials.items() if opening[blank:].startswith(text)), None)
    if leading is not None:  # every other token is text
        return ["start: text calls?", f"text: (<[^{leading}]>)*"], blank
    control = sorted(set(specials.values()) - set(eos))
    special = ["special: <[" + ",".join(map(str, control)) + "]>"] if control else []
    if not call_format.marked:
        # Such an answer is a call from its first character on, or a text that does not begin like one.
        other = rf"OTHER: /(.|\n)+/ & ~/{_regex(opening)}(.|\n)*/"
        if not special:
            return ["start: (OTHER | calls)?", other], 0
        rest = ["start: special* (OTHER (special TEXT?)*)? | special* calls", *special, r"TEXT: /(.|\n)+/", other]
        return rest, 0
    trigger = opening if call_format.keys is None else call_format.before + call_format.marker
    trigger = trigger.rstrip()
    before = "(TEXT? special)* " if special else ""
    lazy = rf"opening[lazy]: /(.|\n)*{_regex(trigger[blank:])}/"
    return [f"start: {before}(TEXT | opening calls)?", *special, r"TEXT: /(.|\n)+/", lazy], len(trigger)


def _literal(text: str, specials: Mapping[str, int]) -> str:
    """Return Lark for exactly this text: strings, and tokens that stand for a whole string."""
    if not specials:
        return json.dumps(text) if text else ""
    parts = re.split("(" + "|".join(re.escape(each) for each in sorted(specials, key=len, reverse=True)) + ")", text)
    return " ".join(f"<[{specials[part]}]>" if part in specials else json.dumps(part) for part in parts if part)


def _regex(text: str) -> str:
    """Return a regular expression for exactly this text, fit to stand between slashes."""
    # Not re.escape: a backslash before "<" is a word boundary in Rust's syntax, and one is needed before the slash.
    return re.sub(r"([.^$*+?()\[\]{}|\\/])", r"\\\1", text).replace("\n", "\\n")
