"""Determines which messages of a conversation are retrieved context, and which is the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rapid_integrations.errors import PromptError
from rapid_integrations.prompt import segmentation
from rapid_integrations.prompt.prompt import Message, Prompt
from rapid_integrations.prompt.segmentation import MIN_CONTEXT_CHARACTERS, Segmentation

HUMAN = ("user", "human")
INSTRUCTING = ("system", "developer")


def segment_content(content: str | Prompt) -> Segmentation:
    """Return the context spans and the question of one content, as given or else as detected."""
    if isinstance(content, str):
        return segmentation.segment(content)
    if spans := content.filled_spans:
        query = content.query if content.query is not None else _last_paragraph_outside(content)
        return Segmentation(content.segmentation, spans, query)
    if content.context_spans or not content.has_context:  # nothing was retrieved, so nothing needs detection
        return Segmentation("plain", (), content.query or segmentation.question_of(content.text))
    found = segmentation.segment(content.text)
    return found if content.query is None else replace(found, query=content.query)


def segment_message(message: Message, content: str | Prompt, asked_elsewhere: bool) -> Segmentation:
    """Return the context spans and the question of a message.

    A system message holds instructions, and so do messages before the last human turn, unless a context is marked in
    them. The model's own messages are never context.

    Args:
        message: the message, for its role.
        content: the message's content.
        asked_elsewhere: whether another message is the last human turn.
    """
    if isinstance(content, Prompt) and (content.context_spans or not content.has_context):
        return segment_content(content)
    text = content if isinstance(content, str) else content.text
    role = message["role"]
    if role in INSTRUCTING and asked_elsewhere:
        found = segmentation.segment_context(text)
    elif role in HUMAN:
        found = segment_content(content)
        if not found.context_spans and asked_elsewhere:
            found = replace(segmentation.segment_context(text), query=found.query)
    elif role == "assistant":
        found = Segmentation("plain", (), "")
    else:
        found = segment_content(content)
    return found if isinstance(content, str) or content.query is None else replace(found, query=content.query)


def _last_paragraph_outside(prompt: Prompt) -> str:
    start = prompt.context_spans[-1][1]
    outside = prompt.text[start:] if prompt.text[start:].strip() else prompt.text[: prompt.context_spans[0][0]]
    return segmentation.question_of(outside)


def require_query(query: str) -> None:
    """Raise `PromptError` if a prompt with context has no question."""
    if not query.strip():
        raise PromptError(
            "the question is empty: the prompt is all context. Give Prompt(query=...)", code="empty_question"
        )


def tool_results(messages: Sequence[Message], texts: Sequence[str]) -> list[int]:
    """Return the indices of tool results, if together they are long enough to be worth compressing.

    An agent's retrieval arrives in tool results, and the last human turn is the question.
    """
    found = [i for i, message in enumerate(messages) if message["role"] == "tool" and _may_hold_context(message)]
    return found if sum(len(texts[i]) for i in found) >= MIN_CONTEXT_CHARACTERS else []


def _may_hold_context(message: Message) -> bool:
    content = message.get("content") or ""
    if isinstance(content, str):
        return bool(content.strip())
    return content.has_context and bool(content.text.strip())


def messages_with_context(
    contents: Sequence[str | Prompt], segmentations: Sequence[Segmentation], results: Sequence[int]
) -> list[int]:
    """Return the indices of the messages that hold the context.

    These are all messages whose spans were given. Without any, they are `results` (of tools), else all messages with a
    delimited context, else the one message in which detection worked best.
    """
    given = [i for i, content in enumerate(contents) if isinstance(content, Prompt) and content.filled_spans]
    if given or results:
        return given or list(results)
    if delimited := [i for i, found in enumerate(segmentations) if found.method == "delimiters"]:
        return delimited
    rank = {"heuristic": 1, "plain": 2}
    lengths = [len(content if isinstance(content, str) else content.text) for content in contents]
    return [min(range(len(contents)), key=lambda i: (rank.get(segmentations[i].method, 0), -lengths[i]))]


def query_of_messages(
    messages: Sequence[Message],
    contents: Sequence[str | Prompt],
    segmentations: Sequence[Segmentation],
    holders: Sequence[int],
) -> str:
    """Return the given question, or else the last human turn without any context in it."""
    for content in reversed(contents):
        if isinstance(content, Prompt) and content.query is not None:
            return content.query
    texts = [content if isinstance(content, str) else content.text for content in contents]
    humans = [i for i, message in enumerate(messages) if message["role"] in HUMAN and texts[i].strip()]
    if humans and humans[-1] not in holders:
        return segmentation.question_of(texts[humans[-1]])
    return segmentations[humans[-1] if humans else holders[-1]].query


def earlier_query_of_messages(
    messages: Sequence[Message],
    contents: Sequence[str | Prompt],
    segmentations: Sequence[Segmentation],
    holders: Sequence[int],
) -> str:
    """Return the question of the human turn before the last, or "" without one.

    A follow-up such as "And after him?" needs it to be understood. It is "" if the program gave the question.
    """
    if any(isinstance(content, Prompt) and content.query is not None for content in contents):
        return ""
    texts = [content if isinstance(content, str) else content.text for content in contents]
    humans = [i for i, message in enumerate(messages) if message["role"] in HUMAN and texts[i].strip()]
    if len(humans) < 2:
        return ""
    before = humans[-2]
    return segmentations[before].query if before in holders else segmentation.question_of(texts[before])
