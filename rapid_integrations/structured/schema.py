"""Turn a JSON schema as people write it into one that the grammar library enforces.

pydantic, OpenAPI (3.0's `nullable`, formats, discriminators) and MCP tools write keywords and formats that the library
refuses. By the standard an unknown one is an annotation. A rule that restricts values but cannot be enforced token by
token (`not`, `uniqueItems`, `if`) is left out. The grammar then allows more, so the rule is listed, and the answer is
checked afterwards (`rapid_integrations.structured.checking`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.structured.bounds import (
    MAX_DEFINITIONS,
    MAX_NAME,
    MAX_OPTIONS,
    MAX_PROPERTIES,
    check_schema,
    half_character,
    no_text,
    too_much,
)
from rapid_integrations.structured.drafts import draft_of, ref_stands_alone
from rapid_integrations.structured.finite import some_answer_ends
from rapid_integrations.structured.formats import FORMATS, INTEGER_RANGES, json_text
from rapid_integrations.structured.library import is_followed
from rapid_integrations.structured.numbers import (
    LARGE,
    LARGEST,
    MAX_REMAINDERS,
    finite_number,
    remainders,
    too_large,
    whole_number,
)
from rapid_integrations.structured.patterns import enforceable_patterns
from rapid_integrations.structured.references import References

Schema: TypeAlias = dict[str, Any] | bool

_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
# Common wrong names of types.
_OTHER_TYPES: dict[str, str | None] = {
    "str": "string", "text": "string", "file": "string", "int": "integer", "long": "integer", "float": "number",
    "double": "number", "bool": "boolean", "list": "array", "tuple": "array", "dict": "object", "none": "null",
    "nil": "null", "any": None,
}  # fmt: skip
MAX_CONSTANT = 20_000  # characters of a string that an answer must hold as it is
_EXACT_INTEGER = 2**53  # larger ones are compared as floats, which may be one off
ESCAPES = 'nrbtf\\"'
"""The letters of escapes in strings. There are no code points: see `needs_code_points`."""

_OPTIONS: dict[str, Any] = {"x-guidance": {"json_allowed_escapes": ESCAPES}}
_CODE_POINT = re.compile(r"\\u00(?:0[0-7be]|1[0-9a-f])|\x7f")
# These restrict values, and no grammar expresses them. Each has the values that restrict nothing.
_UNENFORCED: dict[str, Sequence[Any]] = {
    "not": (False,),
    "if": (),
    "uniqueItems": (False,),
    "contains": (),
    "minContains": (),
    "maxContains": (),
    "propertyNames": (True,),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "dependencies": ({},),
    "unevaluatedProperties": (True,),
    "unevaluatedItems": (True,),
}
_SAYS_NOTHING_OF_NAMES = ("title", "description", "examples", "default", "$comment", "$id", "$schema", "$anchor")
# They are given up in this order if the library refuses a schema with them.
GIVEN_UP = (
    "large bounds",
    "minProperties",
    "patternProperties",
    "multipleOf",
    "pattern",
    "$ref beside others",
    "allOf",
    "beside allOf",
    "beside anyOf",
)


@dataclass(frozen=True)
class Enforceable:
    """A schema for the grammar library.

    Attributes:
        schema: the schema.
        unenforced: rules that restrict values and were left out: "/properties/a: uniqueItems".
        places: where in the caller's schema each definition stands, by name.
    """

    schema: Schema
    unenforced: tuple[str, ...]
    places: Mapping[str, str] = field(default_factory=dict, compare=False)


def enforceable(
    schema: Any,
    *,
    closed: bool = False,
    lenient: bool = False,
    given_up: Sequence[str] = (),
    nothing: Collection[str] = (),
) -> Enforceable:
    """Return the part of `schema` that can be enforced. It recurses as deep as the schema: run it `on_a_deep_stack`.

    Args:
        schema: a JSON schema of any draft, or something similar.
        closed: allow only declared properties at the top level.
        lenient: let a `$ref` to a missing place allow anything.
        given_up: further rules to leave out, from `GIVEN_UP`.
        nothing: JSON pointers of definitions that nothing satisfies.

    Raises:
        ConfigurationError: it is not a schema, is over a bound, holds a name that is not text, or nothing satisfies it.
    """
    check_schema(schema)
    return _Conversion(schema, closed, lenient, given_up, nothing).result()


class _Conversion:
    def __init__(
        self, root: Any, closed: bool, lenient: bool, given_up: Sequence[str], nothing: Collection[str]
    ) -> None:
        self._root = root
        self._lenient = lenient
        self._closed = closed
        self._given_up = frozenset(given_up)
        self._nothing = frozenset(nothing)
        self._references = References(root)
        self._base = ""  # the URI to which references are relative
        self._ref_alone = ref_stands_alone(draft_of(root))
        self._unenforced: list[str] = []
        self._remainders = remainders(root)
        self._formats: dict[str, dict[str, Any]] = {}  # formats of strings, each compiled once

    def result(self) -> Enforceable:
        schema = self._schema(self._root, "")
        if self._closed and isinstance(schema, dict):
            _close(schema)
        definitions: dict[str, Schema] = {}
        places: dict[str, str] = {}
        while pending := self._references.pending():
            for name, where, target in pending:
                self._base, places[name] = self._references.base_at(where), where
                definitions[name] = self._schema(target, where)
                if len(definitions) > MAX_DEFINITIONS:
                    how = f"refers to more than {MAX_DEFINITIONS:,} schemas"
                    raise too_much("the JSON schema", how, "Use fewer")
        definitions |= self._formats
        if not some_answer_ends(schema, definitions):
            if some_answer_ends(schema, definitions, false_ends=True):
                raise ConfigurationError(
                    "nothing satisfies the JSON schema: what it requires is false. Allow something in its place"
                )
            raise ConfigurationError(
                "the JSON schema asks for an endless answer: what it requires refers back to itself. Make one of the "
                "properties on the way optional, or nullable"
            )
        if definitions and isinstance(schema, dict):
            schema["$defs"] = definitions
        if needs_code_points(schema):
            self._leave_out("", "names that are spelled with escapes")
        return Enforceable(schema, tuple(dict.fromkeys(self._unenforced)), places)

    def _leave_out(self, where: str, what: str) -> None:
        self._unenforced.append(f"{where or '/'}: {what}")

    # --- one schema -------------------------------------------------------------------------------------------------

    def _schema(self, given: Any, where: str) -> Schema:
        if isinstance(given, bool):
            return given
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"the JSON schema is not a schema at {where or '/'}: a schema is an object, true or false; given: "
                f"{given!r:.100}"
            )
        if self._ref_alone and isinstance(given.get("$ref"), str):
            given = {key: given[key] for key in ("$ref", "nullable") if key in given}
        outer, self._base = self._base, self._references.base_of(given, self._base)
        try:
            return self._converted(given, where)
        finally:
            self._base = outer

    def _converted(self, given: Mapping[str, Any], where: str) -> Schema:
        if given.get("not") is True or given.get("not") == {}:
            return False  # as drafts before 6 say it
        out: dict[str, Any] = {}
        types = self._types(given, where)
        if types is not None:
            out["type"] = types[0] if len(types) == 1 else types
        self._constants(given, out, where)
        self._numbers(given, out, where)
        extra = self._strings(given, out, where)
        self._array(given, out, where)
        self._object(given, out, where)
        extra += self._combined(given, out, where)
        for keyword, harmless in _UNENFORCED.items():
            if keyword in given and given[keyword] not in harmless and keyword not in out.get("~", ()):
                self._leave_out(where, keyword)
        out.pop("~", None)
        if "beside anyOf" in self._given_up and "anyOf" in out and (len(out) > 1 or extra):
            self._leave_out(where, "what stands beside anyOf or oneOf")
            out, extra = {"anyOf": out["anyOf"]}, []
        if False in extra:
            return False  # llguidance refuses a definition that is false, even of a property that may be left out
        if extra:
            out["allOf"] = [*out.get("allOf", []), *extra]
        if out.keys() == {"type", "pattern"} and out["type"] == "string" and out["pattern"].startswith("^(?:"):
            name = f"format{len(self._formats)}"
            known = next((known for known, each in self._formats.items() if each == out), name)
            self._formats[known] = out
            out = {"$ref": f"#/$defs/{known}"}
        if given.get("nullable") is True and types is None and out:
            return {"anyOf": [out, {"type": "null"}]}
        return out

    def _types(self, given: Mapping[str, Any], where: str) -> list[str] | None:
        written = given.get("type")
        if written is None:
            return None
        found: list[str] = []
        for each in written if isinstance(written, (list, tuple)) else [written]:
            name = "null" if each is None else each
            if isinstance(name, Mapping):  # a schema as a type, as drafts before 4 had it
                return None
            if not isinstance(name, str) or name not in _TYPES and name.lower() not in {*_TYPES, *_OTHER_TYPES}:
                raise ConfigurationError(
                    f"Invalid type: {str(each):.100} (in the JSON schema at {where or '/'}); there are "
                    f"{', '.join(_TYPES)}"
                )
            name = name if name in _TYPES else name.lower()
            meant = _OTHER_TYPES.get(name, name)
            if meant is None:
                return None
            found.append(meant)
        if given.get("nullable") is True:
            found.append("null")
        return list(dict.fromkeys(found)) or None

    def _constants(self, given: Mapping[str, Any], out: dict[str, Any], where: str) -> None:
        if "const" in given:
            if too_large(given["const"]):
                self._leave_out(where, f"const {str(given['const']):.40}")
                out.setdefault("type", "number")
            else:
                out["const"] = self._constant(given["const"], f"{where}/const")
        values = given.get("enum")
        if isinstance(values, (list, tuple)):
            fine = [each for each in values if not too_large(each)]
            if len(fine) < len(values):
                self._leave_out(where, "numbers of the enum that are too large")
                values = fine or None
        if isinstance(values, (list, tuple)):
            found = [self._constant(value, f"{where}/enum/{index}") for index, value in enumerate(values)]
            if given.get("nullable") is True and None not in found:
                found.append(None)
            out["enum"] = found

    def _constant(self, value: Any, where: str) -> Any:
        if isinstance(value, str):
            if (at := half_character(value)) is not None:
                raise no_text(f"the JSON schema at {where}", value, at)
            if len(value) > MAX_CONSTANT:
                how = f"has a string of {len(value):,} characters at {where}; {MAX_CONSTANT:,} are the most"
                raise too_much("the JSON schema", how, "Shorten it")
            return value
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)):
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigurationError(f"the JSON schema is not JSON at {where}: {value} is not a JSON number")
            if abs(value) > _EXACT_INTEGER:
                self._leave_out(where, f"{value!r:.40} exactly")
            return value
        if isinstance(value, (list, tuple)):
            return [self._constant(each, f"{where}/{index}") for index, each in enumerate(value)]
        if isinstance(value, Mapping):
            return {
                self._name(key, where): self._constant(each, f"{where}/{_escaped(key)}") for key, each in value.items()
            }
        raise ConfigurationError(
            f"the JSON schema is not JSON at {where}: {type(value).__name__} {value!r:.100} is not a JSON value"
        )

    def _numbers(self, given: Mapping[str, Any], out: dict[str, Any], where: str) -> None:
        for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            value, strict = finite_number(given.get(bound)), given.get(exclusive)
            edges = [each for each in (value, finite_number(strict)) if each is not None]
            most = LARGE if "large bounds" in self._given_up else LARGEST[out.get("type") == "integer"]
            if any(abs(each) > most for each in edges) or too_large(given.get(bound)) or too_large(strict):
                self._leave_out(where, f"{bound} {str(given.get(bound, strict)):.40}")
                continue
            if any(abs(each) > _EXACT_INTEGER for each in edges):
                self._leave_out(where, f"{bound} {str(edges[0]):.40} exactly")
            if strict is True and value is not None:  # draft 4
                out[exclusive] = value
                continue
            if value is not None:
                out[bound] = value
            if (beyond := finite_number(strict)) is not None:
                out[exclusive] = beyond
        multiple = finite_number(given.get("multipleOf"))
        if multiple is not None and multiple > 0:
            if "multipleOf" in self._given_up or self._remainders > MAX_REMAINDERS:
                self._leave_out(where, f"multipleOf {multiple}")
            else:
                out["multipleOf"] = multiple
        if isinstance(name := given.get("format"), str) and name in INTEGER_RANGES and out.get("type") == "integer":
            low, high = INTEGER_RANGES[name]
            out["minimum"] = max(out.get("minimum", low), low)
            out["maximum"] = min(out.get("maximum", high), high)

    def _strings(self, given: Mapping[str, Any], out: dict[str, Any], where: str) -> list[Schema]:
        for keyword in ("minLength", "maxLength"):
            if (length := whole_number(given.get(keyword))) is not None:
                out[keyword] = length
        patterns: list[str] = []
        if isinstance(written := given.get("pattern"), str):
            found = None if "pattern" in self._given_up else enforceable_patterns(written)
            if found is None:
                self._leave_out(where, f"pattern {written!r:.80}")
            patterns += found or ()
        name = given.get("format")
        form = FORMATS.get(name.lower()) if isinstance(name, str) else None
        if form is None and given.get("contentEncoding") in ("base64", "base64url"):
            form = FORMATS[given["contentEncoding"]]
        if form is None and given.get("contentMediaType") == "application/json" and not given.get("contentEncoding"):
            form = json_text(self._references.followed(given.get("contentSchema"), self._base))
        strings = out.get("type", "string") == "string" or "string" in out.get("type", ())
        if name == "regex" and strings:
            self._leave_out(where, "format 'regex'")
        if form is not None and strings:
            if "pattern" in self._given_up:
                self._leave_out(where, f"format {str(name or given.get('contentEncoding') or 'JSON')!r:.40}")
            else:
                patterns.append(f"^(?:{form})$")
        if patterns:
            out["pattern"] = patterns.pop(0)
            self._bounded(out, where)
        kind: dict[str, Any] = {"type": "string"} if out.get("type") == "string" else {}
        return [{**kind, "pattern": each} for each in patterns]

    def _bounded(self, out: dict[str, Any], where: str) -> None:
        """Leave the bounds of a string's length out if the library cannot follow them beside its pattern."""
        lengths: dict[str, Any] = {keyword: out[keyword] for keyword in ("minLength", "maxLength") if keyword in out}
        asked: dict[str, Any] = {**_OPTIONS, "type": "string", "pattern": out["pattern"], **lengths}
        if lengths and not is_followed(json.dumps(asked), b'"'):
            for keyword in lengths:
                del out[keyword]
                self._leave_out(where, f"{keyword} beside its pattern")

    def _array(self, given: Mapping[str, Any], out: dict[str, Any], where: str) -> None:
        for keyword in ("minItems", "maxItems"):
            if (count := whole_number(given.get(keyword))) is not None:
                out[keyword] = count
        items, first = given.get("items"), given.get("prefixItems")
        place = "items"
        if isinstance(items, (list, tuple)):  # drafts before 2020-12
            first, items, place = items, given.get("additionalItems"), "additionalItems"
            prefix = "items"
        else:
            prefix = "prefixItems"
        if isinstance(first, (list, tuple)) and first:
            _few("prefixItems", first, where)
            out["prefixItems"] = [self._schema(each, f"{where}/{prefix}/{n}") for n, each in enumerate(first)]
        if items is not None:
            out["items"] = self._schema(items, f"{where}/{place}")

    def _object(self, given: Mapping[str, Any], out: dict[str, Any], where: str) -> None:
        written = given.get("properties")
        if isinstance(written, Mapping):
            if len(written) > MAX_PROPERTIES:
                how = f"has {len(written):,} properties at {where or '/'}; {MAX_PROPERTIES:,} are the most"
                raise too_much("the JSON schema", how, "Split it")
            out["properties"] = {
                self._name(name, f"{where}/properties"): self._schema(each, f"{where}/properties/{_escaped(name)}")
                for name, each in written.items()
            }
        if isinstance(required := given.get("required"), (list, tuple)):
            if len(required) > MAX_PROPERTIES:
                how = f"requires {len(required):,} properties at {where or '/'}; {MAX_PROPERTIES:,} are the most"
                raise too_much("the JSON schema", how, "Split it")
            found = [self._name(name, f"{where}/required") for name in required]
            if found:
                out["required"] = list(dict.fromkeys(found))
        if (more := given.get("additionalProperties")) is not None:
            out["additionalProperties"] = self._schema(more, f"{where}/additionalProperties")
        patterned = given.get("patternProperties")
        if isinstance(patterned, Mapping) and patterned:
            self._patterned(patterned, out, where)
        names = given.get("propertyNames")
        if isinstance(names, Mapping) and names:
            self._named(self._references.followed(names, self._base), out, where)
        self._counted(given, out, where)

    def _patterned(self, patterned: Mapping[str, Any], out: dict[str, Any], where: str) -> None:
        found: dict[str, Schema] = {}
        loose: list[Schema] = []  # of names that cannot be told from the others
        told = {pattern: enforceable_patterns(pattern) if isinstance(pattern, str) else None for pattern in patterned}
        known = {parts[0]: True for parts in told.values() if parts is not None and len(parts) == 1}
        asked = {**_OPTIONS, "type": "object", "patternProperties": known}
        costly = known and not is_followed(json.dumps(asked), b'{"')
        for pattern, each in patterned.items():
            parts = told[pattern]
            if parts is None or len(parts) > 1 or costly or "patternProperties" in self._given_up:
                self._leave_out(where, f"patternProperties {pattern!r:.80}")
                loose.append(self._schema(each, f"{where}/patternProperties"))
            else:
                found[parts[0]] = self._schema(each, f"{where}/patternProperties/{_escaped(pattern)}")
        if found:
            out["patternProperties"] = found
        if loose and (others := out.get("additionalProperties", True)) is not True:
            loose = loose if others is False else [*loose, others]
            out["additionalProperties"] = loose[0] if len(loose) == 1 else {"anyOf": loose}

    def _named(self, names: Mapping[str, Any], out: dict[str, Any], where: str) -> None:
        """Express the allowed names of properties by other keywords, if possible, as for pydantic's dictionaries."""
        if out.get("properties") or out.get("patternProperties"):
            return
        values = out.get("additionalProperties", True)
        fixed = names.get("enum", [names["const"]] if "const" in names else None)
        pattern, form = names.get("pattern"), names.get("format")
        form = FORMATS.get(form.lower()) if isinstance(form, str) else None
        least, most = whole_number(names.get("minLength")), whole_number(names.get("maxLength"))
        if isinstance(fixed, (list, tuple)):
            said: tuple[str, ...] = ("enum",) if "enum" in names else ("const",)
            texts = [each for each in fixed if isinstance(each, str)]  # names are always text
            if len(texts) > MAX_PROPERTIES:
                return
            out["properties"] = {self._name(each, f"{where}/propertyNames"): values for each in texts}
        elif isinstance(pattern, str) and (parts := enforceable_patterns(pattern)) and len(parts) == 1:
            said = ("pattern",)
            out["patternProperties"] = {parts[0]: values}
        elif form is not None and pattern is None:
            said = ("format",)
            out["patternProperties"] = {f"^(?:{form})$": values}
        elif least or most:
            said = ("minLength", "maxLength")
            out["patternProperties"] = {rf"^(?s:.{{{least or 0},{'' if most is None else most}}})$": values}
        else:
            return
        out["additionalProperties"] = False
        if all(
            key in said or key in _SAYS_NOTHING_OF_NAMES or key == "type" and each == "string"
            for key, each in names.items()
        ):
            out["~"] = ("propertyNames",)

    def _counted(self, given: Mapping[str, Any], out: dict[str, Any], where: str) -> None:
        optional = set(out.get("properties", ())) - set(out.get("required", ()))
        for keyword in ("minProperties", "maxProperties"):
            count = whole_number(given.get(keyword))
            if count is None or keyword == "minProperties" and count <= len(out.get("required", ())):
                continue
            if "minProperties" in self._given_up or optional and count > 1:
                self._leave_out(where, keyword)
                continue
            out[keyword] = count
            if keyword == "minProperties" and count > len(out.get("required", ())) + 1:
                self._leave_out(where, "minProperties, of which a name that is repeated counts once")

    # --- schemas of schemas -----------------------------------------------------------------------------------------

    def _combined(self, given: Mapping[str, Any], out: dict[str, Any], where: str) -> list[Schema]:
        extra: list[Schema] = []
        for keyword in ("anyOf", "oneOf"):
            options = given.get(keyword)
            if not isinstance(options, (list, tuple)) or not options:
                continue
            _few(keyword, options, where)
            found = self._options(options, f"{where}/{keyword}")
            if (
                keyword == "oneOf"
                and "discriminator" not in given
                and not self._apart(options, _kinds(given) == {"object"})
            ):
                self._leave_out(where, "oneOf (anyOf is enforced)")
            if "anyOf" in out:
                extra.append({"anyOf": found})
            else:
                out["anyOf"] = found
        if isinstance(every := given.get("allOf"), (list, tuple)) and every:
            _few("allOf", every, where)
            parts = [self._schema(each, f"{where}/allOf/{number}") for number, each in enumerate(every)]
            if "allOf" in self._given_up and len(parts) > 1:
                self._leave_out(where, "allOf (its first schema is enforced)")
                parts = parts[:1]
            if "beside allOf" in self._given_up and (out or extra):
                self._leave_out(where, "what stands beside allOf")
                out.clear()
                extra.clear()
            extra += parts
        for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(reference := given.get(keyword), str):
                if self._references.depends_on_the_way(keyword, reference):
                    self._leave_out(where, f"{keyword} {reference!r:.80}, which has several targets")
                    continue
                target = self._references.name_of(reference, self._base)
                if target is None and reference.startswith("#") and not self._lenient:
                    raise ConfigurationError(
                        f"the JSON schema refers to {reference!r:.100} at {where or '/'}, which does not exist in it: "
                        "add that schema"
                    )
                if target is None:
                    self._leave_out(where, f"{keyword} {reference!r:.80}, which leads nowhere in the schema")
                elif (named := self._references.named(target))[0] in self._nothing or isinstance(named[1], bool):
                    extra += [] if named[1] is True else [False]
                elif not out and not extra:
                    out["$ref"] = f"#/$defs/{target}"
                elif "$ref beside others" in self._given_up:
                    self._leave_out(where, f"what stands beside {keyword}")
                    out.clear()
                    extra.clear()
                    out["$ref"] = f"#/$defs/{target}"
                else:
                    extra.append({"$ref": f"#/$defs/{target}"})
        return extra

    def _options(self, options: Sequence[Any], where: str) -> list[Schema]:
        found: list[Schema] = []
        loose: list[tuple[int, list[str]]] = []  # strings whose pattern is missing
        before = self._unenforced
        for number, option in enumerate(options):
            self._unenforced = []
            found.append(self._schema(option, f"{where}/{number}"))
            left_out = self._unenforced
            if (
                isinstance(option, Mapping)
                and option.get("type") == "string"
                and any(": pattern" in x for x in left_out)
            ):
                loose.append((number, left_out))
            else:
                before += left_out
        self._unenforced = before
        numbers = [each for each in found if isinstance(each, dict) and each.get("type") in ("number", "integer")]
        if loose and numbers:  # a decimal as a number or as text: as a number it is right without the pattern
            dropped = {number for number, _ in loose}
            return [each for number, each in enumerate(found) if number not in dropped]
        for _, left_out in loose:
            self._unenforced += left_out
        return found

    def _apart(self, options: Sequence[Any], objects: bool) -> bool:
        """Whether no value can satisfy two of the options, judged by types, constants or a constant property.

        Args:
            options: the schemas.
            objects: whether only objects are allowed at their place.
        """
        followed = [self._references.followed(option, self._base) for option in options]
        if len(followed) < 2:
            return True
        for tell in (_kinds, _constants_of):
            told = [tell(option) for option in followed]
            if all(each is not None for each in told):
                together = [value for each in told for value in each or ()]
                if len(together) == len(set(together)):
                    return True
        if not objects and any(_kinds(option) != {"object"} for option in followed):
            return False  # what is no object may satisfy several
        shared = [_tags(option) for option in followed]
        return any(
            all(key in each for each in shared) and len({each[key] for each in shared}) == len(shared)
            for key in shared[0]
        )

    def _name(self, name: Any, where: str) -> str:
        if not isinstance(name, str):
            raise ConfigurationError(f"the JSON schema is not JSON at {where}: the name {name!r:.100} is not a string")
        if (at := half_character(name)) is not None:
            raise no_text(f"a name in the JSON schema at {where}", name, at)
        if len(name) > MAX_NAME:
            how = f"has a name of {len(name):,} characters at {where}; {MAX_NAME:,} are the most"
            raise too_much("the JSON schema", how, "Shorten it")
        return name


