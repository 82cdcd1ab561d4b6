"""Read files in a separate process, which is ended if it takes too long, needs too much memory or crashes.

A parser can hang, fill the memory or crash on an untrusted file (PDFium is C++). Then only that process ends, the file
is an error, and the next file is read. Starting the process takes about 0.2 s, so it reads all files of a call and of
the next calls. It returns JSON: a file that took over the process could at most lie about its text.
"""

from __future__ import annotations

import atexit
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from queue import Empty, Queue
from typing import IO, Any, TypeAlias

from rapid_integrations.documents.document import Document, NoTextError, ReadLimits
from rapid_integrations.errors import ConfigurationError, DocumentError, MissingExtraError

Read: TypeAlias = Callable[[bytes, str], Document]

_LENGTH = struct.Struct(">Q")
_START_S = 60.0  # time for the process to start on a busy machine
# Set before anything is imported: `python -c` looks in the current folder first, which may be the stranger's.
_CHILD = "import sys; sys.path[:] = {path!r}; from rapid_integrations.documents.child import serve; serve()"
_ERRORS = {each.__name__: each for each in (DocumentError, NoTextError)}

_idle: list[_Child] = []
_idle_lock = threading.Lock()


@contextmanager
def reading(encoding: str | None, limits: ReadLimits, time_limit_s: float | None) -> Iterator[Read]:
    """Yield a function that reads a file's bytes, given its name, within limits.

    Args:
        encoding: encoding of text and HTML; None detects it for each file.
        limits: limits of reading.
        time_limit_s: seconds for each file; None reads in this process without a limit.

    Raises:
        ConfigurationError: the time limit is not a positive number.
    """
    from rapid_integrations.documents.reading import plain_text, read_bytes

    if time_limit_s is None:
        yield lambda data, name: read_bytes(data, name, encoding, limits)
        return
    if not time_limit_s > 0:
        raise ConfigurationError(f"time_limit_s={time_limit_s}: give seconds above 0, or None for no limit")
    children: list[_Child] = []

    def read(data: bytes, name: str) -> Document:
        if _is_plain(data, name) and len(data) <= limits.characters and encoding is None:
            return plain_text(data, name)
        if not children:
            children.append(_take(limits.memory_bytes))
        child = children[0]
        try:
            return child.read(data, name, encoding, limits, time_limit_s)
        finally:
            if not child.is_alive:
                children.clear()

    try:
        yield read
    finally:
        for child in children:
            _give_back(child)


def _is_plain(data: bytes, name: str) -> bool:
    """Whether a file is UTF-8 text that needs no parser."""
    from rapid_integrations.documents.formats import format_of

    if b"\0" in data or b"\x1b" in data:
        return False
    try:
        return format_of(data, name) == "text" and bool(data.decode("utf-8").strip())
    except (DocumentError, UnicodeDecodeError):
        return False


class _Child:
    """A process that reads one file after the other."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.parent = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD.format(path=[each for each in sys.path if each]), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._answers: Queue[bytes | None] = Queue()
        threading.Thread(target=self._receive, name="rapid-document-answers", daemon=True).start()
        self.is_alive = True
        try:
            ready = self._answers.get(timeout=_START_S)
        except Empty:
            ready = None
        if ready is None:
            code = self.end()
            raise DocumentError(
                "the process that reads documents",
                f"does not start (exit status {code}, {memory_bytes / 2**30:g} GiB of memory): allow it more "
                "(ReadLimits.memory_bytes), or read in this one with time_limit_s=None",
            )

    def read(self, data: bytes, name: str, encoding: str | None, limits: ReadLimits, time_limit_s: float) -> Document:
        """Return the process's result for a file. End the process if it does not answer in time."""
        request = json.dumps(
            {"name": name, "encoding": encoding, "limits": asdict(limits), "seconds": time_limit_s}
        ).encode()
        # A thread writes, because a process that no longer reads would block this one forever.
        threading.Thread(target=self._send, args=(request, data), name="rapid-document-bytes", daemon=True).start()
        try:
            answer = self._answers.get(timeout=time_limit_s)
        except Empty:
            self.end()
            raise DocumentError(
                name, f"takes more than {time_limit_s:g} s to read: split it, or raise the time limit"
            ) from None
        except BaseException:  # Ctrl-C: its answer would be taken for the next file's
            self.end()
            raise
        if answer is None:
            with suppress(subprocess.TimeoutExpired):  # it has closed its end and is about to exit
                self._process.wait(timeout=2)
            code = self.end()
            raise DocumentError(
                name,
                f"makes its reader crash (exit status {code}) or needs more than {self.memory_bytes / 2**30:g} GiB of "
                "memory: save it anew with another program, or as text",
            )
        return _document(json.loads(answer), name)

    def end(self) -> int | None:
        """End the process and return its exit status."""
        self.is_alive = False
        self._process.kill()
        code = self._process.wait()
        with suppress(OSError):  # what could not be written any more
            if self._process.stdin is not None:
                self._process.stdin.close()
        return code

    def _send(self, *parts: bytes) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        try:
            for part in parts:
                pipe.write(_LENGTH.pack(len(part)))
                pipe.write(part)
            pipe.flush()
        except (OSError, ValueError):  # it has ended, which the missing answer shows
            pass

    def _receive(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with pipe:
            while (part := receive(pipe)) is not None:
                self._answers.put(part)
        self._answers.put(None)


def receive(pipe: IO[bytes]) -> bytes | None:
    """Return the next message of the other side (8 bytes of length, then the content), or None at the end."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    part = pipe.read(length)
    return part if len(part) == length else None


def send(pipe: IO[bytes], part: bytes) -> None:
    """Send a message that `receive` returns."""
    pipe.write(_LENGTH.pack(len(part)))
    pipe.write(part)
    pipe.flush()


def _document(answer: dict[str, Any], name: str) -> Document:
    if "text" in answer:
        return Document(
            str(answer["text"]),
            name,
            answer["format"],
            tuple(map(str, answer["remarks"])),
            tuple((int(start), int(end)) for start, end in answer["pages"]),
        )
    if answer["error"] == "MissingExtraError":
        raise MissingExtraError(feature=str(answer["feature"]), extra="documents")
    if answer["error"] == "ConfigurationError":
        raise ConfigurationError(str(answer["reason"]))
    raise _ERRORS.get(answer["error"], DocumentError)(name, str(answer["reason"]))


def _take(memory_bytes: int) -> _Child:
    """Return an idle process, or a new one."""
    with _idle_lock:
        while _idle:
            child = _idle.pop()
            if child.parent == os.getpid() and child.memory_bytes == memory_bytes and child._process.poll() is None:
                return child
            if child.parent == os.getpid():
                child.end()
    return _Child(memory_bytes)


def _give_back(child: _Child) -> None:
    with _idle_lock:
        if child.is_alive and not _idle:
            _idle.append(child)
            return
    if child.is_alive:
        child.end()


@atexit.register
def _end_idle() -> None:
    with _idle_lock:
        for child in _idle:
            if child.parent == os.getpid():
                child.end()
        _idle.clear()
