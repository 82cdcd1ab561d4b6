"""What copying and pickling mean for things that hold models, threads or open files."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from rapid_integrations.errors import NotPicklableError


class SharedResource:
    """Base of what exists once: `copy.copy` and `copy.deepcopy` return it itself, and pickling it is refused at once.

    A copy of an index, a chain or an agent that holds one therefore takes no second set of weights.
    """

    settings_of_answers: ClassVar[tuple[str, ...]] = ()
    """Attributes that decide what it does to an answer (see `identity.part_key`); none: it is one by itself."""

    _elsewhere: ClassVar[str] = "build it there, from the names that it was built from here"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> Any:
        raise NotPicklableError(
            f"{type(self).__name__} cannot be pickled: what it holds (models, caches, threads or open files) belongs "
            f"to this process. In another process, {self._elsewhere}"
        )


class OneOwner(SharedResource):
    """Base of what has one user: it cannot be copied either, since two would change it under each other."""

    _copying: ClassVar[str] = "it has one user, and a copy would be changed with it"

    def __copy__(self) -> Self:
        raise NotPicklableError(f"{type(self).__name__} cannot be copied: {self._copying}")

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        raise NotPicklableError(f"{type(self).__name__} cannot be copied: {self._copying}")


class RunningAnswer(OneOwner):
    """Base of an answer that is being written."""

    _elsewhere = "ask again; what can be sent is the whole answer (`Completion`), or its pieces (`CompletionChunk`)"
    _copying = (
        "it is one running answer, whose pieces come once. Read it to the end (`generate` does) and copy the "
        "`Completion`, or ask again"
    )
