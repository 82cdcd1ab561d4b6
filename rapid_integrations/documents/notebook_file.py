"""Read Jupyter notebooks: the text and code of their cells, and their output."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rapid_integrations.documents.document import Document
from rapid_integrations.documents.html_file import html_to_markdown
from rapid_integrations.errors import DocumentError

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def read_notebook(text: str, source: str) -> Document:
    """Return a notebook (nbformat 3 or 4) as Markdown, without pictures.

    Raises:
        DocumentError: it is not valid JSON, or not a notebook.
    """
    try:
        notebook = json.loads(text)
        cells = notebook.get("cells")
        if cells is None:
            cells = [cell for sheet in notebook["worksheets"] for cell in sheet["cells"]]
        left_out = 0
        parts = []
        for cell in cells:
            words = _joined(cell.get("source", cell.get("input", "")))
            if cell["cell_type"] == "code":
                parts.append(f"```\n{words}\n```")
                for output in cell.get("outputs", []):
                    shown, pictures = _output(output)
                    left_out += pictures
                    if shown.strip():
                        parts.append(f"Output:\n{shown.rstrip()}")
            elif cell["cell_type"] == "heading":
                parts.append(f"{'#' * int(cell.get('level', 1))} {words}")
            elif words.strip():
                parts.append(words)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DocumentError(source, f"is a damaged notebook: {error!r}"[:300]) from error
    remarks = (f"{left_out:,} picture{'s' * (left_out > 1)} left out",) if left_out else ()
    return Document("\n\n".join(parts), source, "notebook", remarks)


def _output(output: Mapping[str, Any]) -> tuple[str, int]:
    """Return the text of an output, and its number of pictures."""
    if output.get("output_type") in ("error", "pyerr"):
        return f"{output.get('ename')}: {output.get('evalue')}", 0
    if "text" in output and "data" not in output:
        return _COLOUR.sub("", _joined(output["text"])), 0
    data = output.get("data", output)
    for kind in ("text/markdown", "text/latex", "text/plain", "text"):
        if kind in data:
            picture = any(each.startswith("image/") for each in data)
            return ("" if picture else _COLOUR.sub("", _joined(data[kind]))), int(picture)
    if "text/html" in data:
        return html_to_markdown(_joined(data["text/html"]), "an output")[0], 0
    return "", int(any(each.startswith("image/") or each in ("png", "jpeg", "svg") for each in data))


def _joined(text: Any) -> str:
    return "".join(text) if isinstance(text, list) else str(text)
