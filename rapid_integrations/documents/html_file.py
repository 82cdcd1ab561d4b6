"""HTML to Markdown: what a page shows, without its scripts and styles. Nothing is fetched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rapid_integrations.documents.document import Document
from rapid_integrations.documents.text_file import decode
from rapid_integrations.errors import DocumentError, MissingExtraError

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

_UNSHOWN = ("head", "script", "style", "noscript", "template", "svg", "iframe", "object")
_DECLARED = re.compile(rb"""<(?:meta\b[^>]*?charset|\?xml\b[^>]*?encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_DECLARED_WITHIN = 4096  # bytes


def read_html(data: bytes, source: str, encoding: str | None = None) -> Document:
    """Return the text of a page as Markdown: headings, lists and tables as such, links as their words.

    Raises:
        DocumentError: the page shows no text, or cannot be parsed.
    """
    found = _DECLARED.search(data[:_DECLARED_WITHIN])
    text, remarks = decode(data, source, found[1].decode("ascii", "replace") if found else None, encoding)
    return Document(html_to_markdown(text, source), source, "html", remarks)


def html_to_markdown(html: str, source: str) -> str:
    """Return the words of `html`, laid out as Markdown.

    Raises:
        DocumentError: they cannot be found.
        MissingExtraError: the parser is not installed.
    """
    try:
        from bs4 import BeautifulSoup
        from markdownify import MarkdownConverter
    except ImportError:
        raise MissingExtraError(feature=f"Reading {source}", extra="documents") from None
    try:
        page = BeautifulSoup(html, "lxml")
        _remove_unshown(page)
        text: str = MarkdownConverter(
            strip=["a", "img"],
            heading_style="ATX",
            bullets="-",
            escape_asterisks=False,  # read by models, not rendered again
            escape_underscores=False,
            escape_misc=False,
        ).convert_soup(page)
    except RecursionError as error:
        raise DocumentError(source, "nests its elements too deeply to be read: save it as plain text") from error
    except Exception as error:  # whatever a parser raises for a damaged page
        raise DocumentError(source, f"cannot be parsed as HTML: {error}") from error
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip()


def _remove_unshown(page: BeautifulSoup) -> None:
    for element in page.find_all(_UNSHOWN):
        element.extract()
