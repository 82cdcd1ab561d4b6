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
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from rapid_integrations.compression import Passage

_QUESTIONS = 64  # retrievals remembered; a forgotten one costs an embedding, not correctness


class PipelineScores:
    """The latest retrievals of this process: bounded, and safe from several threads."""

    def __init__(self, questions: int = _QUESTIONS) -> None:
        self._questions = questions
        self._by_question: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._lock = threading.Lock()
        # What the current task retrieved last: chat engines condense the question before they retrieve, so that the
        # question which reaches the LLM is another one.
        self._latest: ContextVar[str | None] = ContextVar("rapid_latest_retrieval", default=None)

    def remember(self, question: str, nodes: Sequence[NodeWithScore]) -> None:
        """Keep the scores of `nodes`, by the text that a prompt will show of them."""
        scores = {text: node.score for node in nodes if node.score is not None for text in texts_of(node)}
        if not scores:
            return
        with self._lock:
            self._by_question[question] = {**self._by_question.pop(question, {}), **scores}
            while len(self._by_question) > self._questions:
                self._by_question.popitem(last=False)
        self._latest.set(question)

    def passages(self, question: str) -> list[Passage]:
        """Return what was retrieved for `question`, or else what the current task retrieved last."""
        with self._lock:
            scores = self._by_question.get(question)
            if scores is None and (latest := self._latest.get()) is not None:
                scores = self._by_question.get(latest)
            return [Passage(text, score) for text, score in (scores or {}).items()]


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
            asked = event.str_or_query_bundle
            PIPELINE_SCORES.remember(asked.query_str if isinstance(asked, QueryBundle) else asked, event.nodes)


_listening = threading.Lock()
_handler: _RememberRetrievals | None = None


def listen_to_retrievals() -> None:
    """Remember the scores of every retrieval in this process from now on; calling it again changes nothing."""
    global _handler
    with _listening:
        if _handler is None:
            _handler = _RememberRetrievals()
            get_dispatcher().add_event_handler(_handler)
