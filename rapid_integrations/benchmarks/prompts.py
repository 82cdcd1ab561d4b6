"""Make questions over as much of a document as fits a context length."""

from __future__ import annotations

from collections.abc import Sequence

from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.questions import Question
from rapid_integrations.prompt import Prompt


def room_beside(engine: RapidEngine, new_tokens: int, context_tokens: int) -> int:
    """Return the longest prompt of at most `context_tokens` that leaves room for an answer.

    Raises:
        ConfigurationError: the answer alone fills the target's window.
    """
    window = engine.target.context_window
    if new_tokens >= window:
        raise ConfigurationError(
            f"{engine.target.name} holds {window:,} tokens, so there is no room for a prompt beside --new-tokens "
            f"{new_tokens:,}: give fewer"
        )
    return min(context_tokens, window - new_tokens)


def prompt_of_length(engine: RapidEngine, question: Question, context_tokens: int) -> Prompt:
    """Return the question over the document's start, so that the target reads at most `context_tokens`.

    Raises:
        ConfigurationError: the question and the chat template alone need more tokens.
    """
    document = document_start(engine, question.document, [question.question], context_tokens)
    return Prompt.from_context(document, question.question)


def document_start(engine: RapidEngine, document: str, questions: Sequence[str], context_tokens: int) -> str:
    """Return as much of a document as fits together with each of the questions. See `prompt_of_length`."""
    around = max(engine.count_tokens(Prompt.from_context("-", question)) for question in questions)
    room = context_tokens - around
    if room < 1:
        raise ConfigurationError(
            f"a context of {context_tokens:,} tokens has no room for a document: the question and the chat template "
            f"take {around:,}. Give a longer one"
        )
    offsets = engine.vocabulary.offsets(document)
    return document if len(offsets) <= room else document[: offsets[room][0]]
