"""Finding the retrieved context and the question in a text that says nothing about them. Imports no torch.

spans         what is returned
role_words    the words by which prompts name their parts
lexicon       the phrases that announce parts, and who speaks
roles         which part a label names
marks         labels, fences and tags
instructions  what tells the model what to do
question      the question out of its surroundings, by words and marks
blocks        a candidate for the context, and the question that goes with it
delimited     candidates between tags, between fences, under a label
announced     candidates that only a sentence announces, or a question ends
shape         the lines of a prompt by their shape alone
settling      a question without what a template says around it
pieces        the short piece that asks, by its shape
shaped        the context as the bulk between such pieces, whatever words name them
edges         where a context begins and ends, to the safe side
turns         the turn that a prompt ends with, and its label
confidence    what of both readings can be trusted; the rest is "plain"
segmenter     the choice among them
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rapid_integrations.prompt.segmentation.spans import (
    MAX_QUERY_CHARACTERS,
    MIN_CONTEXT_CHARACTERS,
    Segmentation,
    Span,
)

if TYPE_CHECKING:
    from rapid_integrations.prompt.segmentation.segmenter import question_of, segment, segment_context

__all__ = [
    "MAX_QUERY_CHARACTERS",
    "MIN_CONTEXT_CHARACTERS",
    "Segmentation",
    "Span",
    "question_of",
    "segment",
    "segment_context",
]


def __getattr__(name: str) -> Any:
    """Import the segmenter when it is first needed: its regular expressions take a tenth of a second to compile."""
    if name not in ("question_of", "segment", "segment_context"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rapid_integrations.prompt.segmentation import segmenter

    return getattr(segmenter, name)
