"""What a cache holds of a decoder's layers: shared keys, states, indexers and windows have their places and bytes."""

import pytest
import torch

from rapid_integrations.cache import Rows, freed_pages
from rapid_integrations.models.fused_decoder import FusedDecoder
from tests.toys.every_family import tiny

# Of each layer the keys and values that it reads, and where the keys of its indexer lie.
SLOTS = {
    "gemma3n_text": ([0, 1, 2, 1, 2], [None] * 5),  # the last two layers read the keys of others
    "qwen3_next": ([None, 0, None], [None] * 3),  # two of three layers are recurrent
    "glm_moe_dsa": ([0, 1, 2, 3], [4, None, 5, None]),  # two layers take the choice of those before them
}


@pytest.fixture(scope="module")
def decoders():
    return {family: FusedDecoder(tiny(family)) for family in SLOTS}


@pytest.mark.parametrize("family", SLOTS)
def test_each_layer_reads_its_own_rows_or_those_it_shares(decoders, family):
    layout = decoders[family]._layout
    assert (layout.slots, layout.index_slots) == SLOTS[family]
    assert (layout.state is not None) == (family == "qwen3_next")


@pytest.mark.parametrize("family", SLOTS)
def test_its_bytes_are_those_of_a_cache(decoders, family):
    fused = decoders[family]
    cache = fused.new_cache(64)
    fused.forward([Rows(torch.arange(7), cache, 1)])
    assert cache.layers == len({each for part in SLOTS[family] for each in part} - {None})
    assert cache.bytes_per_token == fused.kv_bytes_per_token > 0


@pytest.mark.skipif(not freed_pages.serves(), reason="this system gives no pages back")
def test_rows_are_seen_through_the_widest_window_of_those_that_read_them(decoders):
    layout = decoders["gemma3n_text"]._layout
    assert layout.windows == [20, 20, None, 20, None] and layout.kept_windows == (20, 20, None)
    window, nbytes = layout.windowed
    assert window == 20 and nbytes * 3 == 2 * layout.bytes_per_token
    assert decoders["glm_moe_dsa"]._layout.kept_windows == (None,) * 6


def test_a_part_has_the_rows_of_its_own_layers():
    whole = FusedDecoder(tiny("llama"))
    part = whole.part([2])
    assert part._layout.slots == [0] and 3 * part.kv_bytes_per_token == whole.kv_bytes_per_token
