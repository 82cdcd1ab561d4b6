"""The proposer that chooses by measured output per second."""

import pytest

from rapid_integrations.decoding.draft_length import RoundTimes
from rapid_integrations.decoding.proposal import NoProposer, Proposal, Proposer
from rapid_integrations.proposers.adaptive import FIRST_ROUNDS, PROBE_EVERY, AdaptiveProposer


class Copying(Proposer):
    def __init__(self, source, tokens=4):
        self.source, self.tokens, self.committed, self.seen = source, tokens, [], []

    def propose(self, limit, rng):
        return Proposal((1,) * min(limit, self.tokens), source=self.source)

    def observe(self, times):
        self.seen.append(times)

    def commit(self, token_ids):
        self.committed += token_ids


def rounds(proposer, number, play):
    """Return the sources of so many rounds; `play` gives accepted tokens and seconds for a source."""
    found = []
    for _ in range(number):
        proposal = proposer.propose(8, None)
        accepted, seconds = play(proposal.source)
        proposer.commit((1,) * (accepted + 1))
        proposer.observe(RoundTimes(len(proposal.token_ids), accepted, 0.0, 0.0, seconds))
        found.append(proposal.source)
    return found


def chooser(*others, measure=True):
    return AdaptiveProposer(NoProposer(), others, measure=measure)


@pytest.mark.parametrize("fast", ["a", "b"])
def test_the_fastest_kind_is_proposed(fast):
    found = rounds(chooser(Copying("a"), Copying("b")), 100, lambda source: (3 if source == fast else 0, 1.0))
    after = found[3 * FIRST_ROUNDS :]
    assert after.count(fast) >= len(after) - 100 // PROBE_EVERY


def test_drafts_that_do_not_pay_are_given_up():
    # A draft gives two tokens for three times the time.
    found = rounds(chooser(Copying("a"), Copying("b")), 200, lambda source: (1, 3.0) if source else (0, 1.0))
    assert len(found) - found.count("") <= 2 * FIRST_ROUNDS + 200 // PROBE_EVERY


def test_a_kind_that_begins_to_pay_is_noticed():
    proposer, played = chooser(Copying("a")), {"a": (0, 2.0), "": (0, 1.0)}
    assert rounds(proposer, 60, played.__getitem__).count("a") < 8
    played["a"] = (4, 1.0)
    assert rounds(proposer, 200, played.__getitem__)[-50:].count("a") > 40


def test_without_a_clock_the_choice_depends_on_tokens_only():
    seconds = iter(range(1, 1000))
    first = rounds(chooser(Copying("a"), Copying("b"), measure=False), 80, lambda s: (2 * (s == "b"), next(seconds)))
    again = rounds(chooser(Copying("a"), Copying("b"), measure=False), 80, lambda s: (2 * (s == "b"), 1.0))
    assert first == again and first.count("b") > 60


def test_what_finds_nothing_counts_as_plain_and_all_kinds_follow_the_text():
    empty, full = Copying("a", tokens=0), Copying("b")
    rounds(chooser(empty, full), 50, lambda source: (3 if source == "b" else 0, 1.0))
    assert empty.committed == full.committed and len(full.committed) > 150
    assert all(times.drafted == 0 for times in empty.seen) and any(times.drafted for times in full.seen)
