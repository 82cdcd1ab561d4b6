"""Turns panics of the tokenizers library into this package's errors.

The library is written in Rust. A failed assumption (a regular expression that gives up, a map that points beyond its
end) arrives as `PanicException`, a BaseException that `except Exception` does not catch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rapid_integrations.errors import RapidError


def is_panic(error: BaseException) -> bool:
    """Return whether an error is a panic of a Rust library."""
    return type(error).__name__ == "PanicException" and not isinstance(error, Exception)


@contextmanager
def panics_taught(kind: type[RapidError], doing: str, way_out: str) -> Iterator[None]:
    """Raise an error of class `kind` instead of a panic inside the block. Other errors pass through.

    Args:
        kind: error class whose constructor takes a message.
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
