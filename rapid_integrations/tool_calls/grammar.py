"""The grammar of an answer that calls tools, in llguidance's variant of Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.structured.grammar import enforceable_schema, with_options
from rapid_integrations.structured.schema import Enforceable
from rapid_integrations.tool_calls.argument_rules import FREE_NAME, ArgumentRules, regex_of, unwritten_arguments
from rapid_integrations.tool_calls.call_format import CallFormat
from rapid_integrations.tool_calls.literal_grammar import LiteralRules
from rapid_integrations.tool_calls.literals import LiteralArguments
from rapid_integrations.tool_calls.tagged_grammar import TaggedRules

_SPREADING = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties", "additionalProperties")


def tool_grammar(
    call_format: CallFormat,
    parameters: Mapping[str, Enforceable],
    specials: Mapping[str, int],
    eos_token_ids: Sequence[int],
    *,
    required: bool,
    parallel: bool,
    answer: Enforceable | None = None,
) -> str:
    """Return the grammar.

    Args:
        call_format: the format of calls.
        parameters: the enforceable schema of each tool's arguments, by name.
        specials: tokens that stand for a whole string and never occur in text, by that string.
        eos_token_ids: the tokens that end the answer.
        required: whether only calls are allowed. Otherwise the answer is text, in which a call's opening must lead to a
            call. The answer ends after the calls.
        parallel: whether several calls may follow one another.
        answer: the schema of an answer without a call; None allows any text.
    """
    if answer is not None and not required and not call_format.marked:
        return f"start: %json {with_options(_call_or_answer(call_format, parameters, answer))}"
    if required or answer is not None:
        text, cut = ["start: calls"], 0
    else:
        text, cut = _text(call_format, specials, eos_token_ids)
    if answer is not None and not required:
        text = ["start: calls | answer", f"answer: %json {_dumped(answer)}"]
    between = _literal(call_format.between, specials)
    repeated = f" ({between} call)*" if parallel and call_format.parallel else ""
    numbers = range(len(parameters))
    rules = [
        f"calls: first{repeated} {_literal(call_format.after, specials)}",
        "first: " + " | ".join(f"first_{number}" for number in numbers),
        "call: " + " | ".join(f"call_{number}" for number in numbers),
    ]
    inner = {"id": "CALL_ID ", "number": "CALL_NUMBER ", None: ""}[call_format.identity]
    inner += _literal(call_format.identity_tail, specials)
    for number, (name, schema) in enumerate(parameters.items()):
        head = call_format.head + name + call_format.middle
        identity = "" if call_format.id_tail is None else f"CALL_ID {_literal(call_format.id_tail, specials)}"
        rest = f"{inner} arguments_{number} {_literal(call_format.tail, specials)} {identity}"
        opening = _literal((call_format.before + head)[cut:], specials)
        if call_format.numbered:
            numbered = f"CALL_NUMBER {_literal(head, specials)}"
            opening = f"{_literal(call_format.before[cut:], specials)} {numbered}"
        else:
            numbered = _literal(head, specials)
        rules += [f"first_{number}: {opening} {rest}", f"call_{number}: {numbered} {rest}"]
        if (written := _argument_rules(call_format, number, specials)) is None:
            rules.append(f"arguments_{number}: %json {_dumped(schema)}")
        else:
            rules += written.rules(schema)
    if call_format.id_tail is not None or call_format.identity == "id":
        rules.append("CALL_ID: /[a-zA-Z0-9]{9}/")
    if call_format.identity == "number" or call_format.numbered:
        rules.append("CALL_NUMBER: /[0-9]{1,4}/")
    if any("FREE_NAME" in rule for rule in rules):
        rules.append(FREE_NAME)
    return "\n".join([*text, *rules])


def _argument_rules(call_format: CallFormat, number: int, specials: Mapping[str, int]) -> ArgumentRules | None:
    """Return what writes the rules for a tool's arguments; None if they are one JSON object."""
    tagged = call_format.tagged
    if isinstance(tagged, LiteralArguments):
        return LiteralRules(tagged, number, lambda text: _literal(text, specials), specials)
    return None if tagged is None else TaggedRules(tagged, number, lambda text: _literal(text, specials), specials)


def enforced_arguments(call_format: CallFormat, name: str, parameters: Mapping[str, Any] | None) -> Enforceable:
    """Return what the grammar enforces of a tool's arguments in a format; see `arguments_schema`."""
    found = arguments_schema(name, parameters)
    rules = _argument_rules(call_format, 0, {})
    return found if rules is None else unwritten_arguments(rules, found)