def needs_code_points(schema: Schema) -> bool:
    r"""Whether a name or a constant holds a character that JSON writes as "\u0001" only.

    Where such escapes are allowed, a model may spell any name with them ("\u0061" for "a"), and the library takes that
    for another name, which may hold anything.
    """
    return _CODE_POINT.search(json.dumps(schema)) is not None


def _kinds(option: Mapping[str, Any]) -> set[str] | None:
    """Return the types of an option's values, with "number" for integers, or None if they may be any."""
    kind = option.get("type")
    kinds = {kind} if isinstance(kind, str) else set(kind) if isinstance(kind, (list, tuple)) else None
    if not kinds or not kinds.issubset(_TYPES):
        return None
    nullable = {"null"} if option.get("nullable") is True else set()
    return {"number" if each == "integer" else each for each in kinds} | nullable


def _constants_of(option: Mapping[str, Any]) -> set[str] | None:
    """Return the values of an option that allows only a few, as texts that are equal for equal values."""
    values = option.get("enum", [option["const"]] if "const" in option else None)
    if not isinstance(values, (list, tuple)) or option.get("nullable") is True:
        return None
    if not all(each is None or isinstance(each, (str, bool, int)) for each in values):
        return None  # 1.0 and 1 are equal, and so are objects in any order
    return {json.dumps(each) for each in values}


def _tags(option: Mapping[str, Any]) -> dict[str, str]:
    """Return the required properties of an object that are constant, by name."""
    properties, required = option.get("properties"), option.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, (list, tuple)):
        return {}
    constants = {
        name: each.get("const", each["enum"][0] if len(each.get("enum") or ()) == 1 else None)
        for name, each in properties.items()
        if name in required and isinstance(each, Mapping)
    }
    return {name: json.dumps(value) for name, value in constants.items() if isinstance(value, (str, bool, int))}


def _close(schema: dict[str, Any]) -> None:
    """Allow only declared properties. A required property that is not declared may hold anything."""
    properties = schema.setdefault("properties", {})
    for name in schema.get("required", ()):
        properties.setdefault(name, True)
    schema["additionalProperties"] = False


def _few(keyword: str, values: Sequence[Any], where: str) -> None:
    if len(values) > MAX_OPTIONS:
        how = f"has {len(values):,} entries at {where}/{keyword}; {MAX_OPTIONS:,} are the most"
        raise too_much("the JSON schema", how, "Use fewer, or enum for constants")


def _escaped(name: Any) -> str:
    return str(name)[:80].replace("~", "~0").replace("/", "~1")
