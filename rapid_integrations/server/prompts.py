"""The engine's prompt for a request: its messages, with the documents in front of the first question."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rapid_integrations.adapters.verbatim import verbatim_spans
from rapid_integrations.documents import Document
from rapid_integrations.errors import PromptError
from rapid_integrations.outputs import RetrievedChunk, Source
from rapid_integrations.prompt import Prompt, PromptLike, join_parts
from rapid_integrations.server.failures import ApiError
from rapid_integrations.server.file_store import plain_name
from rapid_integrations.server.reading import BackgroundReading
from rapid_integrations.server.requests import ChatRequest, DocumentReference, RapidOptions
from rapid_integrations.server.requests import Message as GivenMessage

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,")
_BLANKS = re.compile(r"[ \t\r\n]+")
_THINKING = ("thinking", "reasoning")  # types of an answer's parts
_WHOLE_QUESTION = 2000  # characters; in a longer turn the question is looked for


@dataclass(frozen=True)
class GivenFile:
    """A file that is a part of a message."""

    name: str
    data: bytes


@dataclass(frozen=True)
class ServedDocument:
    """A document of a request. `file_id` is None for one that came with the request."""

    document: Document
    file_id: str | None = None
    named: bool = True


@dataclass(frozen=True)
class ServedPrompt:
    """A prompt for the engine, and the documents in the order of its context spans."""

    prompt: PromptLike
    documents: tuple[ServedDocument, ...] = ()

    def source(self, chunk: RetrievedChunk | Source) -> dict[str, Any]:
        """Return a passage as an answer names it: its document, page, place, text and score.

        One that a sentence of the answer rests on also has the sentence's place in the answer.
        """
        found: dict[str, Any] = {
            "index": chunk.context,
            "file_id": None,
            "document": None,
            "page": None,
            "start": chunk.start,
            "end": chunk.end,
            "text": chunk.text,
            "score": chunk.score,
        }
        if chunk.context < len(self.documents):
            served = self.documents[chunk.context]
            found["file_id"] = served.file_id
            found["document"] = served.document.source if served.named else None
            found["page"] = served.document.page_at(chunk.start)
        if isinstance(chunk, Source):
            found |= {"answer_start": chunk.answer_start, "answer_end": chunk.answer_end, "label": chunk.label}
        return found


async def chat_prompt(body: ChatRequest, reading: BackgroundReading) -> ServedPrompt:
    """Return the prompt of a conversation.

    Documents stand at the beginning of the first user message, so that every question about them shares a prefix. With
    neither documents nor a context, the engine looks for the context in the messages.

    Raises:
        ApiError: a document does not exist or has no text.
        PromptError: a document is empty, or no message asks anything.
    """
    references: list[DocumentReference | GivenFile] = []
    messages = [_engine_message(message, references) for message in body.messages]
    documents = [await _served(each, reading) for each in (*body.options.documents, *references)]
    options = body.options
    if options.context is not None and not _found_in_messages(messages, options):
        documents.append(ServedDocument(Document(options.context, "context"), named=False))
    if documents:
        _put_in_front(messages, documents, options.question)
    elif options.question is not None:
        _ask(messages, options.question)
    return ServedPrompt(messages, tuple(documents))


async def text_prompt(text: str, options: RapidOptions, reading: BackgroundReading) -> ServedPrompt:
    """Return the prompt of a completion: documents in front of the text, or a context that the text contains."""
    documents = [await _served(each, reading) for each in options.documents]
    if options.context is not None:
        spans = () if documents else verbatim_spans(text, [options.context])
        if spans:
            return ServedPrompt(
                Prompt.retrieved(text, spans, options.question), (_inline(options.context),) * len(spans)
            )
        documents.append(_inline(options.context))
    if documents:
        prompt = _joined(documents, text, options.question)
        return ServedPrompt(prompt, tuple(documents))
    return ServedPrompt(text if options.question is None else Prompt(text=text, query=options.question))


def _engine_message(given: GivenMessage, references: list[DocumentReference | GivenFile]) -> dict[str, Any]:
    """Return a message for the engine. Files among its parts are moved to `references`."""
    role = "system" if given.role == "developer" else given.role
    message: dict[str, Any] = {"role": role, "content": given.content}
    thoughts = [given.reasoning_content or given.reasoning or ""]
    if isinstance(given.content, list):
        parts: list[Any] = []
        for part in given.content:
            if part.get("type") == "file":
                references.append(_file_part(part))
            elif part.get("type") == "refusal" and isinstance(part.get("refusal"), str):
                parts.append(part["refusal"])
            elif part.get("type") in _THINKING and role == "assistant":
                thoughts.append(_thought_of(part))
            else:
                parts.append(part)
        message["content"] = _joined_parts(parts)
    elif given.content is None and not (given.role == "assistant" and given.tool_calls):
        message["content"] = ""
    if given.tool_calls:
        message["tool_calls"] = [call.model_dump() for call in given.tool_calls]
    if given.tool_call_id is not None:
        message["tool_call_id"] = given.tool_call_id
    if given.name is not None:
        message["name"] = given.name
    if role == "assistant" and (thought := "\n".join(filter(str.strip, thoughts))):
        message["reasoning_content"] = thought
    return message


def _thought_of(part: dict[str, Any]) -> str:
    """Return the text of a part that holds an earlier answer's thinking: a text, or parts of text (Mistral's API)."""
    said = next((part[key] for key in ("thinking", "reasoning", "text") if part.get(key)), "")
    inner = said if isinstance(said, list) else [said]
    texts = (each.get("text") if isinstance(each, dict) else each for each in inner)
    return "\n".join(text for text in texts if isinstance(text, str))


def _joined_parts(parts: Sequence[Any]) -> str:
    texts: list[str | Prompt] = []
    for part in parts:
        text = part if isinstance(part, str) else part.get("text") if part.get("type") == "text" else None
        if not isinstance(text, str):
            kind = str(part.get("type"))[:40]
            raise PromptError(
                f'a part of a message has the type {kind!r}, and the model reads text only: give {{"type": "text", '
                '"text": ...}, or a file by its id'
            )
        texts.append(text)
    joined = join_parts(texts)
    assert isinstance(joined, str), "only strings were joined"
    return joined


def _file_part(part: dict[str, Any]) -> DocumentReference | GivenFile:
    file = part.get("file")
    file = file if isinstance(file, dict) else {}
    if isinstance(file_id := file.get("file_id"), str):
        return DocumentReference(file_id=file_id[:64])
    data, name = file.get("file_data"), file.get("filename")
    if isinstance(data, str):
        begin = _DATA_URL.match(data)
        written = _BLANKS.sub("", data[begin.end() if begin else 0 :])  # many programs break its lines
        try:
            content = base64.b64decode(written, validate=True)
        except ValueError as error:  # binascii.Error is one, and so is a character that is not ASCII
            raise ApiError(
                400,
                f"file.file_data is no base64 ({error}): encode the file's bytes with the letters + and /, with or "
                'without "data:TYPE;base64," before them',
                "invalid_value",
                param="messages",
            ) from None
        return GivenFile(plain_name(name if isinstance(name, str) else ""), content)
    raise ApiError(
        400,
        'a part of type "file" needs file.file_id, the id of a file that was uploaded to /v1/files, or file.file_data, '
        "the file itself in base64",
        "invalid_value",
        param="messages",
    )


async def _served(reference: DocumentReference | GivenFile, reading: BackgroundReading) -> ServedDocument:
    if isinstance(reference, GivenFile):
        return ServedDocument(await reading.given(reference.name, reference.data))
    if (reference.file_id is None) == (reference.text is None):
        raise ApiError(400, "a document is given by either file_id or text", "invalid_value", param="rapid.documents")
    if reference.file_id is not None:
        return ServedDocument(await reading.text(reference.file_id), reference.file_id)
    assert reference.text is not None
    return ServedDocument(Document(reference.text, reference.name or "document"), named=reference.name is not None)


def _inline(text: str) -> ServedDocument:
    return ServedDocument(Document(text, "context"), named=False)


def _found_in_messages(messages: list[dict[str, Any]], options: RapidOptions) -> bool:
    """Mark the context in the last message that contains it. Return whether one does."""
    assert options.context is not None
    for message in reversed(messages):
        text = message["content"]
        if isinstance(text, str) and (spans := verbatim_spans(text, [options.context])):
            message["content"] = Prompt.retrieved(text, spans, options.question)
            return True
    return False


def _put_in_front(messages: list[dict[str, Any]], documents: Sequence[ServedDocument], question: str | None) -> None:
    """Put the documents in front of the first question of the conversation."""
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        raise PromptError("the documents need a question: add a message of the role user", code="empty_question")
    first = messages[users[0]]["content"]
    text = first.text if isinstance(first, Prompt) else first
    if question is None and len(users) == 1 and len(text) <= _WHOLE_QUESTION:
        question = text.strip() or None
    messages[users[0]]["content"] = _joined(documents, text, question)


def _joined(documents: Sequence[ServedDocument], text: str, question: str | None) -> Prompt:
    """Return the documents with the text behind them. In a conversation, a later turn may be the question."""
    named = all(each.named for each in documents)
    joined = Prompt.from_context(
        [each.document.text for each in documents],
        text,
        names=[each.document.source for each in documents] if named else None,
    )
    return Prompt(text=joined.text, context_spans=joined.context_spans, query=question)


def _ask(messages: list[dict[str, Any]], question: str) -> None:
    """Give the question to the last user message, whose context the engine finds."""
    last = next((message for message in reversed(messages) if message["role"] == "user"), None)
    if last is not None and isinstance(last["content"], str):
        last["content"] = Prompt(text=last["content"], query=question)
