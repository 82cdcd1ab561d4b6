"""The process that reads documents for another one. Requests come on standard input, answers go to standard output."""

from __future__ import annotations

import json
import os
import signal
import sys

from rapid_integrations.documents.document import ReadLimits
from rapid_integrations.documents.isolation import receive, send
from rapid_integrations.documents.reading import read_bytes
from rapid_integrations.errors import ConfigurationError, DocumentError, MissingExtraError

_GRACE_S = 10.0  # time for the parent, which may be busy
_LONGEST_S = 1e6


def serve() -> None:
    """Answer until standard input ends. The command line's argument is the memory limit."""
    _bound(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it ends this process
    incoming = sys.stdin.buffer
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    send(outgoing, b"ready")
    while (request := receive(incoming)) is not None:
        data = receive(incoming)
        if data is None:
            return
        asked = json.loads(request)
        _alarm(asked.pop("seconds") + _GRACE_S)
        answer = json.dumps(_answer(data, **asked)).encode()
        _alarm(0)
        send(outgoing, answer)


def _answer(data: bytes, name: str, encoding: str | None, limits: dict[str, int]) -> dict[str, object]:
    try:
        document = read_bytes(data, name, encoding, ReadLimits(**limits))
    except DocumentError as error:
        return {"error": type(error).__name__, "reason": error.reason}
    except MissingExtraError as error:
        return {"error": "MissingExtraError", "feature": str(error).partition(" needs an optional")[0]}
    except ConfigurationError as error:
        return {"error": "ConfigurationError", "reason": str(error)}
    except MemoryError:
        return {"error": "DocumentError", "reason": _too_much(limits)}
    except Exception as error:  # a reader's bug: this file cannot be read, the next one can
        return {"error": "DocumentError", "reason": f"cannot be read: {type(error).__name__}: {error}"[:500]}
    return {
        "text": document.text,
        "format": document.format,
        "remarks": document.remarks,
        "pages": document.pages,
    }


def _alarm(seconds: float) -> None:
    """Let the system end this process after some seconds, in case the parent, which ends it sooner, was killed."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_REAL, min(seconds, _LONGEST_S))


def _too_much(limits: dict[str, int]) -> str:
    return f"needs more than {limits['memory_bytes'] / 2**30:g} GiB of memory to read: split it"


def _bound(memory_bytes: int) -> None:
    """Limit this process's memory, if the system supports it."""
    try:
        import resource
    except ImportError:  # Windows
        return
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    except (ValueError, OSError):  # macOS refuses
        pass
