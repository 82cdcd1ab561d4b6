"""Whether work grows as its input does, told from the processor's time for two sizes: no machine is too slow."""

import time

TIMES = 8  # the larger input is so many times the smaller


def seconds(call, *arguments):
    """Return the processor's seconds of a call; those of other processes do not count."""
    begin = time.process_time()
    call(*arguments)
    return time.process_time() - begin


def assert_linear(call, made, size):
    """Assert that `call` takes time proportional to its input.

    Args:
        call: takes an input.
        made: makes an input of a size.
        size: the larger one. It may cost three times what the smaller one leads to expect; quadratic work costs eight
            times that. A second and a third attempt are for a machine that was busy with something else.
    """
    small, large = made(size // TIMES), made(size)
    for _ in range(3):
        base = min(seconds(call, small) for _ in range(3))
        took = seconds(call, large)
        if took < 3 * TIMES * max(base, 0.002):
            return
    raise AssertionError(f"{TIMES} times the input took {took / base:.0f} times as long ({base:.3f} s, {took:.3f} s)")
