"""What happens in a forked child."""

import os
import select
import signal
import traceback


def in_child(call, seconds=30):
    """Return what `call` returns in a forked child, or the name of what it raises; AssertionError where it hangs."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                said = f"returned {call()}"
            except BaseException as error:
                said = f"{type(error).__name__}: {error}" or traceback.format_exc()
            os.write(writer, said.encode()[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], seconds)
        assert ready, "the child hangs"
        return os.read(reader, 4000).decode()
    finally:
        os.close(reader)
        if not ready:
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
