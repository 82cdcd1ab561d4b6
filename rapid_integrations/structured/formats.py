"""Regular expressions for the enforced formats of JSON schemas: those of the standard, of pydantic and of OpenAPI.

Each matches only what common classes parse (pydantic's, the standard library's): no 30th of February, no leap second,
no week dates. Any other format is an annotation, as the standard says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_YEAR = r"(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP = (
    r"(?:(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])"
    r"|(?:0[48]|[2468][048]|[13579][26])00))"  # years that have a 29th of February
)
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)"
)
_ZONE = r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_LOCAL_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_TIME = f"{_LOCAL_TIME}{_ZONE}"
_NUMBER = r"(?:0|[1-9][0-9]{0,3})"
_CLOCK = rf"T(?:{_NUMBER}H(?:{_NUMBER}M(?:{_NUMBER}S)?)?|{_NUMBER}M(?:{_NUMBER}S)?|{_NUMBER}S)"  # whole, and no gaps
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_H16 = r"[0-9a-fA-F]{1,4}"
_IPV6 = "(?:" + "|".join(
    [rf"(?:{_H16}:){{7}}{_H16}", r"::"]
    + [rf"(?:{_H16}:){{{left - 1}}}{_H16}::" for left in range(1, 8)]
    + [rf"::(?:{_H16}:){{0,6}}{_H16}"]
    + [rf"(?:{_H16}:){{{left - 1}}}{_H16}::(?:{_H16}:){{0,{6 - left}}}{_H16}" for left in range(1, 7)]
) + ")"  # fmt: skip
_BEYOND = r"\xa1-\ud7ff\uf900-\ufdcf\ufdf0-\uffef"  # what an IRI may hold besides ASCII
# Letters with which names of hosts are made in other scripts: no marks, joiners, digits or signs.
_LETTERS = (
    r"\xc0-\xd6\xd8-\xf6\xf8-\u02af\u0386\u0388-\u0481\u048a-\u0559\u0561-\u0587\u05d0-\u05ea\u0621-\u063a"
    r"\u0641-\u064a\u0905-\u0939\u0e01-\u0e30\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
)


def _label(more: str = "") -> str:
    """Return a part of a host's name, of at most 46 characters: five of them are within the 253 of a name."""
    one = rf"[a-zA-Z0-9{more}]"
    return rf"(?:{one}{{1,30}}(?:-{one}{{1,15}})?|{one}{{1,15}}(?:-{one}{{1,14}}){{2}})"


def _hostname(more: str = "") -> str:
    return rf"(?:{_label(more)}\.){{0,4}}{_label(more)}"


def _email(more: str = "") -> str:
    atom = rf"[a-zA-Z0-9!#$%&'*+/=?^_`{{|}}~{more}-]"
    return rf"{atom}{{1,30}}(?:\.{atom}{{1,15}}){{0,2}}@(?:{_label(more)}\.){{1,4}}[a-zA-Z{more}]{{2,20}}"


def _rest(more: str = "", first: str = "(?:/{0}*)*") -> str:
    """Return what follows the host of a URI: path, query and fragment."""
    character = rf"(?:[a-zA-Z0-9._~!$&'()*+,;=:@{more}-]|%[0-9a-fA-F]{{2}})"
    further = rf"(?:{character}|[/?])*"
    return rf"{first.format(character)}(?:\?{further})?(?:#{further})?"


def _authority(more: str = "") -> str:
    more = _LETTERS if more else ""
    return rf"(?:{_IPV4}|(?:{_label(more)}\.){{0,4}}[a-zA-Z{more}](?:[a-zA-Z0-9{more}]{{0,20}}))(?::[1-9][0-9]{{0,3}})?"


def _uri(more: str = "") -> str:
    opaque = "urn|did|mailto|tel|sms|geo|tag|doi|info|news|data|about|cid|mid"
    return (
        rf"(?:[a-zA-Z][a-zA-Z0-9+.-]{{1,15}}://{_authority(more)}{_rest(more)}|file://{_rest(more)}"
        rf"|(?:{opaque}):{_rest(more, '(?:{0}|/)+')})"
    )


def _reference(more: str = "") -> str:
    """Return a URI, or one that is relative: "//host/path", "/path", "path", "?query", "#fragment"."""
    segment = rf"(?:[a-zA-Z0-9._~!$&'()*+,;=@{more}-]|%[0-9a-fA-F]{{2}})+"  # a colon would end a scheme
    relative = rf"(?://{_authority(more)}{_rest(more)}|/{{0,1}}{segment}{_rest(more)}|/?{_rest(more, '')})"
    return rf"(?:{_uri(more)}|{relative})"


_POINTER = r"(?:/(?:[^~/]|~[01])*)*"
_VARIABLE = r"[a-zA-Z0-9_]{1,20}(?:\.[a-zA-Z0-9_]{1,20}){0,3}(?::[1-9][0-9]{0,3}|\*)?"
_TEMPLATE = (
    r"(?:[a-zA-Z0-9!#$&()*+,./:;=?@\[\]_~\xa1-\ud7ff-]|%[0-9a-fA-F]{2}"
    rf"|\{{[+#./;?&]?{_VARIABLE}(?:,{_VARIABLE}){{0,9}}\}})*"
)
_HEX4, _HEX12 = r"[0-9a-fA-F]{4}", r"[0-9a-fA-F]{12}"


