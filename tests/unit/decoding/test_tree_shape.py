import pytest

from rapid_integrations.decoding.draft_length import CostModel, RoundTimes
from rapid_integrations.decoding.tree_shape import AdaptiveShape, FixedShape

COSTS = CostModel(0.0, 0.0, 1.0, 0.1)


def times(rows, verify, score=0.0):
    return RoundTimes(drafted=rows, accepted=rows, propose_s=0.0, score_s=score, verify_s=verify)


def test_a_token_is_proposed_if_it_pays():
    shape = AdaptiveShape(8, COSTS)
    assert shape.choose([]) == 0
    assert shape.choose([0.05]) == 0  # a row costs a tenth
    assert shape.choose([0.9, 0.8, 0.7, 0.01]) == 3
    assert shape.choose([0.99] * 20) == 5  # more than half a pass cannot be lost yet
    shape.observe(times(3, 1.3))
    assert shape.choose([0.99] * 20) == 8


def test_dearer_rows_make_a_smaller_tree():
    chances = [0.9, 0.6, 0.4, 0.3, 0.2, 0.15]
    cheap, dear = AdaptiveShape(8, COSTS), AdaptiveShape(8, COSTS)
    for rows in (0, 4, 8) * 10:
        cheap.observe(times(rows, 1.0 + 0.02 * rows))
        dear.observe(times(rows, 1.0 + 0.3 * rows))
    assert dear.choose(chances) < cheap.choose(chances) == 6


def test_unmeasured_costs_stay():
    shape = AdaptiveShape(8, COSTS, measure=False)
    before = shape.choose([0.9, 0.5, 0.2, 0.11])
    for rows in (0, 4, 8) * 10:
        shape.observe(times(rows, 1.0 + rows))
    assert shape.choose([0.9, 0.5, 0.2, 0.11]) == before


@pytest.mark.parametrize("score", [0.0, 0.5])
def test_the_drafters_pass_counts(score):
    shape = AdaptiveShape(8, CostModel(0.0, score, 1.0, 0.0, score))
    assert shape.choose([0.45]) == (1 if score == 0.0 else 1 if 1.45 / 2 > 1 / 1.5 else 0)
    for rows in (0, 4, 8) * 10:
        shape.observe(times(rows, 1.0, score * rows))
    assert shape.choose([0.3] * 3) == (3 if score == 0.0 else 0)


def test_a_fixed_shape():
    shape = FixedShape(3)
    assert (shape.depth, shape.choose([0.1] * 9), shape.choose([0.1])) == (3, 6, 1)
