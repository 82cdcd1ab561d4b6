"""Ask several questions at once, each in a thread of its own, so that the engine reads them in the same passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from rapid_integrations.engine.engine import CompletionStream, RapidEngine
from rapid_integrations.outputs import Completion

T = TypeVar("T")


class Together:
    """Questions that are asked at once. One that is asked alone needs no thread.

    An error of one question neither stops nor loses the others.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[CompletionStream] = set()
        self._stopped = False

    def run(self, questions: Sequence[Callable[[], T]], take: Callable[[T], None]) -> None:
        """Ask all questions, and give their results to `take`, one after another, in the order of the questions.

        Raises:
            Exception: the first error of a question, after all others have ended and been taken.
        """
        if len(questions) == 1:
            take(questions[0]())
            return
        errors: list[Exception] = []
        with ThreadPoolExecutor(len(questions), thread_name_prefix="rapid question") as pool:
            left = [pool.submit(copy_context().run, question) for question in questions]
            try:
                while left:
                    try:
                        result = left[0].result()
                    except Exception as error:
                        errors.append(error)
                        del left[0]
                        continue
                    del left[0]
                    take(result)
            except BaseException:  # Ctrl-C, or the results cannot be stored
                self._stop()
                for future in left:
                    if _succeeded(future):
                        take(future.result())
                raise
        if errors:
            raise errors[0]

    def generate(self, engine: RapidEngine, prompt: Any, **options: Any) -> Completion:
        """Do what `engine.generate` does, in a thread of `run`.

        Raises:
            CancelledError: the questions have been stopped.
        """
        with engine.stream(prompt, **options) as stream:
            with self._lock:
                if self._stopped:
                    raise CancelledError
                self._running.add(stream)
            pieces = list(stream)
            with self._lock:
                self._running.discard(stream)
            if not pieces or pieces[-1].finish_reason is None:
                raise CancelledError
            return Completion.join(pieces, stream.prepared.retrieved, stream.trace)

    def _stop(self) -> None:
        """End all answers after the present pass."""
        with self._lock:
            self._stopped = True
            for stream in self._running:
                stream.cancel()


def _succeeded(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
