"""Determines which messages of a conversation are retrieved context, and which is the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rapid_integrations.errors import PromptError
from rapid_integrations.prompt import segmentation
from rapid_integrations.prompt.prompt import Message, Prompt
from rapid_integrations.prompt.segmentation import MIN_CONTEXT_CHARACTERS, Segmentation, Span
from rapid_integrations.prompt.tasks import question_in, says_nothing, wants_all_of_it

HUMAN = ("user", "human")
INSTRUCTING = ("system", "developer")


@dataclass(frozen=True)
class SegmentedMessages:
    """What the messages of a conversation are.

    Attributes:
        spans: of each message, the (start, end) character offsets of its context; empty in most.
        query: the question.
        method: how the spans were found; "plain" if there are none.
        earlier_query: the question of the human turn before the last, or "".
    """

    spans: tuple[tuple[Span, ...], ...]
    query: str
    method: str
    earlier_query: str


def segment_messages(messages: Sequence[Message], contents: Sequence[str | Prompt]) -> SegmentedMessages:
    """Return which parts of which messages are context, and what is asked.

    Args:
        messages: for their roles.
        contents: of each message, with what is known of it.

    Raises:
        PromptError: everything is context.
    """
    texts = [content if isinstance(content, str) else content.text for content in contents]
    humans = [i for i, message in enumerate(messages) if message["role"] in HUMAN and texts[i].strip()]
    last = humans[-1] if humans else len(messages) - 1
    segmentations = [
        segment_message(message, content, asked_elsewhere=index != last and bool(humans))
        for index, (message, content) in enumerate(zip(messages, contents, strict=True))
    ]
    results = tool_results(messages, texts)
    for index in results:
        segmentations[index] = Segmentation("tool messages", ((0, len(texts[index])),), "")
    holders = messages_with_context(contents, segmentations, results)
    spans = [found.context_spans if i in holders else () for i, found in enumerate(segmentations)]
    query = query_of_messages(messages, contents, segmentations, holders)
    if any(spans) and not query.strip():
        if not says_anything(contents):
            require_query(query)
        # What is to be done with the context needs all of it, or cannot be searched for.
        spans, query = [()] * len(spans), segmentation.question_of(texts[last])
    method = segmentations[holders[-1]].method if any(spans) else "plain"
    earlier = earlier_query_of_messages(messages, contents, segmentations, holders)
    return SegmentedMessages(tuple(spans), query, method, earlier)


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
    behind = prompt.text[prompt.context_spans[-1][1] :]
    before = prompt.text[: prompt.context_spans[0][0]]
    if not behind.strip() or (says_nothing(behind) and not says_nothing(before)):
        return segmentation.question_of(before)
    return segmentation.question_of(behind)


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
    """Return the given question, or else the last human turn without any context in it.

    If that turn is all context, or only names it, the question is what the messages before it ask. It is "" if they ask
    nothing that could be searched for.
    """
    for content in reversed(contents):
        if isinstance(content, Prompt) and content.query is not None:
            return content.query
    texts = [content if isinstance(content, str) else content.text for content in contents]
    humans = [i for i, message in enumerate(messages) if message["role"] in HUMAN and texts[i].strip()]
    if humans and humans[-1] not in holders:
        return segmentation.question_of(texts[humans[-1]])
    last = humans[-1] if humans else holders[-1]
    alone = not says_anything([*contents[:last], *contents[last + 1 :]])
    if not alone and _is_given(contents[last]) and all(says_nothing(part) for part in _outside(contents[last])):
        return _asked_beside(messages, contents, last)
    return segmentations[last].query


def _asked_beside(messages: Sequence[Message], contents: Sequence[str | Prompt], last: int) -> str:
    """Return what is asked about a message that is all context: by this turn before it, or by the instructions."""
    turn = next((i for i in range(last, 0, -1) if messages[i - 1]["role"] not in HUMAN), 0)
    for index in range(last - 1, turn - 1, -1):
        said = "\n".join(_outside(contents[index]))
        if not says_nothing(said):
            return "" if wants_all_of_it(said) else segmentation.question_of(said)
    told = (i for i, message in enumerate(messages) if i != last and message["role"] in INSTRUCTING)
    return next((asked for i in told if (asked := question_in("\n".join(_outside(contents[i]))))), "")


def _is_given(content: str | Prompt) -> bool:
    return isinstance(content, Prompt) and bool(content.filled_spans)


def _outside(content: str | Prompt) -> list[str]:
    """Return the pieces of a content around its given context."""
    if isinstance(content, str):
        return [content]
    edges = [0, *(edge for span in content.filled_spans for edge in span), len(content.text)]
    return [content.text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]


def says_anything(contents: Sequence[str | Prompt]) -> bool:
    """Whether there is any text besides the given contexts."""
    return any(part.strip() for content in contents for part in _outside(content))


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
