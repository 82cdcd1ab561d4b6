"""The ways in which a program asks an engine several questions: in turn, or at once by threads, tasks or LangChain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import CompletionStream, RapidEngine
from rapid_integrations.errors import MissingExtraError
from rapid_integrations.outputs import Completion, CompletionChunk
from rapid_integrations.prompt import Prompt

_TEMPLATE: Final = "Answer the question based only on the following context:\n{context}\n\nQuestion: {query}\nAnswer:"
"""LangChain passes on a text without its parts. In this one they are found to the letter, so all ways ask the same."""


@dataclass(frozen=True)
class Asking:
    """One question about a document, with the settings of its request."""

    document: str
    question: str
    sampling: SamplingParams
    speculation: SpeculationConfig

    @property
    def prompt(self) -> Prompt:
        """The document and the question in one template for all ways."""
        return Prompt.from_context(self.document.strip(), self.question, _TEMPLATE)

    def stream(self, engine: RapidEngine) -> CompletionStream:
        """Return the prepared request, which begins with the first piece that is asked for."""
        return engine.stream(self.prompt, sampling=self.sampling, speculation=self.speculation)


@dataclass(frozen=True)
class Answer:
    """An answer. `token_ids` is None if the way in which it was asked for gives only its text."""

    text: str
    token_ids: tuple[int, ...] | None = None

    def equals(self, other: Answer) -> bool:
        """Whether both are the same tokens or, if one of them has only its text, the same text."""
        if self.token_ids is None or other.token_ids is None:
            return self.text == other.text
        return self.token_ids == other.token_ids


def in_turn(engine: RapidEngine, askings: Sequence[Asking]) -> list[Answer]:
    """Ask one question after another."""
    return [_answer(_drained(asking.stream(engine))) for asking in askings]


def in_threads(engine: RapidEngine, askings: Sequence[Asking]) -> list[Answer]:
    """Ask all at once, each in a thread of its own."""
    with ThreadPoolExecutor(len(askings)) as pool:
        return list(pool.map(lambda asking: _answer(_drained(asking.stream(engine))), askings))


def in_tasks(engine: RapidEngine, askings: Sequence[Asking]) -> list[Answer]:
    """Ask all at once, each in a task of one event loop."""

    async def ask() -> list[Completion]:
        return await asyncio.gather(
            *(
                engine.agenerate(asking.prompt, sampling=asking.sampling, speculation=asking.speculation)
                for asking in askings
            )
        )

    return [_answer(completion) for completion in asyncio.run(ask())]


def in_batch(engine: RapidEngine, askings: Sequence[Asking]) -> list[Answer]:
    """Ask all at once by LangChain's `batch`. All have the settings of the first one.

    Raises:
        MissingExtraError: LangChain is not installed.
    """
    try:
        from langchain_core.prompts import PromptTemplate

        from langchain_rapid import ChatRapid
    except ImportError as error:
        raise MissingExtraError(feature="LangChain's batch", extra="langchain") from error
    settings = {
        **askings[0].sampling.model_dump(exclude_defaults=True),
        **askings[0].speculation.model_dump(exclude_defaults=True),
    }
    chain = PromptTemplate.from_template(_TEMPLATE) | ChatRapid(engine=engine, **settings)
    inputs = [{"context": asking.document.strip(), "query": asking.question} for asking in askings]
    messages = chain.batch(inputs, config={"max_concurrency": len(inputs)})
    return [Answer(str(message.content)) for message in messages]


WAYS: Final[Mapping[str, Callable[[RapidEngine, Sequence[Asking]], list[Answer]]]] = MappingProxyType(
    {"turn": in_turn, "threads": in_threads, "tasks": in_tasks, "batch": in_batch}
)
"""Name to the function that asks all questions and returns the answers in the same order."""


def drain_in_turn(streams: Sequence[CompletionStream]) -> list[Answer]:
    """Read prepared requests to their ends, one after another."""
    return [_answer(_drained(stream)) for stream in streams]


def drain_in_threads(streams: Sequence[CompletionStream]) -> list[Answer]:
    """Read prepared requests to their ends at once, each in a thread of its own."""
    with ThreadPoolExecutor(len(streams)) as pool:
        return list(pool.map(lambda stream: _answer(_drained(stream)), streams))


def drain_in_tasks(streams: Sequence[CompletionStream]) -> list[Answer]:
    """Read prepared requests to their ends at once, each in a task of one event loop."""

    async def drained(stream: CompletionStream) -> Completion:
        pieces: list[CompletionChunk] = []
        while (piece := await stream.anext()) is not None:
            pieces.append(piece)
        return Completion.join(pieces, stream.prepared.retrieved)

    async def drain() -> list[Completion]:
        return await asyncio.gather(*(drained(stream) for stream in streams))

    return [_answer(completion) for completion in asyncio.run(drain())]


DRAINS: Final[Mapping[str, Callable[[Sequence[CompletionStream]], list[Answer]]]] = MappingProxyType(
    {"turn": drain_in_turn, "threads": drain_in_threads, "tasks": drain_in_tasks}
)
"""Name to the function that reads prepared requests. LangChain prepares its own."""


def _drained(stream: CompletionStream) -> Completion:
    with stream:
        return Completion.join(list(stream), stream.prepared.retrieved)


def _answer(completion: Completion) -> Answer:
    return Answer(completion.text, completion.token_ids)
