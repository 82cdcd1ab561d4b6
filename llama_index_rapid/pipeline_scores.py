"""The scores that a pipeline's retriever has computed already, remembered until the LLM is called.

LlamaIndex hands an LLM text, not nodes. So what retrieval found is kept here by its question and its text, and looked
up when that text arrives in a prompt; nothing is embedded a second time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.instrumentation.events.synthesis import SynthesizeStartEvent
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, QueryType
from llama_index_instrumentation import get_dispatcher

from rapid_integrations.compression import Passage

_QUESTIONS = 64  # retrievals remembered; a forgotten one costs an embedding, not correctness


class PipelineScores:
    """The latest retrievals of this process: bounded, and safe from several threads."""

    def __init__(self, questions: int = _QUESTIONS) -> None:
        self._questions = questions
        self._by_question: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._lock = threading.Lock()
        # The retrieval whose nodes the current task has yet to use. Chat engines condense the question before they
        # retrieve, so that the question which reaches the LLM is another one.
        self._pending: ContextVar[str | None] = ContextVar("rapid_pending_retrieval", default=None)

    def remember(self, question: str, nodes: Sequence[NodeWithScore]) -> None:
        """Keep the scores of `nodes`, by the text that a prompt will show of them."""
        scores = {text: node.score for node in nodes if node.score is not None for text in texts_of(node)}
        self._pending.set(question if scores else None)
        if scores:
            with self._lock:
                self._keep(question, {**self._by_question.get(question, {}), **scores})

    def answering(self, question: str) -> None:
        """Note that the current task answers `question` with what it has just retrieved."""
        retrieved = self._pending.get()
        self._pending.set(None)
        if retrieved is not None and retrieved != question:
            with self._lock:
                if retrieved in self._by_question:
                    self._keep(question, self._by_question[retrieved])

    def passages(self, question: str) -> list[Passage]:
        """Return what was retrieved to answer `question`."""
        with self._lock:
            return [Passage(text, score) for text, score in self._by_question.get(question, {}).items()]

    def _keep(self, question: str, scores: dict[str, float]) -> None:
        self._by_question[question] = scores
        self._by_question.move_to_end(question)
        while len(self._by_question) > self._questions:
            self._by_question.popitem(last=False)


def texts_of(node: NodeWithScore) -> list[str]:
    """Return the forms in which a prompt may hold the node's text.

    With the metadata that LLMs are shown and without; and as Python writes it in a list, which is how the
    simple_summarize response mode fills its template.
    """
    texts = [node.node.get_content(MetadataMode.LLM), node.node.get_content(MetadataMode.NONE)]
    escaped = [form for text in texts for form in (repr(text)[1:-1], repr(text + '"')[1:-2])]
    return list(dict.fromkeys(text for text in [*texts, *escaped] if text.strip()))


PIPELINE_SCORES = PipelineScores()


class _RememberRetrievals(BaseEventHandler):
    @classmethod
    def class_name(cls) -> str:
        return "RapidRememberRetrievals"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, RetrievalEndEvent):
            PIPELINE_SCORES.remember(_question(event.str_or_query_bundle), event.nodes)
        elif isinstance(event, SynthesizeStartEvent):
            PIPELINE_SCORES.answering(_question(event.query))


def _question(query: QueryType) -> str:
    return query.query_str if isinstance(query, QueryBundle) else query


_listening = threading.Lock()
_handler: _RememberRetrievals | None = None


def listen_to_retrievals() -> None:
    """Remember the scores of every retrieval in this process from now on; calling it again changes nothing."""
    global _handler
    with _listening:
        if _handler is None:
            _handler = _RememberRetrievals()
            get_dispatcher().add_event_handler(_handler)
