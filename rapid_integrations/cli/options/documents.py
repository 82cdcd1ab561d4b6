"""How files are read, and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from rapid_integrations.cli.console import say
from rapid_integrations.cli.options.panels import DOCUMENTS

if TYPE_CHECKING:
    from rapid_integrations.documents import Documents

DOCUMENTS_HELP = "PDF, DOCX, HTML, Markdown or text files, or folders of them."

_NAMED_SKIPPED = 10
_NAMED_SOURCES = 3  # files that one remark is about
_SHOWN_REMARKS = 30


@dataclass(frozen=True)
class DocumentOptions:
    """Select how files are read."""

    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable", help="Skip files that cannot be read and list them.", rich_help_panel=DOCUMENTS
        ),
    ] = False
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of text and HTML files. Detected per file by default.", rich_help_panel=DOCUMENTS),
    ] = None
    read_time_limit: Annotated[
        float, typer.Option(help="Maximum time for one file, in seconds.", rich_help_panel=DOCUMENTS)
    ] = 120.0

    def read(self, files: Sequence[str]) -> Documents:
        """Read the files and folders. Standard error says what was skipped or guessed."""
        from rapid_integrations.documents import read_documents

        documents = read_documents(
            files,
            skip_unreadable=self.skip_unreadable,
            encoding=self.encoding,
            time_limit_s=self.read_time_limit,
        )
        remarks = _remarks(documents)
        for remark in remarks[:_SHOWN_REMARKS]:
            say(remark)
        if (more := len(remarks) - _SHOWN_REMARKS) > 0:
            say(f"{more:,} more remarks: name fewer files to see them")
        for skipped in documents.skipped[:_NAMED_SKIPPED]:
            say(f"skipped: {skipped.source} {skipped.reason}")
        if (more := len(documents.skipped) - _NAMED_SKIPPED) > 0:
            say(f"skipped: {more:,} more")
        return documents


def _remarks(documents: Documents) -> list[str]:
    """Return a line for each remark, with the files that it is about."""
    about: dict[str, list[str]] = {}
    for document in documents:
        for remark in document.remarks:
            about.setdefault(remark, []).append(document.source)
    lines = []
    for remark, sources in sorted(about.items(), key=lambda each: -len(each[1])):
        more = len(sources) - _NAMED_SOURCES
        lines.append(f"{', '.join(sources[:_NAMED_SOURCES])}{f' and {more:,} more' if more > 0 else ''}: {remark}")
    return lines
