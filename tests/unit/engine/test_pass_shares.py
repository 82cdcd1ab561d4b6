"""What each request of a shared pass has cost."""

import pytest
import torch

from rapid_integrations.engine.pass_shares import PassShares


class Model:
    device = torch.device("cpu")


def test_shares_add_up_to_the_pass():
    shares, model = PassShares(), Model()
    assert shares.split(model, [3], 0.5) == [0.5]
    found = shares.split(model, [2, 6, 1], 0.75)
    assert sum(found) == pytest.approx(0.75) and found[1] > found[0] > found[2] > 0


def test_a_clock_that_has_not_moved():
    assert PassShares().split(Model(), [2, 6], 0.0) == [0.0, 0.0]


def test_what_a_pass_takes_anyway_is_shared_alike():
    # Passes take 60 ms, and 3 ms for each row. So eight requests of two rows each take 108 ms, and six more rows 18 ms.
    shares, model = PassShares(), Model()
    for _ in range(60):
        for rows in (1, 5, 16, 30):
            shares.split(model, [rows], 0.060 + 0.003 * rows)
    plain = shares.split(model, [2] * 8, 0.108)
    assert plain == [pytest.approx(0.108 / 8)] * 8
    drafts = shares.split(model, [8, *[2] * 7], 0.126)
    assert drafts[0] - drafts[1] == pytest.approx(0.018, rel=0.05)
    assert drafts[1] == pytest.approx(plain[1], rel=0.05)


def test_models_are_learnt_apart():
    shares, quick, slow = PassShares(), Model(), Model()
    for rows in (1, 8, 16) * 30:
        shares.split(quick, [rows], 0.010)  # rows cost nothing
        shares.split(slow, [rows], 0.010 * rows)  # nothing but rows costs
    few, many = shares.split(quick, [1, 15], 0.010)
    assert few == pytest.approx(many, rel=0.1)
    few, many = shares.split(slow, [1, 15], 0.160)
    assert many > 10 * few
