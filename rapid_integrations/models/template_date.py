"""Chat templates that write the day: the day is pinned, or the same question tomorrow would be another prompt."""

from __future__ import annotations

import json
import re
from datetime import datetime

# transformers hands templates plain data only, no functions of ours; so the call itself is replaced by its result.
_CALL = re.compile(r"""strftime_now\(\s*(["'])((?:(?!\1)[^\\])*)\1\s*\)""")


def pin_date(chat_template: str, date: datetime) -> str:
    """Return `chat_template` with each call `strftime_now("%d %b %Y")` as the string that it gives at `date`.

    A call whose format is not written out in the template is left as it is, and follows the clock.
    """
    return _CALL.sub(lambda call: json.dumps(date.strftime(call[2])), chat_template)
