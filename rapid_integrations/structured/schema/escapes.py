r"""How an answer may spell its strings: with which escapes.

A model may spell any name with "\u0061" for "a" where such escapes are allowed. The library takes that for another
name, which may hold anything. So they are allowed only where a constant or a name cannot be written without.
"""

from __future__ import annotations

import json
import re
from typing import Any

from rapid_integrations.structured.schema.result import Schema

ESCAPES = 'nrbtf\\"'
"""The letters of escapes in strings. There are no code points: see `needs_code_points`."""

WITH_ESCAPES: dict[str, Any] = {"x-guidance": {"json_allowed_escapes": ESCAPES}}
"""What says so to the library, in a schema."""

_CODE_POINT = re.compile(r"\\u00(?:0[0-7be]|1[0-9a-f])|\x7f")


def needs_code_points(schema: Schema) -> bool:
    r"""Whether a name or a constant holds a character that JSON writes as "\u0001" only."""
    return _CODE_POINT.search(json.dumps(schema)) is not None
