"""Whether a request leaves the event loop free, without a clock: its forward passes wait for the loop."""

import asyncio
import threading

SECONDS = 60  # after which a loop that does not turn is said to be held; never waited for if all is well


async def answered_while_the_loop_turns(asked, engine):
    """Await `asked`, a request to `engine` of which every forward pass and every retrieval waits for the event loop.

    Each schedules a callback on the loop and waits until it has run. A request that holds the loop therefore waits for
    itself, which is an AssertionError after `SECONDS`.

    Returns:
        What `asked` gives.
    """
    loop = asyncio.get_running_loop()
    waited = []

    def behind_the_loop(name, method):
        def waiting(*arguments, **options):
            turned = threading.Event()
            loop.call_soon_threadsafe(turned.set)
            assert turned.wait(SECONDS), f"the event loop was held while {name} waited for it"
            waited.append(name)
            return method(*arguments, **options)

        return waiting

    parts = ((engine.target, "forward"), (engine.compressor, "compress"))
    for part, name in parts:
        setattr(part, name, behind_the_loop(name, getattr(part, name)))
    try:
        answer = await asked
    finally:
        for part, name in parts:
            delattr(part, name)
    assert waited.count("forward") > 2
    return answer
