"""The bootstrap against what is known in closed form."""

import numpy as np
import pytest

from rapid_integrations.evaluation.statistics import MIN_CLUSTERS, Resamples, interval, ratio_estimate


def test_the_spread_of_a_mean_is_the_standard_error():
    values = np.random.default_rng(1).normal(size=200)
    resamples = Resamples.draw([str(n) for n in range(200)], seed=0, resamples=8000)
    means = resamples.means(values)
    assert means.mean() == pytest.approx(values.mean(), abs=0.005)
    assert means.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.05)
    estimate = interval(float(values.mean()), means)
    half = 1.96 * values.std() / np.sqrt(200)
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_pairs_stay_together():
    """What two methods have in common (hard and easy questions) does not widen their difference."""
    rng = np.random.default_rng(2)
    one = rng.normal(size=100) * 10
    other = one + 0.5
    resamples = Resamples.draw([str(n) for n in range(100)])
    assert np.ptp(resamples.means(one)) > 3
    assert np.allclose(resamples.means(other) - resamples.means(one), 0.5)


def test_documents_are_drawn_whole_where_there_are_enough():
    documents = [str(n) for n in range(MIN_CLUSTERS) for _ in range(5)]
    same_within = np.repeat(np.random.default_rng(3).normal(size=MIN_CLUSTERS), 5)
    clustered = Resamples.draw(documents).means(same_within).std()
    single = Resamples.draw([str(n) for n in range(len(documents))]).means(same_within).std()
    assert clustered > 1.8 * single  # five equal answers tell as much as one: sqrt(5) wider
    few = Resamples.draw(["a"] * 6)
    assert few.counts.shape[1] == 6  # one document: its questions are drawn, the interval is not of width 0


def test_a_seed_repeats_it():
    documents = [str(n) for n in range(20)]
    one, two, three = (Resamples.draw(documents, seed=seed).means(range(20)) for seed in (1, 1, 2))
    assert (one == two).all() and (one != three).any()


def test_a_ratio_of_rates():
    resamples = Resamples.draw(["a", "b", "c"])
    above, below = ([10.0, 20.0, 30.0], [1.0, 2.0, 3.0]), ([10.0, 20.0, 30.0], [2.0, 4.0, 6.0])
    estimate = ratio_estimate(above, below, resamples)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2.0, 2.0, 2.0))


def test_no_finite_resample():
    assert interval(0.5, np.array([np.nan, np.inf])).low == 0.5
