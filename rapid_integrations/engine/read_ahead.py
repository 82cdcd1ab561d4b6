"""Reading ahead: documents are prefilled before the first question about them.

A question about them then finds their keys and values where a second question finds those of the first one: in the
prefix cache, in memory and on disk. What is read is exactly what all prompts of one form begin with, so it serves
questions of that form.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from os.path import commonprefix
from typing import TypeAlias

from rapid_integrations.cache import TILE
from rapid_integrations.cache.kv_cache import allocated_tokens
from rapid_integrations.decoding.passes import Steps
from rapid_integrations.decoding.prefixes import Prefixes
from rapid_integrations.decoding.recorder import Recorder
from rapid_integrations.documents import Document, Documents
from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.engine.job import Job
from rapid_integrations.engine.life import EngineLife
from rapid_integrations.engine.outbox import Ended, Event, Progress
from rapid_integrations.engine.prepared_prompt import Beginning
from rapid_integrations.engine.worker import Worker
from rapid_integrations.errors import PromptError, shown
from rapid_integrations.models.causal_lm import cache_bytes, rows_bytes
from rapid_integrations.outputs import ReadAhead
from rapid_integrations.progress import OnProgress
from rapid_integrations.prompt import Prompt, PromptLike
from rapid_integrations.prompt.parts import content_of_message

DocumentsLike: TypeAlias = "Documents | Document | str | Sequence[Document | str]"
PromptOf: TypeAlias = Callable[[Sequence[str], str], PromptLike]
"""Returns the prompt that asks a question about the texts of documents."""

QUESTIONS = ("What is this about?", "7 is the number of which part?")
"""They stand for any question. Their first characters differ, so what both prompts begin with is free of them."""


def texts_and_names(documents: DocumentsLike) -> tuple[list[str], tuple[str, ...] | None]:
    """Return the documents' texts, and their names if there are several and all of them have one.

    Raises:
        PromptError: they are something else.
    """
    single = isinstance(documents, (str, Document))
    if not single and (isinstance(documents, (bytes, Mapping)) or not isinstance(documents, Iterable)):
        raise _no_documents(documents)
    given: list[Document | str] = [documents] if isinstance(documents, (str, Document)) else list(documents)
    if wrong := [each for each in given if not isinstance(each, (str, Document))]:
        raise _no_documents(wrong[0])
    read = [each for each in given if isinstance(each, Document)]
    names = Documents(tuple(read)).names if len(read) == len(given) > 1 else None
    return [each if isinstance(each, str) else each.text for each in given], names


def _no_documents(given: object) -> PromptError:
    return PromptError(
        f"documents are texts, or what rapid_integrations.documents has read, one or several, not {shown(given)}: read "
        "a file with read_documents",
        code="no_document",
    )


def prompts_about(documents: DocumentsLike, prompt: PromptOf | None) -> tuple[PromptLike, PromptLike]:
    """Return the prompts of two questions about documents, made by `prompt` or as `rapid ask` makes them.

    Raises:
        PromptError: there is no document, or an empty one, or the prompts differ before the first document ends.
    """
    texts, names = texts_and_names(documents)
    make = prompt or partial(Prompt.from_context, names=names)
    first, second = (make(texts, question) for question in QUESTIONS)
    if prompt is not None:
        _require_documents_first(texts, first, second)
    return first, second


def _require_documents_first(texts: Sequence[str], first: PromptLike, second: PromptLike) -> None:
    """Refuse two prompts that differ before the first of the documents in them ends.

    The engine refuses those whose contexts are known. In a string or in messages they need not be.
    """
    said, other = _said(first), _said(second)
    found = ((said.find(text), len(text)) for text in (each.strip() for each in texts) if text)
    ends = [start + length for start, length in found if start >= 0]
    if ends and len(commonprefix([said, other])) < min(ends):
        raise question_first()


def _said(prompt: PromptLike) -> str:
    """Return the texts of a prompt, one after another; a chat template writes no more of what differs."""
    if not isinstance(prompt, Iterable) and not isinstance(prompt, Prompt):
        raise PromptError(
            f"prompt=... returned {shown(prompt)}: it is given texts and a question, and returns a text, messages or a "
            "Prompt"
        )
    if isinstance(prompt, (str, Prompt)):
        return prompt if isinstance(prompt, str) else prompt.text
    contents = [content_of_message(message) for message in prompt if isinstance(message, Mapping)]
    return "\n".join(each.text if isinstance(each, Prompt) else each or "" for each in contents)


def question_first() -> PromptError:
    """Return the error of a prompt whose question stands before its documents."""
    return PromptError(
        "nothing can be read ahead: the prompt has its question, or something else that depends on it, before "
        "the end of the first document. Put the documents first",
        code="question_first",
    )


class Reading:
    """Documents that are about to be read ahead. Reading begins when somebody waits for its end.

    Args:
        beginning: what is read.
        prefixes: the engine's caches, which keep what was read.
        worker: the engine's worker.
        life: says whether the engine is still open.
        report: told of the progress, in the thread or the task that waits.
        started: the time of `time.perf_counter` at which the call began.

    Raises:
        OutOfMemoryError: the keys and values would not fit `kv_cache_bytes`.
    """

    def __init__(
        self,
        beginning: Beginning,
        prefixes: Prefixes,
        worker: Worker,
        life: EngineLife,
        report: OnProgress,
        started: float,
    ) -> None:
        self._beginning, self._prefixes, self._worker, self._life = beginning, prefixes, worker, life
        self._report, self._started = report, started
        self._cached = 0
        ids, models = beginning.token_ids, beginning.models
        nbytes = sum(cache_bytes(model, allocated_tokens(len(ids))) for model in models)
        worker.admission.require(nbytes, len(ids) * len(models))

        def need() -> int:
            return sum(prefixes.need(model, "target", ids, len(ids)) for model in models)

        self._job = Job(self._steps, Recorder(*(model.device for model in models)), need, worker.wake, ahead=True)

    def _begin(self) -> None:
        self._life.require()
        self._worker.submit(self._job)

    def _steps(self, job: Job) -> Steps[None]:
        ids = self._beginning.token_ids
        with self._prefixes.request(self._beginning.about) as readers:
            job.held = readers.own_bytes
            for model in self._beginning.models:
                reader = readers.open(model, "target", ids, len(ids))
                job.report("read ahead", reader.reused, len(ids) - 1)
                yield from reader.prefill(partial(job.report, "read ahead"))
                if model is self._beginning.models[0]:
                    self._cached = reader.reused

    def result(self) -> ReadAhead:
        """Wait until the documents have been read and saved."""
        self._begin()
        try:
            while self._goes_on(self._job.outbox.get()):
                pass
        except BaseException:
            self._job.cancel()
            raise
        return self._saved()

    async def aresult(self) -> ReadAhead:
        """Do what `result` does without blocking the event loop. A cancelled task stops the reading."""
        self._begin()
        try:
            while self._goes_on(await self._job.outbox.aget()):
                pass
        except BaseException:
            self._job.cancel()
            raise
        return await in_thread(self._saved)

    def _goes_on(self, event: Event) -> bool:
        if isinstance(event, Progress):
            self._report(event.stage, event.done, event.total)
        if isinstance(event, Ended) and event.error is not None:
            raise event.error
        return not isinstance(event, Ended)

    def _saved(self) -> ReadAhead:
        target, read = self._beginning.models[0], self._beginning.token_ids[:-1]
        self._prefixes.wait_until_saved()
        in_memory, on_disk = self._prefixes.kept(target, read)
        sparse = getattr(target, "sparse_prefill", None) is not None
        kept = len(read) // TILE * TILE if sparse else len(read)  # of a sparse prefill only whole blocks are kept
        return ReadAhead(
            tokens=len(read),
            cached_tokens=self._cached,
            kv_bytes=rows_bytes(target, len(read)),
            in_memory=in_memory == kept,
            on_disk=len(read) - on_disk < max(1, len(read) // 10),  # `PrefixStore.save` adds no tenth to a file
            seconds=time.perf_counter() - self._started,
        )
