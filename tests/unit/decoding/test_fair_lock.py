import signal
import threading
import time
from collections.abc import Callable

import pytest

from rapid_integrations.decoding import fair_lock as turns_module
from rapid_integrations.decoding.fair_lock import FairLock

TIMEOUT = 10.0


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.0005)


def queue_up(turns: FairLock, work: list[Callable[[], None]]) -> list[threading.Thread]:
    """Start a thread for each piece of work, in order; each one waits for its turn before the next one starts."""
    threads = []
    for piece in work:

        def take_a_turn(piece=piece) -> None:
            with turns:
                piece()

        queued = len(turns._waiting)
        threads.append(threading.Thread(target=take_a_turn, daemon=True))
        threads[-1].start()
        wait_until(lambda queued=queued: len(turns._waiting) == queued + 1)
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def is_free(turns: FairLock) -> bool:
    """Whether a turn is to be had at once."""
    taken = threading.Event()

    def take() -> None:
        with turns:
            taken.set()

    threading.Thread(target=take, daemon=True).start()
    return taken.wait(1.0)


def test_first_come_first_served():
    turns, order = FairLock(), []
    with turns:
        threads = queue_up(turns, [lambda i=i: order.append(i) for i in range(8)])
        assert order == []
    join(threads)
    assert order == list(range(8))
    assert is_free(turns)


def test_who_comes_again_queues_behind_those_who_wait():
    turns, order = FairLock(), []
    arrived = threading.Barrier(8)

    def rounds(name: int) -> None:
        arrived.wait(TIMEOUT)
        for _ in range(25):
            with turns:
                order.append(name)
                # Work long enough for everybody else to be back in the queue.
                wait_until(lambda: len(turns._waiting) + finished[0] >= 7)
        finished[0] += 1

    finished = [0]
    threads = [threading.Thread(target=rounds, args=(i,), daemon=True) for i in range(8)]
    for thread in threads:
        thread.start()
    join(threads)
    # Each group of eight turns has every thread once: nobody is overtaken.
    assert len(order) == 200
    assert all(set(order[i : i + 8]) == set(range(8)) for i in range(0, 200, 8))


def test_one_at_a_time():
    turns, inside, most = FairLock(), [0], [0]

    def work() -> None:
        for _ in range(100):
            with turns:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    join(threads)
    assert most == [1] and inside == [0]


def test_an_exception_passes_the_turn_on():
    turns, order = FairLock(), []
    with pytest.raises(ValueError, match="within"), turns:
        threads = queue_up(turns, [lambda: order.append("next")])
        raise ValueError("within a turn")
    join(threads)
    assert order == ["next"] and is_free(turns)


def test_the_same_thread_may_come_back():
    turns = FairLock()
    for _ in range(3):
        with turns:
            pass
    assert is_free(turns)


class Interrupted(BaseException):
    pass


@pytest.fixture
def alarm():
    """Interrupt the main thread after a while, as Ctrl-C would."""

    def interrupt(signum, frame):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_interrupted_waiter_leaves_the_queue(alarm):
    turns, order = FairLock(), []
    release, held = threading.Event(), threading.Event()

    def hold() -> None:
        with turns:
            held.set()
            release.wait(TIMEOUT)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    held.wait(TIMEOUT)
    before = queue_up(turns, [lambda: order.append("before")])
    alarm(0.05)
    with pytest.raises(Interrupted), turns:
        order.append("interrupted")
    assert len(turns._waiting) == 1
    after = queue_up(turns, [lambda: order.append("after")])
    release.set()
    join([holder, *before, *after])
    assert order == ["before", "after"]
    assert is_free(turns)


def test_a_turn_that_came_as_its_waiter_was_interrupted_is_passed_on(monkeypatch):
    class Event(threading.Event):
        def wait(self, timeout=None) -> bool:
            super().wait(timeout)
            if threading.current_thread().name == "unlucky":
                raise Interrupted  # the turn is this thread's already
            return True

    monkeypatch.setattr(turns_module.threading, "Event", Event)
    turns, order = FairLock(), []

    def unlucky() -> None:
        with pytest.raises(Interrupted), turns:
            order.append("unlucky")

    with turns:
        first = threading.Thread(target=unlucky, name="unlucky", daemon=True)
        first.start()
        wait_until(lambda: len(turns._waiting) == 1)
        second = queue_up(turns, [lambda: order.append("second")])
    join([first, *second])
    assert order == ["second"]
    monkeypatch.undo()
    assert is_free(turns)
