"""Renders a prompt to the text that the target reads, and locates the context and the question in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rapid_integrations.errors import PromptError
from rapid_integrations.prompt.chat_template import ChatTemplate, locate
from rapid_integrations.prompt.conversation import require_query, segment_content, segment_messages
from rapid_integrations.prompt.parts import content_of_message
from rapid_integrations.prompt.prompt import Message, Prompt, PromptLike
from rapid_integrations.prompt.rendered import RenderedPrompt
from rapid_integrations.prompt.segmentation import Span


def render(prompt: PromptLike, chat_template: ChatTemplate | None) -> RenderedPrompt:
    """Return the text that the target reads, with its context spans and query.

    Args:
        prompt: a string or `Prompt` (one user message if there is a template), or chat messages.
        chat_template: the model's template, or None to give a string to the model unchanged.

    Raises:
        PromptError: the prompt is empty, messages are malformed, or the model has no template to render messages.
    """
    if isinstance(prompt, (str, Prompt)):
        if not (prompt if isinstance(prompt, str) else prompt.text).strip():
            raise PromptError("the prompt is empty: give a text, chat messages or a Prompt", code="empty")
        if chat_template is None:
            return _render_raw(prompt)
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, Iterable) or isinstance(prompt, (Mapping, bytes)):
        raise PromptError(
            f"a prompt is a text, chat messages or a Prompt, not a {type(prompt).__name__}: give one of them"
        )
    if chat_template is None:
        raise PromptError(
            "this model has no chat template, so messages cannot be rendered: pass a string or a Prompt",
            code="no_chat_template",
        )
    return _render_messages(list(prompt), chat_template)


def _render_raw(prompt: str | Prompt) -> RenderedPrompt:
    parts = segment_content(prompt)
    if parts.context_spans:
        require_query(parts.query)
    text = prompt if isinstance(prompt, str) else prompt.text
    # The author of a raw prompt may have put control tokens into it, so only the retrieved text is data.
    return RenderedPrompt(text, parts.context_spans, parts.context_spans, parts.query, parts.method, templated=False)


def _render_messages(messages: list[Message], chat_template: ChatTemplate) -> RenderedPrompt:
    contents: list[str | Prompt] = []
    for message in messages:
        content = content_of_message(message) if isinstance(message, Mapping) and "role" in message else None
        if content is None or not isinstance(message["role"], str):
            raise PromptError(
                f"a chat message needs a 'role' and a 'content' that is a string, a Prompt or a list of "
                f"them; given: {message!r:.200}"
            )
        contents.append(content)
    texts = [content if isinstance(content, str) else content.text for content in contents]
    if not any(text.strip() for text in texts):
        raise PromptError("the prompt is empty: every message is blank", code="empty")
    plain = [
        dict(message) if message.get("content") is None else {**message, "content": text}
        for message, text in zip(messages, texts, strict=True)
    ]
    located = locate(plain, texts, chat_template)
    text, places = located.text, located.contents

    found = segment_messages(messages, contents)
    spans: list[Span] = []
    for place, of_message in zip(places, found.spans, strict=True):
        if place is not None and (offset := place.offset) is not None:
            moved = ((offset + start, offset + end) for start, end in of_message)
            clipped = ((max(start, place.data[0]), min(end, place.data[1])) for start, end in moved)
            spans += ((start, end) for start, end in clipped if start < end)
    method = found.method if spans else "plain"
    given = [*(place.data for place in places if place is not None), *located.reasoning]
    data = tuple(sorted(span for span in given if span[0] < span[1]))
    return RenderedPrompt(
        text, data, tuple(spans), found.query, method, templated=True, earlier_query=found.earlier_query
    )
