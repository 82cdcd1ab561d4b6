"""What a prefill does between its products, against PyTorch in double precision, on both paths of the kernels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import rms_norm, silu

from rapid_integrations.cache import Rows
from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import library, panels, prefill
from rapid_integrations.models import loader
from rapid_integrations.models.attention import attend as served_attention
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.budget import examples
from tests.toys.models import byte_tokenizer
from tests.unit.kernels.cpu.test_decoder import FAMILIES, error, ids, model, pair, read
from tests.unit.models.test_attention import inputs, reference

pytestmark = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")
fast_only = pytest.mark.skipif(
    native.native_library() is None or not native.native_library().rapid_fast_path(),
    reason="this processor's vectors do not know bfloat16",
)


@pytest.fixture(params=["fast", pytest.param("portable", marks=pytest.mark.process)])
def path(request, monkeypatch):
    if request.param == "portable":
        monkeypatch.setattr(library, "_outcome", library._Outcome(request.getfixturevalue("portable")))


def check_attention(new, before, group, kv_heads, window, width, seed=0):
    query, key, value = inputs(seed, kv_heads, group, new, before + new, torch.bfloat16, width, width, spread=2.0)
    assert query.stride(3) == 1
    found = prefill.attend(query, [(key, value)], width**-0.5, window)
    assert found.shape == (1, new, kv_heads * group, width)
    expected = reference(query, key, value, width**-0.5, window)
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.02)


@settings(max_examples=examples(60))
@given(
    new=st.integers(1, 260),
    before=st.integers(0, 300),
    group=st.integers(1, 7),
    kv_heads=st.integers(1, 3),
    window=st.none() | st.integers(1, 400),
    width=st.sampled_from([32, 64, 96, 128, 256]),
    seed=st.integers(0, 2**16),
)
def test_attention_equals_a_loop_over_queries(new, before, group, kv_heads, window, width, seed):
    check_attention(new, before, group, kv_heads, window, width, seed)


@pytest.mark.parametrize("shape", [(1, 0, 1, 1, None, 64), (200, 70, 3, 2, None, 64), (130, 9, 5, 1, 31, 128)])
def test_attention_on_both_paths(path, shape):
    check_attention(*shape)


def test_a_query_gets_the_same_bits_in_whatever_block_it_is():
    query, key, value = inputs(0, 2, 3, 300, 450, torch.bfloat16, 64, 64)
    for window in (None, 90):
        whole = prefill.attend(query, [(key, value)], 0.125, window)
        for start, end in ((0, 1), (1, 70), (70, 300)):
            seen = slice(0, 150 + end)
            part = prefill.attend(query[:, :, start:end], [(key[:, :, seen], value[:, :, seen])], 0.125, window)
            assert torch.equal(part, whole[:, start:end])


@fast_only
def test_windows_and_chunks_do_not_change_bits_either():
    query, key, value = inputs(0, 2, 3, 500, 500, torch.bfloat16, 64, 64)
    whole = served_attention(query, [(key, value)], 0.125, 90)
    for start, end in ((0, 130), (130, 300), (300, 500)):
        part = served_attention(query[:, :, start:end], [(key[:, :, :end], value[:, :, :end])], 0.125, 90)
        assert torch.equal(part, whole[:, start:end])


@pytest.mark.parametrize("window", [None, 90, 300])
def test_segments_do_not_change_bits(path, window):
    query, key, value = inputs(0, 2, 3, 200, 650, torch.bfloat16, 64, 64)
    whole = prefill.attend(query, [(key, value)], 0.125, window)
    for ends in ([64], [64, 128], [448], [192, 512]):
        pieces = [slice(begin, end) for begin, end in zip([0, *ends], [*ends, 650], strict=True)]
        apart = [(key[:, :, piece].contiguous(), value[:, :, piece].contiguous()) for piece in pieces]
        assert torch.equal(prefill.attend(query, apart, 0.125, window), whole)


def test_the_number_of_threads_changes_nothing():
    query, key, value = inputs(0, 2, 3, 300, 450, torch.bfloat16, 64, 64)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(prefill.attend(query, [(key, value)], 0.125, None))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@fast_only
def test_a_gradient_is_left_to_pytorch():
    parts = [part.clone().requires_grad_() for part in inputs(0, 1, 2, 40, 40, torch.bfloat16, 64, 64)]
    assert not prefill.serves_attention(*parts)
    served_attention(parts[0], [parts[1:]], 0.125, None).sum().backward()
    assert all(part.grad is not None for part in parts)
    with torch.no_grad():
        assert prefill.serves_attention(*parts)


def test_scores_too_large_for_their_exponentials():
    query, key, value = inputs(0, 1, 2, 80, 200, torch.bfloat16, 64, 64, spread=400.0)
    found = prefill.attend(query, [(key, value)], 1.0, None)
    torch.testing.assert_close(found.double(), reference(query, key, value, 1.0, None), rtol=0.02, atol=0.02)


@fast_only
def test_what_attention_is_not_served():
    query, key, value = inputs(0, 2, 2, 20, 30, torch.bfloat16, 64, 64)
    assert prefill.serves_attention(query, key, value)
    assert not prefill.serves_attention(query.float(), key.float(), value.float())
    assert not prefill.serves_attention(query[..., :40], key[..., :40], value[..., :40])
    assert not prefill.serves_attention(query, key, value[..., :32])
    assert not prefill.serves_attention(query[..., :32], key, value)
    assert not prefill.serves_attention(query, key.transpose(2, 3).contiguous().transpose(2, 3), value)
    odd = [part[..., ::2] for part in (query, key, value)]
    assert not prefill.serves_attention(*odd)
    expected = reference(*odd, 0.2, None)
    torch.testing.assert_close(served_attention(odd[0], [odd[1:]], 0.2, None).double(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("normed", [False, True])
def test_rotation(path, normed):
    generator = torch.Generator().manual_seed(0)
    new, heads, kv_heads, width = 37, 6, 2, 64
    qkv = torch.randn(new, heads + 2 * kv_heads, width, generator=generator).bfloat16()
    cos, sin = (torch.randn(new, width, generator=generator) for _ in range(2))
    norms = tuple(torch.rand(width, generator=generator).bfloat16() for _ in range(2))
    found = prefill.rotate(qkv, heads, kv_heads, (*norms, 1e-5) if normed else None, cos, sin)
    x = qkv[:, : heads + kv_heads].double()
    if normed:
        parts = zip(x.split([heads, kv_heads], dim=1), norms, strict=True)
        x = torch.cat([rms_norm(part, (width,), weight.double(), 1e-5) for part, weight in parts], dim=1)
    expected = x * cos[:, None] + x.roll(width // 2, -1) * sin[:, None]
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-2)


def test_adding_and_normalising(path):
    generator = torch.Generator().manual_seed(0)
    x, more = (torch.randn(19, 80, generator=generator).bfloat16() for _ in range(2))
    weight = torch.rand(80, generator=generator).bfloat16()
    for added in (None, more):
        summed = x if added is None else x + added
        changed = x.clone()
        found = prefill.add_and_norm(changed, added, weight, 1e-5)
        assert torch.equal(changed, summed)
        expected = rms_norm(summed.double(), (80,), weight.double(), 1e-5)
        torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-3)


def test_gate(path):
    gate_up = 8 * torch.randn(23, 2 * 40, generator=torch.Generator().manual_seed(0)).bfloat16()
    gate_up[0, :4] = torch.tensor([-3e4, -100.0, 100.0, 3e4])
    gate, up = gate_up.double().chunk(2, -1)
    torch.testing.assert_close(prefill.gated(gate_up).double(), silu(gate) * up, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 1), (48, 3), (160, 20)])
def test_weights_of_panels_of_four_bits(path, shape):
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 16, (*shape, 32), dtype=torch.uint8, generator=generator)
    scale, zero = (torch.randn(shape, generator=generator).bfloat16() for _ in range(2))
    made = panels.int4_panels(levels, scale, zero)
    found = panels.weights_of(made)
    expected = (levels.double() - 8) * scale.double()[..., None] + zero.double()[..., None]
    assert torch.equal(found, expected.flatten(1).bfloat16())
    every_second = panels.weights_of(made[:, ::2])
    with native.without_kernels():
        assert torch.equal(found, panels.weights_of(made))
        assert torch.equal(every_second, panels.weights_of(made[:, ::2]))


@pytest.mark.parametrize("shape", [(1, 32), (16, 64), (83, 96)])
def test_levels_of_panels_of_eight_bits(path, shape):
    levels = torch.randint(-127, 128, shape, generator=torch.Generator().manual_seed(0)).to(torch.int8)
    made = panels.int8_panels(levels)
    for _ in range(2):
        found = panels.weights_of(made)
        assert torch.equal(found[: shape[0]], levels.bfloat16()) and not found[shape[0] :].any()
        made = torch.stack([made, made], dim=1)[:, 0]  # no longer contiguous
    with native.without_kernels():
        assert torch.equal(found, panels.weights_of(made))


@fast_only
@pytest.mark.parametrize("kind", sorted(FAMILIES))
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_a_prefill_in_pieces_is_the_models_own(kind, quantization):
    ours, exact = pair(kind, quantization, **FAMILIES[kind])
    text = ids(500)
    expected = exact.forward([Rows(text, exact.new_cache(500), 500)])[0]
    assert error(read(ours, text, 500), expected) < 0.03
    assert error(read(ours, text, 300, 33, 167), expected) < 0.03


@fast_only
def test_models_that_run_their_own_forward_pass_have_the_kernels_attention(monkeypatch):
    calls = []
    own = prefill.attend
    monkeypatch.setattr(prefill, "attend", lambda *given: calls.append(given) or own(*given))
    lm = HuggingFaceLM(model("qwen2"))
    text = ids(200)
    found = lm.forward([Rows(text, lm.new_cache(200), 200)])[0]
    assert calls and lm._fused is None
    expected = HuggingFaceLM(lm.transformers_copy(torch.float32)).forward([Rows(text, lm.new_cache(200), 200)])[0]
    assert error(found, expected) < 0.03


def test_without_memory_it_is_an_error(monkeypatch):
    class Library:
        def rapid_attend(self, call):
            return 1

    query, key, value = inputs(0, 2, 2, 20, 30, torch.bfloat16, 64, 64)
    monkeypatch.setattr(prefill, "loaded_library", Library)
    with pytest.raises(MemoryError, match="attention"):
        prefill.attend(query, [(key, value)], 0.2, None)


def test_loading_a_model_tells_of_compiling(fresh_process, tmp_path):
    folder = tmp_path / "model"
    model().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    stages = []
    loader.load(folder, dtype="bfloat16", on_progress=lambda *stage: stages.append(stage))
    assert stages.count(("compiling kernels", 0, 1)) == 1
