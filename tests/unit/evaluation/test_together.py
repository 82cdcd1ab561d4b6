"""Questions that are asked at once end together, whatever happens to one of them."""

import threading
from concurrent.futures import CancelledError

import pytest

from rapid_integrations import RapidEngine, SamplingParams
from rapid_integrations.evaluation.together import Together
from tests.toys.models import byte_tokenizer, tiny_model


@pytest.fixture
def engine():
    with RapidEngine.from_models(tiny_model("llama", 0), byte_tokenizer()) as engine:
        yield engine


def test_results_are_taken_in_the_order_of_the_questions():
    later, taken = threading.Event(), []

    def first():
        assert later.wait(30)  # it ends after the second one has
        return 1

    Together().run([first, lambda: later.set() or 2], taken.append)
    assert taken == [1, 2]


def test_an_error_is_raised_after_the_others_have_been_taken():
    failed, taken = threading.Event(), []

    def fail():
        failed.set()
        raise ValueError("the first")

    def wait():
        assert failed.wait(30)
        return 1

    with pytest.raises(ValueError, match="the first"):
        Together().run([fail, wait, fail], taken.append)
    assert taken == [1]


def test_an_interruption_stops_the_others_and_keeps_what_has_ended(engine):
    together, quick_ended, taken, stopped = Together(), threading.Event(), [], []

    def interrupted():
        assert quick_ended.wait(30) and _until(lambda: engine.running_requests)
        raise KeyboardInterrupt

    def long():
        try:
            sampling = SamplingParams(max_new_tokens=1900, temperature=2.0, seed=1)
            together.generate(engine, "a long answer", sampling=sampling, apply_chat_template=False)
        except CancelledError:
            stopped.append(True)
            raise

    def quick():
        answer = together.generate(engine, "a short one", sampling=SamplingParams(max_new_tokens=2))
        quick_ended.set()
        return answer

    with pytest.raises(KeyboardInterrupt):
        together.run([interrupted, long, quick], taken.append)
    assert stopped == [True] and [answer.usage.completion_tokens for answer in taken] == [2]
    assert not engine.running_requests and not engine.waiting_requests
    with pytest.raises(CancelledError):
        together.generate(engine, "another one")


def _until(holds):
    """Wait until something holds. Return whether it does."""
    pause = threading.Event()
    return any(holds() or pause.wait(0.01) for _ in range(3000))
