"""Chunk KV in place: the drafter reads rows of the target's cache where they lie."""

import pytest
import torch

from rapid_integrations import ConfigurationError, SpeculationConfig
from rapid_integrations.cache import TILE, Rows, distinct_bytes
from rapid_integrations.cache.chunk_view import ChunkView
from rapid_integrations.decoding.chunk_view import choose
from rapid_integrations.decoding.moved_rows import Run
from rapid_integrations.errors import CacheError
from tests.toys.errors import coded
from tests.toys.models import words
from tests.toys.prefix_requests import DOCUMENT, about, engine

VIEWED = SpeculationConfig(law="augmented", chunk_cache="view")
LOGITS_TOLERANCE = 1e-4  # float32; rows are summed in another order


def read_rows(model, capacity, count):
    ids = torch.tensor(list(words(3, 200).encode())[:count])
    cache = model.new_cache(capacity)
    model.forward([Rows(ids, cache, 0, of_prompt=True)])
    return ids, cache


def test_rows_are_chosen_in_whole_tiles_and_in_the_order_of_the_document():
    target = list(range(1000, 2000))
    drafter = [*target[:10], *target[700:780], *target[300:340], *target[980:]]
    chosen = choose(drafter, target, [Run(0, 0, 10), Run(10, 700, 80), Run(90, 300, 40), Run(130, 980, 20)], 20)
    assert chosen.runs == ((0, 64), (256, 384), (640, 832))
    seen = [token for begin, end in chosen.runs for token in target[begin:end]]
    assert chosen.seen == len(seen) and chosen.token_ids == [*seen, *target[980:]]


def test_a_chunk_before_the_question_is_read_to_its_end():
    target = list(range(1000, 2000))
    drafter = [*target[:10], *target[900:]]
    chosen = choose(drafter, target, [Run(0, 0, 10), Run(10, 900, 100)], 20)
    assert chosen.runs == ((0, 64), (896, 960)) and chosen.token_ids[chosen.seen :] == target[960:]


def test_a_view_of_everything_is_the_text_itself():
    with engine("qwen3") as built:
        ids, base = read_rows(built.target, 400, 200)
        view = ChunkView(base, [(0, 2 * TILE), (2 * TILE, 3 * TILE)], 300)
        assert view.position == view.length == 3 * TILE
        further = ids[3 * TILE :]
        (found,) = built.target.forward([Rows(further, view, len(further))])
        plain = built.target.new_cache(400)
        (wanted,) = built.target.forward([Rows(ids, plain, len(further))])
        torch.testing.assert_close(found, wanted, rtol=0, atol=LOGITS_TOLERANCE)


def test_a_view_with_a_gap_sees_the_other_rows_at_their_positions():
    with engine("qwen3") as built:
        model = built.target
        _, base = read_rows(model, 600, 400)
        view = ChunkView(base, [(0, TILE), (3 * TILE, 5 * TILE)], 300)
        assert (view.length, view.position) == (3 * TILE, 5 * TILE)
        for layer in range(base.layers):
            keys, values = view.layer(layer)
            wanted = torch.cat([base.rows(layer, 0, TILE)[0], base.rows(layer, 3 * TILE, 5 * TILE)[0]], dim=2)
            assert torch.equal(keys, wanted) and values.shape == keys.shape
        assert distinct_bytes([base, view]) == base.nbytes + view.nbytes
        alone = model.forward([Rows(torch.tensor([5, 6, 7]), view, 3)])[0]
        view.rollback(3 * TILE)
        before = base.length
        both = model.forward([Rows(torch.tensor([9]), base, 1), Rows(torch.tensor([5, 6, 7]), view, 3)])
        torch.testing.assert_close(both[1], alone, rtol=0, atol=LOGITS_TOLERANCE)
        assert base.length == before + 1
        with pytest.raises(CacheError):
            base.rollback(TILE)  # the view has these rows, too


@pytest.mark.parametrize("runs", [[(0, 63)], [(0, 8 * TILE)]])
def test_views_that_cannot_be_made_are_refused(runs):
    with engine("qwen3") as built:
        _, base = read_rows(built.target, 400, 200)
        with pytest.raises(CacheError, check=coded("cache.view")):
            ChunkView(base, runs, 600)


def test_answers_do_not_depend_on_earlier_requests():
    prompt = about(DOCUMENT, "which words?")
    with engine("qwen3") as shared, engine("qwen3", prefix_cache_bytes=0) as without:
        wanted = without.generate(prompt, speculation=VIEWED)
        assert wanted.stats.chunk_cache == "view" and wanted.stats.cached_drafter_tokens >= TILE
        shared.generate(about(DOCUMENT, "why?"))
        for _ in range(2):
            assert shared.generate(prompt, speculation=VIEWED).token_ids == wanted.token_ids


def test_the_target_s_law_is_the_same_and_rows_are_held_once():
    prompt = about(DOCUMENT, "which words?")
    with engine("qwen3", prefix_cache_bytes=0) as built:
        asked = SpeculationConfig(law="target", proposer="drafter")
        found = {
            way: built.generate(prompt, speculation=asked.model_copy(update={"chunk_cache": way}))
            for way in ("off", "view")
        }
        assert found["off"].token_ids == found["view"].token_ids
        assert found["view"].stats.cache_bytes < found["off"].stats.cache_bytes


@pytest.mark.parametrize(("kind", "drafter"), [("llama", "qwen2"), ("gemma3", None)])
def test_models_whose_rows_cannot_be_read_in_place_are_refused(kind, drafter):
    refused = pytest.raises(ConfigurationError, check=coded("configuration.other_rows"))
    with engine(kind, drafter) as built, refused:
        built.generate(about(DOCUMENT, "which?"), speculation=VIEWED)
