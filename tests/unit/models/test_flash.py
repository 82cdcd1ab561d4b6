"""The algebra of attention in parts, with the processor's flash operator in the place of the GPU's."""

import itertools

import pytest
import torch

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.kernels.layers import PLAIN, AttentionKind
from rapid_integrations.models import attention, flash
from rapid_integrations.models.attention import _additive_mask, _folded, attend
from rapid_integrations.models.mask import Sight
from tests.toys.attention_inputs import inputs, reference
from tests.toys.fake_gpu import fake_gpu

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def on_processors(monkeypatch):
    """The processor's operator has neither groups of heads nor windows, and its triangle is aligned upper left."""

    def operator(query, key, value, scale, *, causal, window):
        group, new, total = query.shape[1] // key.shape[1], query.shape[2], key.shape[2]
        mask = None
        if causal:
            seen = Sight(window, None).visible(new, total, query.device)
            mask = torch.zeros(new, total, dtype=query.dtype).masked_fill_(~seen, float("-inf"))
        key, value = (each.repeat_interleave(group, dim=1) for each in (key, value))
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, False, attn_mask=mask, scale=scale
        )

    monkeypatch.setattr(flash, "_operator", operator)


def cut(key, value, *ends):
    bounds = sorted({0, *ends, key.shape[2]})
    return [(key[:, :, a:b], value[:, :, a:b]) for a, b in itertools.pairwise(bounds)]


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("window", [None, 1, 5, 40, 150])
@pytest.mark.parametrize("before", [0, 1, 7, 100, 200])
@pytest.mark.parametrize("new", [1, 2, 9, 17, 64, 65, 90])
def test_it_equals_a_loop_over_queries(new, before, window):
    for kv_heads, group in ((2, 3), (1, 1)):
        query, key, value = inputs(0, kv_heads, group, new, before + new, torch.float32)
        wanted = reference(query, key, value, 0.3, window)
        for ends in ((), (before // 2,), (before // 3, before // 2, before)):
            found = flash.attend(query, cut(key, value, *ends), 0.3, window, PLAIN)
            torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("new", [1, 9, 90])
def test_sinks_and_chunks_are_those_of_the_slow_path(new):
    query, key, value = inputs(1, 2, 3, new, 150 + new, torch.float32)
    sinks = torch.linspace(-2, 3, 6)
    for kind in (AttentionKind(sinks=sinks), AttentionKind(chunk=32)):
        if kind.chunk is not None and new > flash.FEW_QUERIES:
            continue
        wanted = attend(query, [(key, value)], 0.3, None, kind)
        found = flash.attend(query, cut(key, value, 70, 130), 0.3, None, kind)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_a_tree_sees_its_ancestors():
    query, key, value = inputs(2, 2, 2, 3, 103, torch.float32)
    seen = torch.ones(3, 103, dtype=torch.bool)
    seen[:, 100:] = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 1]])
    wanted = _folded(query, [(key, value)], 0.3, Sight(None, None), PLAIN, seen)
    found = flash.attend(query, cut(key, value, 64), 0.3, None, PLAIN, seen)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_dead_rows_behind_the_length_are_not_read():
    query, key, value = inputs(3, 1, 2, 4, 60, torch.float32)
    poisoned = [torch.cat([each, torch.full_like(each, torch.nan)], dim=2)[:, :, :60] for each in (key, value)]
    assert flash.attend(query, [tuple(poisoned)], 0.3, None, PLAIN).isfinite().all()


@pytest.mark.parametrize(
    ("change", "served"),
    [
        ({}, True),
        ({"dtype": torch.float32}, False),
        ({"dtype": torch.float16}, True),
        ({"width": 60}, False),
        ({"width": 320}, False),
        ({"kind": AttentionKind(softcap=50.0)}, False),
        ({"kind": AttentionKind(chunk=32), "new": 9}, True),
        ({"kind": AttentionKind(chunk=32), "new": 300}, False),
        ({"works": False}, False),
    ],
)
def test_what_it_serves(monkeypatch, change, served):
    monkeypatch.setattr(flash, "runs_on", lambda device: change.get("works", True))
    width, new, dtype = change.get("width", 64), change.get("new", 9), change.get("dtype", torch.bfloat16)
    query, key = (torch.zeros(1, heads, rows, width, dtype=dtype) for heads, rows in ((4, new), (2, 400)))
    assert flash.serves(query, [(key, key)], None, change.get("kind", PLAIN), None) is served


def test_a_device_whose_operator_refuses_is_known(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    flash.runs_on.cache_clear()
    monkeypatch.setattr(flash, "_operator", refuse)
    assert not flash.runs_on(CPU)
    flash.runs_on.cache_clear()


@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize("new", [1, 9, 17, 300])
def test_nothing_waits_and_no_devices_mix(monkeypatch, new, window):
    monkeypatch.undo()  # the GPU's operator itself, as far as shapes go
    monkeypatch.setattr(flash, "runs_on", lambda device: True)
    with fake_gpu() as gpu:
        query = torch.empty(1, 8, new, 64, dtype=torch.bfloat16, device=gpu)
        segments = [
            tuple(torch.empty(1, 2, rows, 64, dtype=torch.bfloat16, device=gpu) for _ in "kv") for rows in (256, 400)
        ]
        found = attend(query, segments, 0.1, window)
        assert found.shape == (1, new, 8, 64) and found.device == gpu and found.dtype == torch.bfloat16


def test_a_tree_is_read_by_layers_on_another_gpu_than_its_tokens(monkeypatch):
    """As transformers spreads a model with `device_map`."""
    monkeypatch.setattr(flash, "runs_on", lambda device: True)
    with fake_gpu() as gpu:
        cache = KVCache(1, 60)
        cache.advance(40)
        rows = Rows(torch.empty(3, dtype=torch.int64, device=gpu), cache, 3, parents=(-1, 0, 0))
        for dtype in (torch.bfloat16, torch.float32):
            query, key = (
                torch.empty(1, heads, count, 64, dtype=dtype, device="cuda:1") for heads, count in ((4, 3), (2, 43))
            )
            with attention.tree_read(rows):
                found, _ = attention.rapid_attention(torch.nn.Identity(), query, key, key, None)
            assert found.shape == (1, 3, 4, 64) and found.device == torch.device("cuda", 1)


def test_a_mask_is_no_tensor_of_inference_mode():
    """A model of the caller's own may compute gradients while an engine is open."""
    attention._held_mask.cache_clear()
    with torch.inference_mode():
        mask = _additive_mask(70, 100, Sight(None, None), torch.float32, CPU)
    assert not mask.is_inference()


def test_no_mask_of_a_device_is_held():
    with fake_gpu() as gpu:
        attention._held_mask.cache_clear()
        _additive_mask(70, 100, Sight(None, None), torch.bfloat16, gpu)
    assert attention._held_mask.cache_info().currsize == 0
