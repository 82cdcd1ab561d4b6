"""Panics of the tokenizers library as errors of ours.

It is written in Rust, and what its authors ruled out (a regular expression that gives up, a map that points behind its
end) arrives as `PanicException`, a BaseException that no `except Exception` stops.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rapid_integrations.errors import RapidError


def is_panic(error: BaseException) -> bool:
    """Whether an error is a panic of a Rust library."""
    return type(error).__name__ == "PanicException" and not isinstance(error, Exception)


@contextmanager
def panics_taught(kind: type[RapidError], doing: str, way_out: str) -> Iterator[None]:
    """Raise a panic inside as an error of class `kind`; other errors pass.

    Args:
        kind: takes a message.
        doing: what failed ("splitting a text of 3,000 characters into tokens").
        way_out: what its user can do.
    """
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise kind(f"the tokenizer gave up at {doing}: {reason}. {way_out}") from None
