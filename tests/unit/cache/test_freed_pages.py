"""Memory that was given back: the process has less, and the other rows are what they were."""

import psutil
import pytest
import torch

from rapid_integrations.cache import KVCache
from rapid_integrations.cache.arena import Arena
from rapid_integrations.cache.freed_pages import free, serves

pytestmark = pytest.mark.skipif(not serves(), reason="this system takes no pages back")
MIB = 2**20


def resident():
    return psutil.Process().memory_info().rss


@pytest.mark.parametrize("large_pages", [True, False])
def test_the_process_has_less_memory_and_the_other_rows_stay(large_pages):
    rows = Arena(large_pages=large_pages).empty((200_000, 64), torch.float32)  # 49 MiB
    rows.copy_(torch.arange(200_000)[:, None].expand(-1, 64))
    before = resident()
    free(rows[1_001:190_003])
    assert before - resident() > 40 * MIB
    for begin, end in ((0, 1_001), (190_003, 200_000)):
        assert torch.equal(rows[begin:end, 5], torch.arange(begin, end).float())
    assert (rows[5_000:180_000] == 0).all()
    rows[1_001:190_003] = 3.0
    assert (rows[1_001:190_003] == 3).all() and rows[1_000, 0] == 1_000


def test_rows_within_one_page_are_left_alone():
    rows = Arena().empty((64, 8), torch.float32).fill_(2.0)
    free(rows[1:60])
    assert (rows == 2).all()


def test_a_long_text_of_windowed_layers_takes_little():
    cache = KVCache(4, 20_000, windows=(None, 512, 512, 512))
    before = resident()
    piece = torch.ones(1, 4, 1_000, 64)
    most = 0
    for _ in range(20):
        for layer in range(4):
            cache.write(layer, piece, piece)
        cache.advance(1_000, of_prompt=True)
        most = max(most, resident() - before)
    whole = 20_000 * 4 * 4 * 64 * 2 * 4
    assert most < 0.55 * whole and abs(most - cache.nbytes) < 0.15 * whole