def _uuid(version: str, variant: str) -> str:
    return rf"[0-9a-fA-F]{{8}}-{_HEX4}-{version}-{variant}-{_HEX12}"


_JSON_TEXT = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"'
_JSON_INTEGER = r"-?(?:0|[1-9][0-9]{0,14})"
_JSON_KINDS = {
    "null": "null",
    "boolean": "(?:true|false)",
    "integer": _JSON_INTEGER,
    "number": rf"{_JSON_INTEGER}(?:\.[0-9]{{1,9}})?",
    "string": _JSON_TEXT,
}
_JSON_SCALAR = "(?:" + "|".join(_JSON_KINDS.values()) + ")"


def _list_of(value: str) -> str:
    return rf"\[(?:{value}(?:, ?{value})*)?\]"


def _object_of(value: str) -> str:
    member = rf"{_JSON_TEXT}: ?{value}"
    return rf"\{{(?:{member}(?:, ?{member})*)?\}}"


_JSON_FLAT = rf"(?:{_JSON_SCALAR}|{_list_of(_JSON_SCALAR)}|{_object_of(_JSON_SCALAR)})"


def json_text(content: Mapping[str, Any] | None = None) -> str:
    """Return a regular expression for a string that holds JSON of the type of `content`, two levels deep.

    Args:
        content: the schema of the string's content. Only its type is enforced.
    """
    content = content or {}
    kind = content.get("type")
    if kind == "array":
        items = content.get("items")
        inner = items.get("type") if isinstance(items, Mapping) else None
        return _list_of(_JSON_KINDS.get(inner, _JSON_FLAT) if isinstance(inner, str) else _JSON_FLAT)
    if kind == "object":
        return _object_of(_JSON_FLAT)
    if isinstance(kind, str) and kind in _JSON_KINDS:
        return _JSON_KINDS[kind]
    return rf"(?:{_JSON_SCALAR}|{_list_of(_JSON_FLAT)}|{_object_of(_JSON_FLAT)})"


_BASE64 = r"(?:[A-Za-z0-9{0}]{{4}})*(?:[A-Za-z0-9{0}]{{2}}==|[A-Za-z0-9{0}]{{3}}=)?"

FORMATS: dict[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": rf"{_DATE}T{_TIME}",
    "time-local": _LOCAL_TIME,
    "date-time-local": rf"{_DATE}T{_LOCAL_TIME}",
    "duration": rf"P(?:{_NUMBER}W|{_NUMBER}D(?:{_CLOCK})?|{_CLOCK})",
    "email": _email(),
    "idn-email": _email(_LETTERS),
    "hostname": _hostname(),
    "idn-hostname": _hostname(_LETTERS),
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "ipvanyaddress": rf"(?:{_IPV4}|{_IPV6})",
    "ipv4interface": rf"{_IPV4}/(?:[0-9]|[12][0-9]|3[0-2])",
    "ipv6interface": rf"{_IPV6}/(?:[0-9]|[1-9][0-9]|1[01][0-9]|12[0-8])",
    "ipv4network": rf"(?:{_IPV4}(?:/32)?|(?:{_OCTET}\.){{3}}0/24|(?:{_OCTET}\.){{2}}0\.0/16|{_OCTET}\.0\.0\.0/8"
    r"|0\.0\.0\.0/0)",
    "ipv6network": rf"(?:{_IPV6}(?:/128)?|(?:{_H16}:){{3}}{_H16}::/64|(?:{_H16}:){{2}}{_H16}::/48|{_H16}:{_H16}::/32"
    r"|::/0)",
    "uri": _uri(),
    "url": _uri(),
    "uri-reference": _reference(),
    "iri": _uri(_BEYOND),
    "iri-reference": _reference(_BEYOND),
    "uri-template": _TEMPLATE,
    "json-pointer": _POINTER,
    "relative-json-pointer": rf"(?:0|[1-9][0-9]{{0,8}})(?:#|{_POINTER})",
    "uuid": _uuid(_HEX4, _HEX4),
    **{f"uuid{version}": _uuid(rf"{version}[0-9a-fA-F]{{3}}", r"[89abAB][0-9a-fA-F]{3}") for version in range(1, 9)},
    "byte": _BASE64.format("+/"),
    "base64": _BASE64.format("+/"),
    "base64url": _BASE64.format("_-"),
    "json-string": json_text(),
}
FORMATS["ipvanyinterface"] = f"(?:{FORMATS['ipv4interface']}|{FORMATS['ipv6interface']})"
FORMATS["ipvanynetwork"] = f"(?:{FORMATS['ipv4network']}|{FORMATS['ipv6network']})"

INTEGER_RANGES = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**62), 2**63 - 1),  # llguidance takes no lower bound near its own integers' end
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**63 - 1),  # beyond, it allows too little or too much
}
"""The integer formats of OpenAPI."""
