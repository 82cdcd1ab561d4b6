"""Which messages of a conversation are retrieved context, and which is the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rapid_integrations.errors import PromptError
from rapid_integrations.prompt.prompt import Message, Prompt
from rapid_integrations.segmentation import MAX_QUERY_CHARACTERS, MIN_CONTEXT_CHARACTERS, Segmentation, segment


def segment_content(content: str | Prompt) -> Segmentation:
    """Return the context spans and the question of one content: as given, else as found."""
    if isinstance(content, str):
        return segment(content)
    if content.context_spans:
        query = content.query if content.query is not None else _last_paragraph_outside(content)
        return Segmentation(content.segmentation, content.context_spans, query)
    if content.segmentation != "explicit":  # whoever knows the parts of this text knows that it holds no context
        return Segmentation("plain", (), content.query or content.text.strip()[-MAX_QUERY_CHARACTERS:])
    found = segment(content.text)
    return found if content.query is None else replace(found, query=content.query)


def _last_paragraph_outside(prompt: Prompt) -> str:
    start = prompt.context_spans[-1][1]
    outside = prompt.text[start:] if prompt.text[start:].strip() else prompt.text[: prompt.context_spans[0][0]]
    return outside.strip().rsplit("\n\n", 1)[-1].strip()


def require_query(query: str) -> None:
    """Raise `PromptError` where a prompt with context asks nothing."""
    if not query.strip():
        raise PromptError("the question is empty: the prompt is all context. Give Prompt(query=...)")


def tool_results(messages: Sequence[Message], texts: Sequence[str]) -> list[int]:
    """Return which messages are tools' results, where they are long enough together to be worth compressing.

    An agent's retrieval arrives in them; the last human turn is the question.
    """
    found = [i for i, message in enumerate(messages) if message["role"] == "tool" and _may_hold_context(message)]
    return found if sum(len(texts[i]) for i in found) >= MIN_CONTEXT_CHARACTERS else []


def _may_hold_context(message: Message) -> bool:
    content = message.get("content") or ""
    if isinstance(content, str):
        return bool(content.strip())
    return content.segmentation != "plain" and bool(content.text.strip())


def messages_with_context(
    contents: Sequence[str | Prompt], segmentations: Sequence[Segmentation], results: Sequence[int]
) -> list[int]:
    """Return which messages hold the context.

    All whose spans were given, else `results` (of tools), else the one message in which it was found best.
    """
    given = [i for i, content in enumerate(contents) if isinstance(content, Prompt) and content.context_spans]
    if given or results:
        return given or list(results)
    rank = {"delimiters": 0, "heuristic": 1, "plain": 2}
    lengths = [len(content if isinstance(content, str) else content.text) for content in contents]
    return [min(range(len(contents)), key=lambda i: (rank[segmentations[i].method], -lengths[i]))]


def query_of_messages(
    messages: Sequence[Message],
    contents: Sequence[str | Prompt],
    segmentations: Sequence[Segmentation],
    holders: Sequence[int],
) -> str:
    """Return the question: as given, else the last human turn, unless the context stands in that very message."""
    for content in reversed(contents):
        if isinstance(content, Prompt) and content.query is not None:
            return content.query
    texts = [content if isinstance(content, str) else content.text for content in contents]
    humans = [i for i, message in enumerate(messages) if message["role"] in ("user", "human") and texts[i].strip()]
    if humans and humans[-1] not in holders:
        return texts[humans[-1]]
    return segmentations[holders[-1]].query
