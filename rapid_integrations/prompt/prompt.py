"""`Prompt`, the text, context and question of a request, as a user builds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import field_validator, model_validator

from rapid_integrations.config import Settings
from rapid_integrations.errors import PromptError
from rapid_integrations.prompt.segmentation import Span

Message: TypeAlias = Mapping[str, Any]
"""A chat message with "role" and "content" (a string or a `Prompt`). Further keys are passed to the template."""

PromptLike: TypeAlias = "str | Prompt | Sequence[Message]"

DEFAULT_TEMPLATE = (
    "Use the following document to answer the question at the end.\n\n{context}\n\nQuestion: {query}\nAnswer:"
)


NAME_LINE = "Document: {name}\n\n"


class Prompt(Settings):
    """A text, its character spans that are retrieved context, and the question.

    Args:
        text: the text that the target reads (before the chat template).
        context_spans: (start, end) character offsets into `text`, in order, without overlap. If empty, the context is
            detected (`rapid_integrations.prompt.segmentation`), unless `has_context` is False.
        has_context: False says that the text holds no context (retrieval found nothing). Both models then read the
            text unchanged, and nothing is detected.
        query: the question for retrieval. If None, it is detected in the text outside of the spans.
        segmentation: how the spans were determined; reported in the statistics.
    """

    text: str
    context_spans: tuple[Span, ...] = ()
    query: str | None = None
    has_context: bool = True
    segmentation: str = "explicit"

    @field_validator("query")
    @classmethod
    def _query_is_not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("the question is empty; give one, or leave query=None to take it from the text")
        return value

    @model_validator(mode="after")
    def _spans_lie_in_the_text(self) -> Prompt:
        end_before = 0
        for start, end in self.context_spans:
            if not end_before <= start < end <= len(self.text):
                raise ValueError(
                    f"context span ({start}, {end}) must lie in the text (0 to {len(self.text)}), be in order, hold "
                    "at least one character and not overlap the span before it"
                )
            end_before = end
        if self.context_spans and not self.has_context:
            raise ValueError("has_context=False with context spans: leave out one of them")
        return self

    @property
    def filled_spans(self) -> tuple[Span, ...]:
        """The context spans that hold more than white space."""
        return tuple(span for span in self.context_spans if self.text[span[0] : span[1]].strip())

    @classmethod
    def without_context(cls, text: str, query: str | None = None) -> Prompt:
        """Return a prompt for which nothing was retrieved. Both models read `text`, and no context is detected."""
        return cls(text=text, query=query or None, has_context=False, segmentation="plain")

    @classmethod
    def retrieved(
        cls, text: str, context_spans: Iterable[Span], query: str | None = None, segmentation: str = "explicit"
    ) -> Prompt:
        """Return a prompt with the spans of a host framework. Empty spans are dropped.

        Without any span left, retrieval found nothing (see `without_context`). A blank question counts as None.

        Raises:
            ConfigurationError: spans overlap, are out of order, or lie outside of the text.
        """
        spans = tuple((start, end) for start, end in context_spans if start != end and text[start:end].strip())
        asked = query if query is not None and query.strip() else None
        if not spans:
            return cls.without_context(text, asked)
        return cls(text=text, context_spans=spans, query=asked, segmentation=segmentation)

    @classmethod
    def from_context(
        cls,
        context: str | Sequence[str],
        query: str,
        template: str = DEFAULT_TEMPLATE,
        *,
        names: Sequence[str] | None = None,
    ) -> Prompt:
        """Put one or more documents and a question into `template`, the documents first.

        Documents come before the question, so a second question shares their prefix. Several documents are separated by
        blank lines, and each is its own context span. With `names`, one per document, a line above each document names
        it. Both models read that line, whatever is retrieved.

        Raises:
            PromptError: there is no document, an empty one, an empty question or a different number of names, or the
                template lacks {context} and {query}.
        """
        contexts = [context] if isinstance(context, str) else list(context)
        for number, text in enumerate(contexts, 1):
            if not text.strip():
                which = "the document" if len(contexts) == 1 else f"document {number} of {len(contexts)}"
                raise PromptError(
                    f"{which} is empty: there is nothing to answer from. Give a text with content, or ask without a "
                    "document: Prompt.without_context(text)",
                    code="empty_document",
                )
        if not contexts:
            raise PromptError(
                "no document was given: there is nothing to answer from. Give one, or ask without: "
                "Prompt.without_context(text)",
                code="no_document",
            )
        if names is not None and len(names) != len(contexts):
            raise PromptError(f"{len(names)} names for {len(contexts)} documents: give one each, or none")
        if not query.strip():
            raise PromptError(
                "the question is empty: ask one, for instance 'What does the report conclude?'", code="empty_question"
            )
        if template.count("{context}") != 1 or "{query}" not in template:
            raise PromptError(f"the template {template!r} must hold {{context}} once and {{query}}")
        before, after = (part.replace("{query}", query) for part in template.split("{context}"))
        text, spans = before, []
        for index, document in enumerate(contexts):
            text += "\n\n" if index else ""
            text += "" if names is None else NAME_LINE.format(name=" ".join(names[index].split()))
            spans.append((len(text), len(text) + len(document)))
            text += document
        return cls(text=text + after, context_spans=tuple(spans), query=query)
