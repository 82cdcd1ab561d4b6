"""What a prefill does between its products, against PyTorch in double precision, on both paths of the kernels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.cache import Rows
from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import library, panels, prefill
from rapid_integrations.kernels.layers import ACTIVATIONS, AttentionKind, Norm, Rope, Xielu
from rapid_integrations.models import alternating, loader
from rapid_integrations.models.activation import activate
from rapid_integrations.models.attention import attend as served_attention
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.attention_inputs import inputs, reference
from tests.toys.budget import examples
from tests.toys.decoders import FAMILIES, error, ids, model, pair, read
from tests.toys.models import byte_tokenizer

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
    width=st.sampled_from([32, 64, 96, 128, 160, 192, 224, 256]),
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
    assert found.isfinite().all()
    scores = query.double() @ key.double().transpose(2, 3)
    scores = scores.masked_fill(~torch.ones(80, 200, dtype=torch.bool).tril(120), -torch.inf)
    best, next_best = scores.topk(2).values.unbind(-1)
    clear = (best - next_best > 1e-4 * query.double().norm(dim=-1) * 8)[0].T  # what is rounded off decides over others
    assert clear.float().mean() > 0.95
    expected = reference(query, key, value, 1.0, None)
    torch.testing.assert_close(found.double()[0, clear], expected[0, clear], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("width", [32, 64, 96, 128, 160, 192, 224, 256, 512])
def test_little_is_rounded_off(width):
    """About as much as the results are rounded to bfloat16, whatever numbers the processor multiplies."""
    query, key, value = inputs(0, 2, 3, 100, 400, torch.bfloat16, width, width, spread=3.0)
    key[:, :, :, 0] *= 40  # as some models' keys have: a few dimensions are far larger than others
    value[:, :, ::7] *= 30
    found = prefill.attend(query, [(key, value)], width**-0.5, None).double()
    expected = reference(query, key, value, width**-0.5, None)
    assert (found - expected).norm() < 4e-3 * expected.norm()


# A key that is infinite may have a weight of 0.
@pytest.mark.parametrize(
    ("place", "wrong"), [("query", torch.nan), ("query", torch.inf), ("key", torch.nan), ("value", torch.nan)]
)
def test_what_is_no_number_is_met_by_those_that_see_it(path, place, wrong):
    parts = inputs(0, 1, 2, 150, 150, torch.bfloat16, 64, 64)
    before = prefill.attend(parts[0], [parts[1:]], 0.125, None)
    parts[["query", "key", "value"].index(place)][0, 0, 70, 5] = wrong
    found = prefill.attend(parts[0], [parts[1:]], 0.125, None)
    assert torch.equal(found[:, :70], before[:, :70])
    if place == "query":
        assert not found[0, 70, 0].isfinite().any()
        found[0, 70, 0] = before[0, 70, 0]
        assert torch.equal(found, before)
    else:
        met = found[0, 70:] if place == "key" else found[0, 70:, :, 5]
        assert not met.isfinite().any()


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


ROPES = [
    Rope(3, 32),
    Rope(0, 12),
    Rope(5, 32, interleaved=True),
    Rope(0, 20, interleaved=True, norm_behind=True),
    Rope(),
]


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("normed", ["no", "every head", "own head", "all heads", "centred"])
def test_rotation(path, normed, rope):
    generator = torch.Generator().manual_seed(0)
    new, heads, kv_heads, width = 37, 6, 2, 64
    qkv = torch.randn(new, heads + 2 * kv_heads, width, generator=generator).bfloat16()
    cos, sin = (torch.randn(new, 40, generator=generator) for _ in range(2))
    if normed == "all heads" and rope.norm_behind:
        pytest.skip("no family normalises all heads behind their rotation")
    norms = [None, None]
    if normed != "no":
        scope = "own head" if normed == "centred" else normed
        shapes = {"every head": (width,), "all heads": None}
        for index, count in enumerate((heads, kv_heads)):
            shape = shapes.get(scope, (count, width)) or (count * width,)
            weight = torch.rand(shape, generator=generator).bfloat16()
            bias = torch.rand(shape, generator=generator).bfloat16() if normed == "centred" else None
            norms[index] = Norm(weight, 1e-5, bias, centred=normed == "centred", offset=0.5, scope=scope)
    found = prefill.rotate(qkv, heads, kv_heads, tuple(norms), rope, cos, sin)

    def normalise(x, norm):
        if norm is None:
            return x
        flat = x.flatten(1) if norm.scope == "all heads" else x
        if norm.centred:
            flat = flat - flat.mean(-1, keepdim=True)
        flat = flat / (flat.square().mean(-1, keepdim=True) + norm.eps).sqrt() * (norm.weight.double() + norm.offset)
        return (flat if norm.bias is None else flat + norm.bias.double()).view(x.shape)

    def rotate(x):
        x, pairs = x.clone(), rope.pairs
        c, s = (table[:, None, rope.first : rope.first + pairs].double() for table in (cos, sin))
        step = 2 if rope.interleaved else 1
        first = slice(0, step * pairs, step)
        second = slice(1, 2 * pairs, 2) if rope.interleaved else slice(pairs, 2 * pairs)
        a, b = x[..., first].clone(), x[..., second].clone()
        x[..., first], x[..., second] = a * c - b * s, b * c + a * s
        return x

    parts = qkv[:, : heads + kv_heads].double().split([heads, kv_heads], dim=1)
    order = (lambda x, norm: normalise(rotate(x), norm)) if rope.norm_behind else lambda x, n: rotate(normalise(x, n))
    expected = torch.cat([order(part, norm) for part, norm in zip(parts, norms, strict=True)], dim=1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("norm", ["none", "rms", "plus one", "layer", "bare"])
def test_adding_and_normalising(path, norm):
    generator = torch.Generator().manual_seed(0)
    x, more = (torch.randn(19, 83, generator=generator).bfloat16() for _ in range(2))
    weight, bias = (torch.rand(83, generator=generator).bfloat16() for _ in range(2))
    described = {
        "none": None,
        "rms": Norm(weight, 1e-5),
        "plus one": Norm(weight, 1e-5, offset=1.0),
        "layer": Norm(weight, 1e-5, bias, centred=True),
        "bare": Norm(None, 1e-5, centred=True),
    }[norm]
    for added, factor in ((None, 1.0), (more, 1.0), (more, 0.22)):
        summed = x if added is None else x + (added * factor).bfloat16()
        changed = x.clone()
        found = prefill.add_and_norm(changed, added, described, factor)
        assert torch.equal(changed, summed)
        expected = summed.double()
        if described is not None:
            if described.centred:
                expected = expected - expected.mean(-1, keepdim=True)
            expected = expected / (expected.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        if described is not None and described.weight is not None:
            expected = expected * (weight.double() + described.offset)
        if norm == "layer":
            expected = expected + bias.double()
        torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("gated", [False, True])
def test_activations(path, activation, gated):
    gate_up = 8 * torch.randn(23, 2 * 300, generator=torch.Generator().manual_seed(0)).bfloat16()
    gate_up[0, :4] = torch.tensor([-3e4, -100.0, 100.0, 3e4])
    if activation == "clipped_swiglu" and not gated:
        pytest.skip("it always has a gate")
    xielu = Xielu(0.9, 1.3, 0.5, -1e-6) if activation == "xielu" else None
    expected = activate(gate_up.double(), activation, gated, xielu)
    found = prefill.activated(gate_up, activation, gated, xielu=xielu)
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=2e-5)


@pytest.mark.parametrize("columns", [32, 7])  # with vectors, and without
def test_an_activation_with_learned_factors_is_as_published(path, columns):
    """Far from 0, around it and around the bound of its exponential (arXiv 2411.13010)."""
    x = torch.tensor([-300.0, -20.0, -1.0, -1e-2, -1e-3, -0.0, 1e-3, 0.5, 3.0, 200.0]).bfloat16()
    rows = x[:, None].repeat(1, columns)
    found = prefill.activated(rows, "xielu", False, xielu=Xielu(0.8, 1.25, 0.5, -1e-6)).double()
    wide = rows.double()
    expected = torch.where(wide > 0, 0.8 * wide**2, 1.25 * (torch.expm1(wide.clamp(max=-1e-6)) - wide)) + 0.5 * wide
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=1e-6)


@pytest.mark.parametrize("sparsity", [0.5, 0.95])
def test_gates_of_which_a_share_becomes_0(path, sparsity):
    gate_up = 3 * torch.randn(23, 2 * 300, generator=torch.Generator().manual_seed(0)).bfloat16() + 1
    quantile = alternating.quantile(sparsity, torch.bfloat16)
    gate, up = gate_up.double().chunk(2, dim=-1)
    thinned = gate - (gate.mean(dim=-1, keepdim=True) + gate.std(dim=-1, keepdim=True, correction=0) * quantile)
    expected = activate(torch.cat([thinned.relu(), up], dim=-1), "gelu_tanh", True)
    found = prefill.activated(gate_up, "gelu_tanh", True, quantile)
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=2e-5)
    assert abs((found == 0).double().mean() - sparsity) < 0.03
    gate_up[3, 7] = torch.inf  # its row has no quantile
    unbounded = prefill.activated(gate_up, "gelu_tanh", True, quantile)
    assert unbounded[3].isnan().any() and torch.equal(unbounded[4:], found[4:])


def test_scores_that_are_capped_chunks_and_sinks(path):
    query, key, value = inputs(0, 2, 3, 90, 250, torch.bfloat16, 64, 64, spread=3.0)
    sinks = torch.randn(6, generator=torch.Generator().manual_seed(1)) * 4
    for kind in (
        AttentionKind(softcap=5.0),
        AttentionKind(chunk=100),
        AttentionKind(sinks=sinks),
        AttentionKind(40, 7.0, sinks),
    ):
        scores = (query.double() @ key.repeat_interleave(3, 1).double().transpose(2, 3)) * 0.3
        if kind.softcap is not None:
            scores = kind.softcap * (scores / kind.softcap).tanh()
        positions, keys = torch.arange(160, 250)[:, None], torch.arange(250)
        seen = keys <= positions
        if kind.chunk is not None:
            seen &= keys >= positions // kind.chunk * kind.chunk
        scores = scores.masked_fill(~seen, float("-inf"))
        if kind.sinks is not None:
            scores = torch.cat([scores, sinks.double()[None, :, None, None].expand(1, 6, 90, 1)], -1)
        expected = (scores.softmax(-1)[..., :250] @ value.repeat_interleave(3, 1).double()).transpose(1, 2)
        found = prefill.attend(query, [(key, value)], 0.3, None, kind)
        torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.02)
        for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
            parts = [each.to(dtype) for each in (query, key, value)]
            with native.without_kernels():
                for new in (90, 5, 1):
                    found = served_attention(parts[0][:, :, -new:], [tuple(parts[1:])], 0.3, None, kind)
                    assert error(found.double(), expected[:, -new:]) < tolerance


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


@pytest.mark.in_turn(3)
@fast_only
@pytest.mark.parametrize("kind", sorted(FAMILIES))
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_a_prefill_in_pieces_is_the_models_own(kind, quantization):
    ours, exact = pair(kind, quantization, **FAMILIES[kind])
    text = ids(500)
    expected = exact.forward([Rows(text, exact.new_cache(500), 500)])[0]
    most = 0.03 if quantization is None else 0.05  # with AVX2 most inputs of levels have eight bits
    assert error(read(ours, text, 500), expected) < most
    assert error(read(ours, text, 300, 33, 167), expected) < most


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
