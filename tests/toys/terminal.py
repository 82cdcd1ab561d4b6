"""A program in a terminal of its own, typed at and read from."""

import contextlib
import os
import pty
import re
import select
import subprocess
import time

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r|\x07")


class Terminal:
    """Runs `command` on a pseudo-terminal. What it shows is kept, without colours and cursor movements."""

    def __init__(self, command, **options):
        mine, theirs = pty.openpty()
        self._terminal = mine
        self.shown = ""
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_own, **options
        )
        os.close(theirs)

    def type(self, text):
        os.write(self._terminal, text.encode())

    def wait_for(self, *texts, seconds=120.0, after=0):
        """Read until one of `texts` is shown behind the first `after` characters; return where it ends."""
        end = time.monotonic() + seconds
        wanted = re.compile("|".join(map(re.escape, texts)))
        while not (found := wanted.search(self.shown, after)):
            assert time.monotonic() < end, f"none of {texts} within {seconds} s:\n{self.shown[-2000:]}"
            if not self._read(0.1) and self.process.poll() is not None and not wanted.search(self.shown, after):
                raise AssertionError(f"ended with {self.process.returncode} without {texts}:\n{self.shown[-2000:]}")
        return found.end()

    def shows_within(self, text, seconds, after=0):
        """Return whether `text` is shown behind the first `after` characters in this time."""
        end = time.monotonic() + seconds
        while text not in self.shown[after:] and time.monotonic() < end:
            self._read(0.1)
        return text in self.shown[after:]

    def end(self, seconds=120.0):
        """Wait until the program ends; return its exit code."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still running:\n{self.shown}"
            self._read(0.1)
        while self._read(0.0):
            pass
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._terminal)

    def _read(self, seconds):
        if not select.select([self._terminal], [], [], seconds)[0]:
            return False
        with contextlib.suppress(OSError):  # the other side has been closed
            if data := os.read(self._terminal, 65536):
                self.shown += _CONTROLS.sub("", data.decode("utf-8", "replace"))
                return True
        return False


def _own():
    """Make the terminal the one that Ctrl-C comes from."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
