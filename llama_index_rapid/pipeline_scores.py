"""The scores of a pipeline's retriever, remembered until the LLM is called.

LlamaIndex passes text to an LLM, not nodes. This module keeps the scores by question and text, and finds them again
when the text arrives in a prompt. Nothing is embedded a second time.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import ContextVar
from numbers import Real
from typing import Any

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.instrumentation.events.synthesis import SynthesizeStartEvent
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, QueryType
from llama_index_instrumentation import get_dispatcher

from rapid_integrations.compression import Passage

# A forgotten score costs an embedding, but answers stay correct.
_QUESTIONS = 64  # number of retrievals that are remembered
_BYTES = 16 * 2**20  # total size of their texts
_EDGE = 16  # number of characters at either end of a text that are searched in a prompt


class PipelineScores:
    """The latest retrievals of this process. It is bounded in size and thread-safe.

    Args:
        questions: maximum number of retrievals.
        most_bytes: maximum total size of their texts. If one question exceeds it, its latest texts stay.
    """

    def __init__(self, questions: int = _QUESTIONS, most_bytes: int = _BYTES) -> None:
        self._questions = questions
        self._most_bytes = most_bytes
        self._by_question: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()
        self._retrieved_for: OrderedDict[str, str] = OrderedDict()  # from a question to the one used for retrieval
        self._bytes = 0
        self._lock = threading.Lock()
        # The question of a retrieval whose nodes the current task has not used yet. Chat engines condense the question
        # before they retrieve, so a different question reaches the LLM.
        self._pending: ContextVar[str | None] = ContextVar("rapid_pending_retrieval", default=None)

    @property
    def nbytes(self) -> int:
        """Bytes of the texts that are remembered."""
        return self._bytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._by_question.clear()
            self._retrieved_for.clear()
            self._bytes = 0

    def remember(self, question: str, nodes: Sequence[NodeWithScore]) -> None:
        """Keep the scores of `nodes` by the texts that a prompt may show for them."""
        scores: dict[str, float] = {}
        for node in nodes:
            if isinstance(node.score, Real):  # includes NaN, which later counts as the lowest score
                scores.update(dict.fromkeys(texts_of(node), float(node.score)))
        self._pending.set(question if scores else None)
        if not scores:
            return
        with self._lock:
            self._retrieved_for.pop(question, None)
            known = self._by_question.setdefault(question, OrderedDict())
            self._by_question.move_to_end(question)
            for text, score in scores.items():
                if text not in known:
                    self._bytes += sys.getsizeof(text)
                known[text] = score
                known.move_to_end(text)
            self._forget()

    def answering(self, question: str) -> None:
        """Record that the current task answers `question` with the nodes of its latest retrieval."""
        retrieved = self._pending.get()
        self._pending.set(None)
        if retrieved is not None and retrieved != question:
            with self._lock:
                self._retrieved_for[question] = retrieved
                self._retrieved_for.move_to_end(question)
                while len(self._retrieved_for) > self._questions:
                    self._retrieved_for.popitem(last=False)

    def passages(self, question: str, contexts: Sequence[str] | None = None) -> list[Passage]:
        """Return what was retrieved for `question`; with `contexts`, only passages that may occur in them.

        Pipelines cut passages to fit. A cut passage still shows one of its ends, or it is longer than the context.
        """
        with self._lock:
            known = self._by_question.get(self._retrieved_for.get(question, question), OrderedDict())
            passages = list(known.items())
        if contexts is not None:
            edges = {context[at : at + _EDGE] for context in contexts for at in range(max(1, len(context) - _EDGE + 1))}
            shortest = min((len(context) for context in contexts), default=0)
            passages = [
                (text, score)
                for text, score in passages
                if len(text) >= shortest or (body := text.strip())[:_EDGE] in edges or body[-_EDGE:] in edges
            ]
        return [Passage(text, score) for text, score in passages]

    def _forget(self) -> None:
        while len(self._by_question) > 1 and (
            len(self._by_question) > self._questions or self._bytes > self._most_bytes
        ):
            _, texts = self._by_question.popitem(last=False)
            self._bytes -= sum(map(sys.getsizeof, texts))
        (texts,) = [next(reversed(self._by_question.values()))]
        while self._bytes > self._most_bytes and texts:
            text, _ = texts.popitem(last=False)
            self._bytes -= sys.getsizeof(text)


def texts_of(node: NodeWithScore) -> list[str]:
    """Return the forms in which a prompt may contain the node's text.

    They are the text with and without the metadata for LLMs, and both as Python prints them in a list, which is how
    the simple_summarize response mode fills its template.
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
    """Start to remember the scores of every retrieval in this process. Calling it again changes nothing."""
    global _handler
    with _listening:
        if _handler is None:
            _handler = _RememberRetrievals()
            get_dispatcher().add_event_handler(_handler)
