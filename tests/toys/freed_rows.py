"""Caches that free rows early, and put something else in their place: whoever still reads them computes nonsense."""

import contextlib

import pytest
import torch

from rapid_integrations.cache import freed_pages, windows

BRANCHES, STEP, SPACING = 12, 4, 64  # tokens


@torch.inference_mode()
def nonsense(rows):
    """Take the place of `freed_pages.free`. The numbers are finite: kernels may read a row whose weight is 0."""
    rows.fill_(77 if rows.dtype == torch.int8 else 1e4)


@contextlib.contextmanager
def rows_freed_early(*, ever=True):
    """Free rows in small texts, or never."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "BRANCHES", BRANCHES)
        patch.setattr(windows, "STEP", STEP)
        patch.setattr(windows, "LEAST_SPACING", SPACING)
        patch.setattr(windows, "SPACING", 2)
        patch.setattr(freed_pages, "free", nonsense)
        patch.setattr(freed_pages, "serves", lambda: ever)
        yield
