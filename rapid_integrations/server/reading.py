"""Reads uploaded documents in the background: first their text, then the engine reads it ahead of the questions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rapid_integrations.documents import Document, ReadLimits
from rapid_integrations.documents.isolation import reading
from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.errors import DocumentError, RapidError
from rapid_integrations.prompt import Prompt
from rapid_integrations.server.file_store import FileStore, StoredFile

_LONG = 20  # characters a token of the window, beyond which a text is not counted before the engine has taken it
_NO_QUESTION = "What is this about?"  # in place of the first question while a document is read ahead


class BackgroundReading:
    """Reads one document after the other.

    Args:
        engine: reads the texts ahead, if it reuses prefixes.
        store: has the files.
        limits: of one file.
        seconds: time for the text of one file.
    """

    def __init__(self, engine: RapidEngine, store: FileStore, limits: ReadLimits, seconds: float) -> None:
        self._engine, self._store, self._limits, self._seconds = engine, store, limits, seconds
        self._one = asyncio.Semaphore(1)
        self._one_given = asyncio.Semaphore(1)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._texts: dict[str, asyncio.Event] = {}

    def start(self, file_id: str) -> None:
        """Begin to read a file, unless it is being read already."""
        if file_id in self._tasks:
            return
        self._texts[file_id] = asyncio.Event()
        task = asyncio.create_task(self._read(file_id))
        self._tasks[file_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(file_id, None))

    def resume(self) -> None:
        """Begin to read the files whose text an earlier run of the server did not get.

        So are those whose text it got and its engine refused: another model may have room for them.
        """
        for file in self._store.all():
            refused = file.status == "error" and self._store.has_text(file.id)
            again = {"status": "uploaded", "details": None} if refused else {}
            self._store.change(file.id, read=False, progress=None, **again)
            self.adopt(self._store.get(file.id))

    def adopt(self, file: StoredFile) -> None:
        """Begin to read a file without a text: the server that was to read it may have ended."""
        if file.status == "uploaded":
            self.start(file.id)

    async def text(self, file_id: str) -> Document:
        """Return the text of a file. If it is still being extracted, this waits for it.

        Raises:
            ApiError: there is no such file, or it has no text.
        """
        self.adopt(self._store.get(file_id))
        if (there := self._texts.get(file_id)) is not None:
            await there.wait()
        return await in_thread(lambda: self._store.document(file_id))

    async def given(self, name: str, data: bytes) -> Document:
        """Return the text of a file that came with a request. It is not kept.

        Raises:
            DocumentError: it has no text.
        """
        async with self._one_given:  # each is read by a process of its own
            return await in_thread(lambda: self._text_of(name, data))

    async def cancel(self, file_id: str) -> None:
        """Stop reading a file that is deleted."""
        await _cancelled([task for name, task in self._tasks.items() if name == file_id])

    async def aclose(self) -> None:
        """Stop reading."""
        await _cancelled(list(self._tasks.values()))

    async def _read(self, file_id: str) -> None:
        async with self._one:
            try:
                self._store.change(file_id, progress=("extract text", 0, 1))
                document = await in_thread(lambda: self._extracted(file_id))
                self._store.change(file_id, status="processed", pages=len(document.pages) or None)
                self._texts.pop(file_id).set()
                await self._ahead(file_id, document)
            except RapidError as error:
                reason = f"It {error.reason}" if isinstance(error, DocumentError) else str(error)
                self._store.change(file_id, status="error", details=reason)
            finally:
                self._store.change(file_id, progress=None)
                if (there := self._texts.pop(file_id, None)) is not None:
                    there.set()

    def _extracted(self, file_id: str) -> Document:
        file = self._store.get(file_id)
        document = self._text_of(file.filename, self._store.content(file_id).read_bytes())
        self._store.keep_text(file_id, document)
        return document

    def _text_of(self, name: str, data: bytes) -> Document:
        if not data.strip():
            raise DocumentError(name, "is empty: there is nothing to answer from")
        with reading(None, self._limits, self._seconds) as read:
            return read(data, name)

    async def _ahead(self, file_id: str, document: Document) -> None:
        """Have the engine index and prefill a document as the prompts of questions about it begin."""

        def prompt(texts: Sequence[str], question: str) -> Prompt:
            return Prompt.from_context(texts, question, names=[document.source])

        def report(stage: str, done: int, total: int) -> None:
            self._store.change(file_id, progress=(stage, done, total))

        async def count() -> None:
            asked = prompt([document.text], _NO_QUESTION)
            self._store.change(file_id, tokens=await in_thread(lambda: self._engine.count_tokens(asked)))

        # All tokens of a text that is far too long would take half a minute. The engine refuses it by its beginning.
        first = len(document.text) <= _LONG * self._engine.target.context_window or not self._engine.reuses_prefixes
        if first:
            await count()
        if self._engine.reuses_prefixes:
            await self._engine.aread(document, prompt=prompt, on_progress=report)
        if not first:
            await count()
        self._store.change(file_id, read=self._engine.reuses_prefixes)


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
