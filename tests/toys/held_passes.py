"""Forward passes that wait for a test: what happens in the middle of a request is arranged, and not hoped for."""

import asyncio
import threading

SECONDS = 60  # after which a pass is let go that nobody lets go; never waited for if all is well


class HeldPasses:
    """Holds every pass of an engine's target, from now on until `let_go`.

    Attributes:
        inside: set as soon as a pass waits.
    """

    def __init__(self, engine, monkeypatch):
        self.inside, self._gate = threading.Event(), threading.Event()
        model = type(engine.target)
        forward = model.forward

        def held(lm, rows):
            self.inside.set()
            assert self._gate.wait(SECONDS), "nobody let the pass go"
            return forward(lm, rows)

        monkeypatch.setattr(model, "forward", held)

    def let_go(self):
        """Let passes be made again."""
        self._gate.set()


async def eventually(condition, seconds=60.0):
    """Wait in an event loop until something holds. Whoever waits in vain waits long: a busy machine is no failure."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not condition():
        assert loop.time() < end, "waited in vain"
        await asyncio.sleep(0.01)
