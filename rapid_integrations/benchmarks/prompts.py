"""Questions over as much of a document as a context length takes."""

from __future__ import annotations

from rapid_integrations.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.questions import Question
from rapid_integrations.prompt import Prompt


def prompt_of_length(engine: RapidEngine, question: Question, context_tokens: int) -> Prompt:
    """Return the question over the document's start, so that the target reads at most `context_tokens`.

    Raises:
        ConfigurationError: the question and the chat template alone take more.
    """
    around = engine.count_tokens(Prompt.from_context("-", question.question))
    room = context_tokens - around
    if room < 1:
        raise ConfigurationError(
            f"a context of {context_tokens:,} tokens has no room for a document: the question and the chat template "
            f"take {around:,}. Give a longer one"
        )
    offsets = engine.vocabulary.offsets(question.document)
    cut = len(question.document) if len(offsets) <= room else offsets[room][0]
    return Prompt.from_context(question.document[:cut], question.question)
