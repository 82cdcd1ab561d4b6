"""Finding the retrieved context and the question in a text that says nothing about them. Imports no torch.

spans         what is returned
lexicon       the words by which prompts name their parts
marks         labels, fences and tags
instructions  what tells the model what to do
question      the question out of its surroundings
blocks        candidates for the context, each with the question that goes with it
shape         labels and questions by their shape alone
shaped        the context as the bulk between short pieces, whatever words name them
confidence    what of both readings can be trusted; the rest is "plain"
segmenter     the choice among them
"""

from __future__ import annotations

from rapid_integrations.prompt.segmentation.segmenter import question_of, segment, segment_context
from rapid_integrations.prompt.segmentation.spans import (
    MAX_QUERY_CHARACTERS,
    MIN_CONTEXT_CHARACTERS,
    Segmentation,
    Span,
)

__all__ = [
    "MAX_QUERY_CHARACTERS",
    "MIN_CONTEXT_CHARACTERS",
    "Segmentation",
    "Span",
    "question_of",
    "segment",
    "segment_context",
]
