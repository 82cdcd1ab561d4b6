"""Reading the files that a question is about."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rapid_integrations.errors import ConfigurationError, PromptError

STDIN = "-"


def read_document(path: str) -> str:
    """Return the text of a UTF-8 file, or of standard input for "-".

    Raises:
        PromptError: the file is missing, empty, a folder, or no UTF-8 text.
    """
    name = "standard input" if path == STDIN else path
    try:
        data = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    except OSError as error:
        raise PromptError(f"{name} cannot be read: {error.strerror or error}. Give a text or Markdown file") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{name} is no UTF-8 text (byte {error.start:,}): give a text or Markdown file, or convert it, "
            "for instance with iconv -f latin1 -t utf8"
        ) from error
    if not text.strip():
        raise PromptError(f"{name} is empty: there is nothing to answer from")
    return text


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ConfigurationError: the file is missing, or holds something else.
    """
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}. Give a JSON file") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise ConfigurationError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path} holds a JSON {type(found).__name__}, not an object: give {{...}}")
    return found
