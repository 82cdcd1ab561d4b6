"""The folder of this package's own files."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """Return the folder for downloads and compiled code: $RAPID_HOME, or the user's cache folder. It may not exist."""
    given = os.environ.get("RAPID_HOME")
    root = Path(given).expanduser() if given else platformdirs.user_cache_path("rapid-integrations")
    return root.absolute()
