"""Read mails (.eml), web pages saved as one file (.mhtml) and mailboxes (.mbox)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage, Message
from email.parser import BytesParser

from rapid_integrations.documents.document import Document
from rapid_integrations.documents.html_file import html_to_markdown
from rapid_integrations.documents.text_file import decode
from rapid_integrations.errors import DocumentError

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_BEGINNING = re.compile(rb"^From [^\n]*\d{4}[^\n]*\r?\n(?=[!-9;-~]+:)", re.MULTILINE)  # of a mail in a mailbox
_MAILS = 10_000
_DEEPEST = 20  # maximum nesting of mails within mails


def read_mail(data: bytes, source: str) -> Document:
    """Return a mail's headers and text, the page of an MHTML file, or all mails of a mailbox.

    Attachments are named in a remark, and not read.

    Raises:
        DocumentError: the file holds no text.
    """
    remarks: list[str] = []
    texts = [text for each in _mails(data, source) if (text := _mail(each, source, remarks, 0))]
    return Document("\n\n---\n\n".join(texts), source, "mail", tuple(dict.fromkeys(remarks)))


def _mails(data: bytes, source: str) -> Iterator[bytes]:
    starts = [found.start() for found in _BEGINNING.finditer(data)]
    if not starts or data[: starts[0]].strip():
        yield data
        return
    if len(starts) > _MAILS:
        raise DocumentError(source, f"holds {len(starts):,} mails, more than {_MAILS:,}: split it")
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        _, _, mail = data[start:end].partition(b"\n")
        yield re.sub(rb"^>(>*From )", rb"\1", mail, flags=re.MULTILINE)


def _mail(data: bytes, source: str, remarks: list[str], depth: int) -> str:
    try:
        message = BytesParser(policy=policy.default).parsebytes(data)
        return _message(message, source, remarks, depth)
    except DocumentError:
        raise
    except Exception as error:  # the parser raises many types of errors for malformed headers
        raise DocumentError(source, f"is a damaged mail: {error or type(error).__name__}") from error


def _message(message: EmailMessage, source: str, remarks: list[str], depth: int) -> str:
    lines = [f"{name}: {_header(message, name)}" for name in _HEADERS if _header(message, name)]
    parts = []
    for part in _shown(message):
        kind = part.get_content_type()
        name = part.get_filename()
        if kind == "message/rfc822" and depth < _DEEPEST:
            inner = part.get_payload()
            for each in inner if isinstance(inner, list) else ():
                if isinstance(each, EmailMessage):
                    parts.append(
                        "\n".join(f"> {line}" for line in _message(each, source, remarks, depth + 1).split("\n"))
                    )
        elif part.get_content_disposition() == "attachment" or (name and not kind.startswith("text/")):
            remarks.append(f"attachment {name or kind} left out: save it and name it")
        elif kind in ("text/plain", "text/html", "text/markdown", "text/calendar", "application/xhtml+xml"):
            parts.append(_text(part, source, remarks))
        elif not kind.startswith(
            ("image/", "multipart/", "text/css", "font/", "application/javascript", "text/javascript")
        ):
            remarks.append(f"a part of type {kind} left out")
    return "\n\n".join(each for each in ("\n".join(lines), *parts) if each.strip())


def _shown(message: Message) -> Iterator[Message]:
    """Yield the visible parts. Of alternatives, this is the plain text, unless only the HTML has more than a line."""
    if not message.is_multipart() or message.get_content_type() == "message/rfc822":
        yield message
        return
    parts = [each for each in message.get_payload() if isinstance(each, Message)]
    kind = message.get_content_type()
    if kind == "multipart/alternative":
        plain = [each for each in parts if each.get_content_type() == "text/plain" and _payload(each).strip()]
        richer = [each for each in parts if each.get_content_type() != "text/plain"]
        parts = plain[:1] or richer[-1:]
    elif kind == "multipart/related":  # the first is the page, the others are its pictures and styles
        start = message.get_param("start")
        parts = [each for each in parts if start and each.get("Content-ID") == start][:1] or parts[:1]
    for each in parts:
        yield from _shown(each)


def _text(part: Message, source: str, remarks: list[str]) -> str:
    data = _payload(part)
    if not data.strip():
        return ""
    charset = part.get_content_charset()
    text, guessed = decode(data, source, charset)
    remarks.extend(guessed)
    if part.get_content_type() in ("text/html", "application/xhtml+xml"):
        text, left_out = html_to_markdown(text, source)
        remarks.extend(left_out)
    return text.strip()


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name) or "").split())
    except Exception:  # malformed dates and addresses
        return ""
