"""`Prompt`: what a user builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import field_validator, model_validator

from rapid_integrations.config import Settings
from rapid_integrations.errors import PromptError
from rapid_integrations.segmentation import Span

Message: TypeAlias = Mapping[str, Any]
"""A chat message: "role" and "content", the content a string or a `Prompt`; further keys go to the template."""

PromptLike: TypeAlias = "str | Prompt | Sequence[Message]"

DEFAULT_TEMPLATE = (
    "Use the following document to answer the question at the end.\n\n{context}\n\nQuestion: {query}\nAnswer:"
)


NAME_LINE = "Document: {name}\n\n"


class Prompt(Settings):
    """A text, the character spans of it that are retrieved context, and the question.

    Args:
        text: what the target reads (before the chat template).
        context_spans: (start, end) character offsets into `text`, in order, without overlap. Empty: they are looked
            for (`rapid_integrations.segmentation`), unless `segmentation` says that the parts are known.
        query: the question that retrieval searches for; None: looked for in the text outside of the spans.
        segmentation: how the spans came to be known; reported in the statistics. "plain" without spans: there is no
            context, so none is looked for.
    """

    text: str
    context_spans: tuple[Span, ...] = ()
    query: str | None = None
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
        return self

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

        They stand before the question so that a second question shares their prefix. Several are set apart by blank
        lines; each is a context span of its own. With `names`, one a document, each stands below a line that names it,
        which both models read whatever is retrieved.

        Raises:
            PromptError: no document, an empty one, an empty question, another number of names, or a template without
                {context} and {query}.
        """
        contexts = [context] if isinstance(context, str) else list(context)
        for number, text in enumerate(contexts, 1):
            if not text.strip():
                which = "the document" if len(contexts) == 1 else f"document {number} of {len(contexts)}"
                raise PromptError(f"{which} is empty: there is nothing to answer from. Give a text with content")
        if not contexts:
            raise PromptError("no document was given: there is nothing to answer from")
        if names is not None and len(names) != len(contexts):
            raise PromptError(f"{len(names)} names for {len(contexts)} documents: give one each, or none")
        if not query.strip():
            raise PromptError("the question is empty: ask one, for instance 'What does the report conclude?'")
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
