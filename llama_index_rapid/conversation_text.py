"""A conversation as text, for models that read no messages and for users who print them themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llama_index.core.llms import ChatMessage

from llama_index_rapid.annotations import ANNOTATION, Parts, annotation_of, prompt_of
from llama_index_rapid.messages import with_text_only
from rapid_integrations.adapters.verbatim import verbatim_spans

if TYPE_CHECKING:
    from rapid_integrations.prompt import PromptLike


def conversation_text(write: Callable[[Sequence[ChatMessage]], str], messages: Sequence[ChatMessage]) -> PromptLike:
    """Return the conversation as `write` prints it, with the annotated context of its messages."""
    known = [annotation_of(message) for message in messages]
    shown = [
        message.model_copy(
            update={"additional_kwargs": {k: v for k, v in message.additional_kwargs.items() if k != ANNOTATION}}
        )
        for message in with_text_only(messages)
    ]
    text = str(write(shown))
    contexts = [
        (message.content or "")[start:end]
        for message, parts in zip(messages, known, strict=True)
        for start, end in parts.spans
    ]
    query = next((parts.query for parts in reversed(known) if parts.query is not None), None)
    spans = verbatim_spans(text, contexts)
    return prompt_of(text, Parts(spans, query, known=bool(spans)))
