"""Turn the visible text of an HTML page into Markdown, without scripts and styles. Nothing is fetched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rapid_integrations.documents.declared_encoding import declared_in_html
from rapid_integrations.documents.document import Document
from rapid_integrations.documents.html_shown import show_values
from rapid_integrations.documents.html_tables import square_tables
from rapid_integrations.documents.text_file import decode
from rapid_integrations.errors import DocumentError, MissingExtraError

if TYPE_CHECKING:
    from bs4 import BeautifulSoup

_UNSHOWN = ("head", "script", "style", "noscript", "template", "iframe", "object", "canvas", "datalist")
_LEFT_OUT = (("iframe", "embedded page"), ("object", "embedded object"), ("video", "video"), ("audio", "recording"))


def read_html(data: bytes, source: str, encoding: str | None = None) -> Document:
    """Return the text of a page as Markdown with headings, lists and tables. Links become their words.

    Raises:
        DocumentError: the page shows no text, or cannot be parsed.
    """
    text, remarks = decode(data, source, declared_in_html(data), encoding)
    shown, left_out = html_to_markdown(text, source)
    return Document(shown, source, "html", (*remarks, *left_out))


def html_to_markdown(html: str, source: str) -> tuple[str, tuple[str, ...]]:
    """Return the words of `html` as Markdown, and remarks about omissions.

    Raises:
        DocumentError: the page cannot be parsed.
        MissingExtraError: the parser is not installed.
    """
    try:
        from bs4 import BeautifulSoup
        from markdownify import MarkdownConverter
    except ImportError:
        raise MissingExtraError(feature=f"Reading {source}", extra="documents") from None
    try:
        page = BeautifulSoup(html, "lxml")
        title = " ".join(page.title.get_text().split()) if page.title else ""
        remarks = _left_out(page)
        for element in page.find_all(_UNSHOWN):
            element.extract()
        show_values(page)
        square_tables(page)
        text: str = MarkdownConverter(
            strip=["a", "img"],
            heading_style="ATX",
            bullets="-",
            escape_asterisks=False,  # the text is for models and is not rendered again
            escape_underscores=False,
            escape_misc=False,
            table_infer_header=True,
        ).convert_soup(page)
    except RecursionError as error:
        raise DocumentError(source, "nests its elements too deeply to be read: save it as plain text") from error
    except Exception as error:  # parsers raise many types of errors for damaged pages
        raise DocumentError(source, f"cannot be parsed as HTML: {error}") from error
    text = text.replace("\u00a0", " ").replace("\u00ad", "")
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip()
    if text and title and title not in " ".join(text.split()):
        text = f"{title}\n\n{text}"
    return text, remarks


def _left_out(page: BeautifulSoup) -> tuple[str, ...]:
    remarks = []
    for name, word in _LEFT_OUT:
        if count := len(page.find_all(name)):
            remarks.append(f"{count:,} {word}{'s' * (count > 1)} left out")
    return tuple(remarks)
