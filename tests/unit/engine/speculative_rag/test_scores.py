"""Scores of texts that follow prompts, against the model's own logits."""

import math
import threading

import pytest

from rapid_integrations import ContextOverflowError
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.engine.speculative_rag.scores import preference_of, probability_of, scores
from rapid_integrations.errors import EngineClosedError
from tests.toys.engines import engine


@pytest.fixture(scope="module")
def own():
    with engine(prefix_cache_bytes=2**24) as own:
        yield own


def log_p(model, prompt, token_ids):
    """Return the log-probabilities behind the prompt and behind each token, from a pass over all of it."""
    reader = Reader(model, [*prompt, *token_ids], len(prompt) + len(token_ids) + 1)
    (logits,) = model.forward((reader.wants((), len(token_ids) + 1),))
    return logits.float().log_softmax(-1)


def test_the_geometric_mean_of_the_tokens_own_probabilities(own):
    prompt, token_ids = own.vocabulary.encode("which words are there?"), own.vocabulary.encode("few")
    rows = log_p(own.target, prompt, token_ids)
    expected = math.exp(sum(float(rows[place, token]) for place, token in enumerate(token_ids)) / len(token_ids))
    found = scores(own, [probability_of(prompt, token_ids), probability_of(prompt, ())])
    assert found == [pytest.approx(expected, rel=1e-4), 0.0]


def test_one_of_two_groups(own):
    prompt = own.vocabulary.encode("yes or no?")
    p = log_p(own.target, prompt, ())[-1].exp()
    (found,) = scores(own, [preference_of(prompt, [1, 2], [3])])
    assert found == pytest.approx(float((p[1] + p[2]) / (p[1] + p[2] + p[3])), rel=1e-4)


def test_all_are_read_together(own, monkeypatch):
    passes, submitted, all_there = [], [], threading.Event()
    forward, compute = own.target.forward, own.compute

    def waiting(rows):
        assert all_there.wait(30)  # a tiny model would otherwise be through with one before the next is there
        passes.append(len(rows))
        return forward(rows)

    def counting(*arguments):
        submitted.append(compute(*arguments))
        if len(submitted) >= 4:
            all_there.set()
        return submitted[-1]

    monkeypatch.setattr(own.target, "forward", waiting)
    monkeypatch.setattr(own, "compute", counting)
    prompt = own.vocabulary.encode("a beginning that all of them share, and which is read once")
    asked = [probability_of(prompt, own.vocabulary.encode(word)) for word in ("one", "two", "three", "four")]
    together = scores(own, asked)
    assert max(passes) > 1
    assert together == pytest.approx([scores(own, [each])[0] for each in asked], rel=1e-4)


def test_a_text_over_the_window_is_refused(own):
    with pytest.raises(ContextOverflowError, match="2,048 tokens"):
        scores(own, [probability_of([1] * 2048, [1])])


def test_an_error_of_the_model_reaches_the_caller(own, monkeypatch):
    def broken(rows):
        raise ArithmeticError("broken")

    monkeypatch.setattr(own.target, "forward", broken)
    with pytest.raises(ArithmeticError, match="broken"):
        scores(own, [probability_of([7, 8, 9], [1]), probability_of([9, 8, 7], [1])])


def test_a_closed_engine():
    closed = engine()
    closed.close()
    with pytest.raises(EngineClosedError):
        scores(closed, [probability_of([1, 2], [3])])
