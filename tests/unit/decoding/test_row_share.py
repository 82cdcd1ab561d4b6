import pytest

from rapid_integrations.decoding.draft_length import CostModel, LinearCost, RoundTimes
from rapid_integrations.decoding.draft_lengths import DraftLengths
from rapid_integrations.decoding.row_share import RowShare, RowShares
from rapid_integrations.decoding.tree_shape import AdaptiveShape


def test_it_begins_as_the_guess_and_becomes_what_was_measured():
    share = RowShare(0.4)
    assert share.value == pytest.approx(0.4)
    for _ in range(50):
        share.learn(2, 0.25)
    assert share.value == pytest.approx(0.125, abs=0.03)


def test_longer_drafts_say_more():
    short, long = RowShare(0.4), RowShare(0.4)
    short.learn(1, 0.1)
    long.learn(6, 0.6)
    assert long.value < short.value < 0.4


def test_a_spike_of_a_busy_machine_counts_as_a_pass_for_each_token():
    share = RowShare(0.1)
    share.learn(2, 40.0)
    assert share.value == pytest.approx(0.55, abs=0.01)
    share.learn(2, -5.0)  # nor is a token ever worth time
    assert share.value > 0


def test_each_way_has_its_own():
    shares = RowShares()
    copies = shares.of("copies", 0.4, 1.0)
    copies.learn(8, 0.8)
    assert shares.of("copies", 0.4, 1.0) is copies
    assert shares.of("drafts", 0.4, 2.0).value == pytest.approx(0.2)
    assert shares.of("nothing to score", 0.0, 0.0).value == 0.0


def test_a_later_request_begins_with_what_an_earlier_one_has_measured():
    """Rows are three times as cheap as was guessed, and drafts of two tokens are rare."""
    share = RowShare(0.4)
    first = LinearCost(1.0, 0.4, share)
    for length in (0, 0, 0, 0, 2) * 12:
        first.observe(length, 0.060 * (1 + 0.125 * length))
    alone = LinearCost(1.0, 0.4)
    for length in (0, 0, 0, 0, 2) * 12:
        alone.observe(length, 0.060 * (1 + 0.125 * length))
    assert alone(2) / alone(0) > 1.4  # the guess weighs more than what so few tokens say
    later = LinearCost(1.0, 0.4, share)
    later.observe(0, 0.100)
    assert later(2) / later(0) == pytest.approx(1.25, abs=0.05)


def test_without_a_round_without_a_draft_nothing_is_learnt():
    share = RowShare(0.4)
    cost = LinearCost(1.0, 0.4, share)
    for _ in range(20):
        cost.observe(4, 0.060)
    assert share.value == pytest.approx(0.4)


def test_a_tree_is_proposed_once_rows_are_known_to_be_cheap():
    shares = RowShares()
    costs = CostModel(0.0, 0.0, 1.0, 0.4)

    def shape():
        return AdaptiveShape(8, costs, shares=(shares.of("trees", 0.4, 1.0), None))

    assert shape().choose([0.3, 0.2]) == 0
    earlier = shape()
    for length in (0, 3) * 20:
        earlier.observe(RoundTimes(length, 0, 0.0, 0.0, 0.060 * (1 + 0.1 * length)))
    assert shape().choose([0.3, 0.2]) == 2


@pytest.mark.parametrize("measure", [True, False])
def test_a_seeded_sample_uses_nothing_that_a_clock_has_told(measure):
    shares = RowShares()

    def lengths():
        return DraftLengths.adaptive(
            8,
            verify=1.0,
            score=0.0,
            write=0.5,
            scores_own_drafts=False,
            together=True,
            measure=measure,
            row_share=0.2,
            shares=shares,
        )

    before = lengths().of_trees().choose([0.3, 0.2])
    lengths().of_trees()
    for way in ("copies", "drafts", "trees", "writer"):
        shares.of((way, 0, True), 0.4, 1.0).learn(8, 0.1)
    assert before == 0
    assert lengths().of_trees().choose([0.3, 0.2]) == (2 if measure else 0)
