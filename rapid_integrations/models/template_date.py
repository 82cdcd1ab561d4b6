"""Pins the date in chat templates that write it. Otherwise the same question would give another prompt tomorrow."""

from __future__ import annotations

import json
import re
from datetime import datetime

# transformers passes only plain data to templates, not functions of ours. So the call itself is replaced by its result.
_CALL = re.compile(r"""strftime_now\(\s*(["'])((?:(?!\1)[^\\])*)\1\s*\)""")


def pin_date(chat_template: str, date: datetime) -> str:
    """Return `chat_template` with each call `strftime_now("%d %b %Y")` replaced by its result at `date`.

    A call whose format is not a literal is left unchanged, and follows the clock.
    """
    return _CALL.sub(lambda call: json.dumps(date.strftime(call[2])), chat_template)
