"""What a test looks at to see whether something was left behind."""

import gc
import threading
import time


def threads():
    """The names of all threads but tqdm's, which transformers starts with its first progress bar and which stays."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name != "tqdm_monitor")


def settled(measure, expected, seconds=60.0):
    """Return what `measure` gives, once it is as expected or the time is over: a cancelled step ends a little later.

    The time is for a machine that is busy with something else.
    """
    end = time.monotonic() + seconds
    while (found := measure()) != expected and time.monotonic() < end:
        gc.collect()
        time.sleep(0.05)
    return found
