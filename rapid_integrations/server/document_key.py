"""The key of the document that a request is about, by which replicas share the documents. Imports no torch.

Questions with one key meet the replica that has read the document. A key that is wrong costs a second reading and
changes no answer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from rapid_integrations.prompt.segmentation import segment, segment_context

SESSION_HEADER = "x-session-id"
"""The header by which a client says which requests belong together; Ray Serve and vllm-router know it by this name."""

_FILE_PATH = re.compile(r"/v1/files/([^/]+)")
_PROMPT = "rapid_prompt"  # as the remote engine sends a prompt (`remote.requests_sent`)


def document_key(path: str, session: str | None, body: bytes) -> str | None:
    """Return the key of a request, None if any replica may answer it.

    It is, in this order: the file of the path, the first document or the context that the request names, the session
    that the client names, the context that is found in the messages, and what the conversation begins with.

    Args:
        path: of the URL.
        session: the value of `SESSION_HEADER`.
        body: of the request.
    """
    if (found := _FILE_PATH.match(path)) is not None:
        return found[1][:64]
    given = _object(body)
    return _named(given) or (session or None) and f"session {session}" or _found(given)


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body) if body.lstrip(b" \t\r\n")[:1] == b"{" else None
    except (ValueError, RecursionError):  # the replica says what is wrong with it
        return {}
    return given if isinstance(given, dict) else {}


def _named(given: dict[str, Any]) -> str | None:
    """Return the key of the first document that the request names."""
    options = given.get("rapid")
    options = options if isinstance(options, dict) else {}
    documents = options.get("documents")
    for document in [*(documents if isinstance(documents, list) else ()), *_file_parts(given.get("messages"))]:
        if isinstance(document, dict):
            if isinstance(file_id := document.get("file_id"), str):
                return file_id[:64]
            if isinstance(data := document.get("file_data"), str):
                return _digest(data)
            if isinstance(text := document.get("text"), str):
                return _digest(text)
    context = options.get("context")
    return _digest(context) if isinstance(context, str) else None


def _file_parts(messages: Any) -> Iterator[Any]:
    for message in _messages(messages):
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "file":
                yield part.get("file")


def _found(given: dict[str, Any]) -> str | None:
    """Return the key of the context that the texts contain, or of the texts up to the first question."""
    texts = list(_texts(given))
    for role, text, spans in texts:
        if spans or (spans := (segment_context if role == "system" else segment)(text).context_spans):
            start, end = spans[0]
            return _digest(text[start:end])
    return _digest("\n".join(text for _, text, _ in texts)) if texts else None


def _texts(given: dict[str, Any]) -> Iterator[tuple[str, str, tuple[tuple[int, int], ...]]]:
    """Yield role, text and known spans of what a request says, from its beginning to its first question."""
    said = given.get("messages", given.get("prompt"))
    if not isinstance(said, list):
        said = [{"role": "user", "content": said}]
    elif said and isinstance(said[0], str):
        said = [{"role": "user", "content": said[0]}]
    for message in _messages(said):
        content = message.get("content")
        for part in content if isinstance(content, list) else [content]:
            found = _text(part)
            if found is not None:
                yield "system" if message.get("role") in ("system", "developer") else "user", *found
        if message.get("role") == "user":
            return


def _text(part: Any) -> tuple[str, tuple[tuple[int, int], ...]] | None:
    """Return the text of a content and the spans that it says are context, None if it has no text."""
    if isinstance(part, str):
        return part, ()
    if not isinstance(part, dict):
        return None
    prompt = part.get(_PROMPT, part)
    text, spans = (prompt.get("text"), prompt.get("context_spans")) if isinstance(prompt, dict) else (None, None)
    if not isinstance(text, str):
        return None
    try:
        return text, tuple((int(start), int(end)) for start, end in spans or ())
    except (TypeError, ValueError):
        return text, ()


def _messages(given: Any) -> list[dict[str, Any]]:
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
