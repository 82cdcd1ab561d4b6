"""Read a JSON object from a user's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rapid_integrations.errors import ConfigurationError


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ConfigurationError: the file is missing, or holds other content.
    """
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}. Give a JSON file") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise ConfigurationError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} holds a JSON {type(found).__name__}, not an object: give {{...}}")
    return found
