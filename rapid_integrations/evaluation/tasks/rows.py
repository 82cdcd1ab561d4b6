"""Read the rows of a published data set from a local folder or file, or from the Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rapid_integrations.documents import read_utf8
from rapid_integrations.errors import PromptError

Row = dict[str, Any]
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def find_rows(data: Path | None, filename: str, *, hub: str, hub_path: str = "") -> list[Row]:
    """Return the rows of a published file.

    Args:
        data: a folder that holds `filename` (also in subfolders), or the file itself; None fetches it from the hub.
        filename: the published name.
        hub: the data set's name on the hub, or "" if it is not there.
        hub_path: the file's path in the data set; "" means `filename`.

    Raises:
        PromptError: the file is missing, malformed, or could not be fetched.
    """
    if data is None:
        if not hub:
            raise PromptError(f"{filename} is not on the hub: give --data, the folder or the file that holds it")
        return read_rows(_fetch(hub, hub_path or filename))
    if data.is_file():
        return read_rows(data)
    found = sorted(data.rglob(filename)) if data.is_dir() else []
    if not found:
        what = "holds no" if data.is_dir() else "does not exist, so there is no"
        raise PromptError(f"{data} {what} {filename}: give --data, the folder or the file with the published data")
    return read_rows(found[0])


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a JSON-lines file or of a JSON list of objects.

    Raises:
        PromptError: the file is missing, malformed or without a row. The message names the line.
    """
    text = read_utf8(path)
    if text.lstrip().startswith("["):
        numbered = list(enumerate(parsed(text, f"{path}"), 1))
    else:
        # Not splitlines, because JSON strings may hold U+2028 and the like.
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        numbered = [(number, parsed(line, f"{path}, line {number},")) for number, line in lines]
    if not numbered:
        raise PromptError(f"{path} holds no row: give JSON objects, one a line or in a list")
    for number, row in numbered:
        if not isinstance(row, dict):
            raise PromptError(f"{path}, row {number}: expected a JSON object, found {type(row).__name__}")
    return [row for _, row in numbered]


def require(row: Row, keys: Iterable[str], what: str) -> None:
    """Raise `PromptError` if a row lacks one of `keys`. `what` names the data set."""
    if missing := [key for key in keys if key not in row]:
        raise PromptError(f"a row of {what} lacks {', '.join(missing)}; it has {', '.join(row)}")


def parsed(text: str, where: str) -> Any:
    """Return the value that a JSON text holds. `where` names it in errors.

    Raises:
        PromptError: it is not JSON, or has half of a surrogate pair, which is no character.
    """
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):x}"
        raise PromptError(
            f"{where} holds half of a surrogate pair ({half}): write it anew from a text that is whole"
        ) from error
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise PromptError(f"{where} is not JSON: {error}") from error
    return value


def _fetch(hub: str, path: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub, path, repo_type="dataset"))
    except Exception as error:  # the client raises errors of many types if there is no connection
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise PromptError(
            f"{path} of the data set {hub} could not be fetched: {reason}. Give --data, a folder that holds it"
        ) from error
