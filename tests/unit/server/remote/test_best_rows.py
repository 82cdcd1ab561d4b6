"""Rows that are cut to their best tokens."""

import math

import pytest
import torch

from rapid_integrations.sampling import Law
from rapid_integrations.server.remote.best_rows import cut, outside, packed, row_of, unpacked
from rapid_integrations.server.remote.frames import pack, unpack

ROWS = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 3


@pytest.mark.parametrize("best", [0, 1, 20, 50, 90])
def test_they_arrive_with_every_bit(best):
    found = unpacked(unpack(pack({}, packed(list(ROWS), best)))[1], 50)
    for row, whole in zip(found, ROWS, strict=True):
        assert torch.equal(row, cut(whole, best))
    assert int(found[0].isfinite().sum()) == (best if 0 < best < 50 else 50)


def test_the_distance_to_the_whole_is_what_was_left_out():
    for row in ROWS:
        q, r = torch.softmax(row.double(), -1), torch.softmax(cut(row, 20).double(), -1)
        total_variation = 0.5 * float((q - r).abs().sum())
        assert math.isclose(outside(row, 20), total_variation, abs_tol=1e-5)
    assert outside(ROWS[0], 0) == outside(ROWS[0], 50) == 0.0


def test_log_probabilities_are_as_good_as_logits():
    law = Law("augmented", temperature=0.7, eta=5.0)
    z, row = ROWS[0], cut(ROWS[1], 20)
    torch.testing.assert_close(law.form(z, row), law.form(z, torch.log_softmax(ROWS[1], -1).where(row.isfinite(), row)))


@pytest.mark.parametrize(("ids", "logits"), [([50], [0.0]), ([-1], [0.0]), ([], []), ([1, 2], [0.0])])
def test_what_is_no_row(ids, logits):
    with pytest.raises(ValueError, match="vocabulary"):
        row_of(ids, logits, 50)


def test_rows_of_another_width():
    with pytest.raises(ValueError, match="not"):
        unpacked(unpack(pack({}, packed(list(ROWS), 0)))[1], 49)
