"""Computations that ask for passes, and two of them side by side."""

import pytest
import torch

from rapid_integrations.cache import Rows
from rapid_integrations.decoding.passes import Wanted, run_alone, side_by_side
from rapid_integrations.proposers.suite.table_model import TableLM


class Joining(TableLM):
    prompts_together = True


@pytest.fixture
def lm():
    return Joining(0)


def piece(lm, count, **more):
    return Wanted(
        lm, (Rows(torch.ones(count, dtype=torch.int64), lm.new_cache(500), **{"keep": 0, "of_prompt": True, **more}),)
    )


def computation(name, wishes, noted):
    for wish in wishes:
        noted.append((name, (yield wish)))


def passes_of(first, second, most=10):
    """Return the rows of each pass, and what the two computations were sent, each in turn."""
    noted, passes = [], []
    steps = side_by_side(computation("first", first, noted), computation("second", second, noted), most)
    try:
        wish = next(steps)
        while True:
            passes.append(None if wish is None else [rows.count for rows in wish.rows])
            sent = [] if wish is None else [f"{rows.count} rows" for rows in wish.rows]
            wish = steps.send(sent)
    except StopIteration:
        return passes, noted


def test_pieces_share_a_pass_if_they_fit(lm):
    passes, noted = passes_of([piece(lm, 10), piece(lm, 3)], [piece(lm, 7), piece(lm, 6)])
    assert passes == [[10], [3, 7], [6]]
    assert noted == [("first", ["10 rows"]), ("first", ["3 rows"]), ("second", ["7 rows"]), ("second", ["6 rows"])]


def test_pieces_that_do_not_fit_are_read_one_after_another(lm):
    assert passes_of([piece(lm, 5)], [piece(lm, 6)])[0] == [[5], [6]]


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(lambda lm: piece(Joining(1), 2), id="another model"),
        pytest.param(lambda lm: piece(lm, 2, of_prompt=False), id="no prompt"),
        pytest.param(lambda lm: piece(lm, 2, keep=1), id="logits are wanted"),
        pytest.param(lambda lm: None, id="waits for another request"),
    ],
)
def test_what_is_no_piece_of_a_prompt_of_the_model_has_a_pass_of_its_own(lm, second):
    wish = second(lm)
    assert passes_of([piece(lm, 2), piece(lm, 2)], [wish])[0] == [[2], [2], wish and [2]]


def test_a_model_whose_bits_depend_on_company_reads_alone():
    lm = TableLM(0)
    assert passes_of([piece(lm, 2)], [piece(lm, 2)])[0] == [[2], [2]]


def test_one_of_them_may_have_nothing_to_read(lm):
    assert passes_of([], [piece(lm, 2)])[0] == [[2]]
    assert passes_of([piece(lm, 2)], [])[0] == [[2]]
    assert passes_of([], []) == ([], [])


def test_an_error_of_a_pass_ends_both(lm):
    noted = []
    steps = side_by_side(computation("first", [piece(lm, 2)], noted), computation("second", [piece(lm, 2)], noted), 10)
    next(steps)
    with pytest.raises(ValueError, match="of the pass"):
        steps.throw(ValueError("of the pass"))
    assert noted == []


def test_alone_each_wish_is_a_pass(lm):
    cache = lm.new_cache(10)

    def steps():
        yield None
        logits = yield Wanted(lm, (Rows(torch.tensor([1, 2]), cache, 1),))
        return logits[0].shape

    assert run_alone(steps()) == (1, lm.vocab_size) and cache.length == 2