def arguments_schema(name: str, parameters: Mapping[str, Any] | None) -> Enforceable:
    """Return the enforceable part of a tool's schema: an object without undeclared entries.

    If llguidance refuses a schema altogether, any object is allowed: one odd tool must not break the others. Its
    arguments are checked afterwards.

    Raises:
        ConfigurationError: it is not a schema, is over a bound, or has a name that is not text.
    """
    schema: dict[str, Any] = {"type": "object", **(parameters or {})}
    if schema["type"] is None or isinstance(schema["type"], (list, tuple)) and "object" in schema["type"]:
        schema["type"] = "object"
    if schema["type"] != "object":
        raise ConfigurationError(
            f"the parameters of tool {name!r} have the type {schema['type']!r:.60}, and arguments are an object: give "
            'a schema with "type": "object", whose properties are the parameters'
        )
    try:
        closed = not any(key in schema for key in _SPREADING)
        found, error = enforceable_schema(schema, closed=closed, lenient=True)
    except ConfigurationError as refused:
        raise ConfigurationError(f"the parameters of tool {name!r} cannot be used: {refused}") from None
    if error or not isinstance(found.schema, dict):
        return Enforceable({"type": "object"}, (f"all of it: {error or 'it is not an object'}",))
    return found


def _dumped(schema: Enforceable) -> str:
    found = schema.schema if isinstance(schema.schema, dict) else {"anyOf": [schema.schema]}
    return with_options(found)


def _call_or_answer(
    call_format: CallFormat, parameters: Mapping[str, Enforceable], answer: Enforceable
) -> dict[str, Any]:
    """Return the schema of a call's object or an answer, if only its keys tell a call from other JSON.

    A separate rule that begins with the text of a call's opening would always win over the rule for JSON.
    """
    assert call_format.keys is not None, "a format without an object has a marker"
    name_key, arguments_key, id_key = call_format.keys
    definitions: dict[str, Any] = {}
    options = [_renamed(answer.schema, "answer", definitions)]
    for number, (name, schema) in enumerate(parameters.items()):
        arguments = _renamed(schema.schema, f"tool{number}", definitions)
        properties: dict[str, Any] = {name_key: {"const": name}, arguments_key: arguments}
        if id_key is not None:
            properties[id_key] = {"type": "string", "pattern": "^[a-zA-Z0-9]{9}$"}
        options.append(
            {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        )
    return {"anyOf": options, "$defs": definitions}


def _renamed(schema: Any, prefix: str, definitions: dict[str, Any]) -> Any:
    """Move a schema's definitions into `definitions`, with prefixed names, and return the schema."""
    if not isinstance(schema, dict):
        return schema

    def renamed(value: Any, key: str = "") -> Any:
        if key == "$ref" and isinstance(value, str) and value.startswith("#/$defs/"):
            return f"#/$defs/{prefix}_{value.removeprefix('#/$defs/')}"
        if key in ("const", "enum"):
            return value
        if isinstance(value, dict):
            inner = key in ("properties", "patternProperties")  # the keys of these are names
            return {name: renamed(each, "" if inner else name) for name, each in value.items() if name != "$defs"}
        return [renamed(each) for each in value] if isinstance(value, list) else value

    for name, each in schema.get("$defs", {}).items():
        definitions[f"{prefix}_{name}"] = renamed(each)
    return renamed(schema)


def _text(call_format: CallFormat, specials: Mapping[str, int], eos: Sequence[int]) -> tuple[list[str], int]:
    """Return the rules for text with calls at its end, and the part of the first call's opening that they consume."""
    opening = call_format.before + ("" if call_format.numbered else call_format.head)
    blank = len(opening) - len(opening.lstrip())
    # The first control token in a call's opening, mostly at its beginning. Every other token is text.
    places = [(at, -len(text), token) for text, token in specials.items() if (at := opening.find(text)) >= 0]
    if places:
        blank, _, leading = min(places)
        text = f"text: (<[^{leading}]>)*"
        if not call_format.openings_of_text:
            return ["start: text calls?", text], blank
        begun = "begun: " + " | ".join(_literal(each, specials) for each in call_format.openings_of_text)
        return ["start: text (begun text)* calls?", text, begun], blank
    control = sorted(set(specials.values()) - set(eos))
    special = ["special: <[" + ",".join(map(str, control)) + "]>"] if control else []
    if not call_format.marked:
        # Such an answer is a call from its first character on, or a text that does not begin like a call.
        other = rf"OTHER: /(.|\n)+/ & ~/{regex_of(opening)}(.|\n)*/"
        if not special:
            return ["start: (OTHER | calls)?", other], 0
        rest = ["start: special* (OTHER (special TEXT?)*)? | special* calls", *special, r"TEXT: /(.|\n)+/", other]
        return rest, 0
    trigger = opening if call_format.keys is None else call_format.before + call_format.marker
    trigger = trigger.rstrip()
    before = "(TEXT? special)* " if special else ""
    lazy = rf"opening[lazy]: /(.|\n)*{regex_of(trigger[blank:])}/"
    return [f"start: {before}(TEXT | opening calls)?", *special, r"TEXT: /(.|\n)+/", lazy], len(trigger)


def _literal(text: str, specials: Mapping[str, int]) -> str:
    """Return Lark for exactly this text: strings, and tokens that stand for a whole string."""
    if not specials:
        return json.dumps(text) if text else ""
    parts = re.split("(" + "|".join(re.escape(each) for each in sorted(specials, key=len, reverse=True)) + ")", text)
    return " ".join(f"<[{specials[part]}]>" if part in specials else json.dumps(part) for part in parts if part)
