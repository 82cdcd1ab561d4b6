"""Turn a file's bytes into a document: detect the format and call its reader, which is imported then."""

from __future__ import annotations

from rapid_integrations.documents.declared_encoding import declared_in_text
from rapid_integrations.documents.document import Document, ReadLimits
from rapid_integrations.documents.formats import format_of
from rapid_integrations.documents.json_escapes import is_escaped_json, unescaped
from rapid_integrations.documents.text_file import decode
from rapid_integrations.errors import DocumentError


def read_bytes(data: bytes, name: str, encoding: str | None, limits: ReadLimits) -> Document:
    """Return the text of a file.

    Args:
        data: the whole file, not blank.
        name: its name in errors. It also decides between kinds of text.
        encoding: encoding of text and HTML; None detects it.
        limits: limits of reading.

    Raises:
        DocumentError: the file cannot be read, or holds no text.
        MissingExtraError: the reader is not installed.
    """
    match format_of(data, name):
        case "pdf":
            from rapid_integrations.documents.pdf_file import read_pdf

            document = read_pdf(data, name, limits)
        case "docx":
            from rapid_integrations.documents.docx_file import read_docx

            document = read_docx(data, name, limits)
        case "pptx":
            from rapid_integrations.documents.pptx_file import read_pptx

            document = read_pptx(data, name, limits)
        case "xlsx":
            from rapid_integrations.documents.xlsx_file import read_xlsx

            document = read_xlsx(data, name, limits)
        case "odf":
            from rapid_integrations.documents.odf_file import read_odf

            document = read_odf(data, name, limits)
        case "epub":
            from rapid_integrations.documents.epub_file import read_epub

            document = read_epub(data, name, limits)
        case "rtf":
            from rapid_integrations.documents.rtf_file import read_rtf

            document = read_rtf(data, name)
        case "mail":
            from rapid_integrations.documents.mail_file import read_mail

            document = read_mail(data, name)
        case "html":
            from rapid_integrations.documents.html_file import read_html

            document = read_html(data, name, encoding)
        case "notebook":
            from rapid_integrations.documents.notebook_file import read_notebook

            document = read_notebook(decode(data, name, encoding=encoding)[0], name)
        case _:
            document = plain_text(data, name, encoding)
    if not document.text.strip():
        raise DocumentError(name, "holds no text: there is nothing to answer from")
    if len(document.text) > limits.characters:
        raise DocumentError(
            name,
            f"holds {len(document.text):,} characters, more than {limits.characters:,}: give the part you ask about",
        )
    return document


def plain_text(data: bytes, name: str, encoding: str | None = None) -> Document:
    """Return a text file (Markdown, CSV, XML, TeX, source code, logs) unchanged, and JSON without escapes."""
    text, remarks = decode(data, name, declared_in_text(data), encoding)
    if is_escaped_json(text, name):
        text = unescaped(text)
    return Document(text, name, "text", remarks)
