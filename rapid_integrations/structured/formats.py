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
_TIME = rf"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,6}})?{_ZONE}"
_NUMBER = r"(?:0|[1-9][0-9]{0,3})"
_CLOCK = rf"T(?:{_NUMBER}H(?:{_NUMBER}M)?(?:{_NUMBER}(?:\.[0-9]{{1,6}})?S)?|{_NUMBER}M(?:{_NUMBER}S)?|{_NUMBER}S)"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_H16 = r"[0-9a-fA-F]{1,4}"
_IPV6 = "(?:" + "|".join(
    [rf"(?:{_H16}:){{7}}{_H16}", r"::"]
    + [rf"(?:{_H16}:){{{left - 1}}}{_H16}::" for left in range(1, 8)]
    + [rf"::(?:{_H16}:){{0,6}}{_H16}"]
    + [rf"(?:{_H16}:){{{left - 1}}}{_H16}::(?:{_H16}:){{0,{6 - left}}}{_H16}" for left in range(1, 7)]
) + ")"  # fmt: skip
_LABEL = r"[a-zA-Z0-9]{1,20}(?:-[a-zA-Z0-9]{1,10}){0,2}"
_ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]"
_EMAIL = rf"{_ATOM}{{1,20}}(?:\.{_ATOM}{{1,10}}){{0,3}}@(?:{_LABEL}\.){{1,4}}[a-zA-Z]{{2,20}}"
_UNRESERVED = r"[a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2}"
_REST = rf"(?:/(?:{_UNRESERVED})*)*(?:\?(?:{_UNRESERVED}|[/?])*)?(?:#(?:{_UNRESERVED}|[/?])*)?"
_HOST = rf"(?:{_IPV4}|(?:{_LABEL}\.)*[a-zA-Z](?:[a-zA-Z0-9]{{0,20}}))"
_SCHEME_CHARACTER = r"[a-zA-Z0-9+.-]"
_URI = (
    rf"(?:[a-zA-Z]{_SCHEME_CHARACTER}{{1,15}}://{_HOST}(?::[1-9][0-9]{{0,3}})?{_REST}"
    rf"|file://{_REST}"
    rf"|(?:urn|mailto|tel|sms|geo|tag|doi|info|news|data|about|cid|mid):(?:{_UNRESERVED}|/)+(?:\?(?:{_UNRESERVED}|[/?])*)?)"
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
    "duration": rf"P(?:{_NUMBER}W|{_NUMBER}D(?:{_CLOCK})?|{_CLOCK})",
    "email": _EMAIL,
    "hostname": rf"(?:{_LABEL}\.)*{_LABEL}",
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "ipvanyaddress": rf"(?:{_IPV4}|{_IPV6})",
    "ipv4interface": rf"{_IPV4}/(?:[0-9]|[12][0-9]|3[0-2])",
    "ipv6interface": rf"{_IPV6}/(?:[0-9]|[1-9][0-9]|1[01][0-9]|12[0-8])",
    "ipv4network": rf"(?:{_IPV4}(?:/32)?|(?:{_OCTET}\.){{3}}0/24|(?:{_OCTET}\.){{2}}0\.0/16|{_OCTET}\.0\.0\.0/8"
    r"|0\.0\.0\.0/0)",
    "ipv6network": rf"(?:{_IPV6}(?:/128)?|(?:{_H16}:){{3}}{_H16}::/64|(?:{_H16}:){{2}}{_H16}::/48|{_H16}:{_H16}::/32"
    r"|::/0)",
    "uri": _URI,
    "url": _URI,
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
    "int64": (-(2**63), 2**63 - 1),
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
"""The integer formats of OpenAPI."""
