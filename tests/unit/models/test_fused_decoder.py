"""The fused forward pass: what it takes over, what it leaves behind, and quantised weights. For logits see test_hf."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.kernels.cpu import native_library
from rapid_integrations.models import experts, hf, taken_weights
from rapid_integrations.models.eager_check import EagerCheck
from rapid_integrations.models.fused_decoder import FusedDecoder
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.linear import Int4Linear, PackedLinear, make_linear
from tests.toys.every_family import tiny
from tests.toys.fake_gpu import CUDA, MPS, HostWaitsError, NoDoubles, fake_gpu, moved, while_it_loads
from tests.toys.models import VOCAB_SIZE, tiny_model

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")


def ids(count, seed=0):
    return torch.randint(0, VOCAB_SIZE, (count,), generator=torch.Generator().manual_seed(seed))


def taken_over(kind="llama", dtype=torch.float32, quantization=None, **config):
    return HuggingFaceLM(tiny_model(kind, 1, **config).to(dtype), take_over=True, quantization=quantization)


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_families_are_served(kind):
    assert FusedDecoder.serves(tiny_model(kind, 1))


def test_what_is_not_known_in_every_part_runs_as_transformers_does():
    assert not FusedDecoder.serves(tiny("persimmon"))
    more = tiny_model("llama", 1)
    more.model.layers[1].mlp.register_parameter("more", nn.Parameter(torch.ones(3)))
    assert not FusedDecoder.serves(more)
    hooked = tiny_model("llama", 1)
    hooked.model.layers[0].register_forward_hook(lambda *_: None)
    assert not FusedDecoder.serves(hooked)
    other = tiny_model("llama", 1)
    other.model.layers[0].mlp.down_proj = nn.Sequential(other.model.layers[0].mlp.down_proj)
    assert not FusedDecoder.serves(other)
    assert (
        HuggingFaceLM(hooked, take_over=True).forward([Rows(ids(3), HuggingFaceLM(hooked).new_cache(8), 1)])[0].shape[0]
        == 1
    )


def test_a_model_without_numbers_is_not_taken_over(monkeypatch):
    """`device_map={"": "disk"}` leaves every weight on the device "meta", which is one device."""
    monkeypatch.setattr(EagerCheck, "of_host", lambda own: None)
    monkeypatch.setattr(hf, "device_of_inputs", lambda model: torch.device("cpu"))
    assert HuggingFaceLM(tiny_model("llama", 1).to("meta"), take_over=True)._fused is None


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_quantised_product_that_goes_wrong_is_refused_at_load(quantization, monkeypatch):
    """It is compared with the model's own pass over the weights that the product says it has."""

    class Faulty:
        def __init__(self, made):
            self.made, self.step_bytes, self.native, self.dense = made, made.step_bytes, made.native, made.dense

        def __call__(self, x):
            return self.made(x).roll(1, 1)

    taken_over(quantization=quantization)
    monkeypatch.setattr(taken_weights, "make_linear", lambda *given, **options: Faulty(make_linear(*given, **options)))
    with pytest.raises(UnsupportedModelError, match="differs from the model's own"):
        taken_over(quantization=quantization)


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("keep", [0, 1, 5, 90])
def test_the_rows_that_are_asked_for(kind, keep):
    lm = taken_over(kind)
    text = ids(90)
    whole = lm.forward([Rows(text, lm.new_cache(90), 90)])[0]
    cache = lm.new_cache(90)
    rows = lm.forward([Rows(text, cache, keep)])[0]
    torch.testing.assert_close(rows, whole[90 - keep :], rtol=0, atol=1e-4)
    assert cache.length == 90 and cache.filled_layers == cache.layers


@pytest.mark.in_a_hurry(2)
@pytest.mark.parametrize("kind", FAMILIES)
def test_bfloat16_is_as_near_to_float32_as_transformers_is(kind):
    text = ids(60)
    exact = taken_over(kind)
    expected = exact.forward([Rows(text, exact.new_cache(60), 60)])[0]
    errors = []
    for lm in (HuggingFaceLM(tiny_model(kind, 1).bfloat16()), taken_over(kind, torch.bfloat16)):
        errors.append(relative(lm.forward([Rows(text, lm.new_cache(60), 60)])[0], expected))
    assert errors[1] < 1.3 * errors[0] + 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_quantised_model_is_the_model_with_the_quantised_weights(quantization, dtype):
    quantised = taken_over("qwen2", dtype, quantization)
    plain = tiny_model("qwen2", 1)
    weights = dict(quantised._fused.named_weights())
    with torch.no_grad():
        for index, layer in enumerate(plain.model.layers):
            attention, mlp = layer.self_attn, layer.mlp
            parts = {"qkv": [attention.q_proj, attention.k_proj, attention.v_proj], "out": [attention.o_proj]}
            parts |= {"gate_up": [mlp.gate_proj, mlp.up_proj], "down": [mlp.down_proj]}
            for name, linears in parts.items():
                split = weights[f"fused.{index}.{name}"].float().split([linear.out_features for linear in linears])
                for linear, held in zip(linears, split, strict=True):
                    assert 0 < relative(held, linear.weight) < 0.12
                    linear.weight.copy_(held)
    text = ids(40)
    expected = HuggingFaceLM(plain).forward([Rows(text, HuggingFaceLM(plain).new_cache(40), 40)])[0]
    found = torch.cat([quantised.forward([Rows(chunk, cache, len(chunk))])[0] for cache in [quantised.new_cache(40)]
                       for chunk in text.split([30, 1, 1, 8])])  # fmt: skip
    assert relative(found, expected) < (0.01 if dtype == torch.float32 else 0.25)


def test_weights_are_held_once():
    model = tiny_model("llama", 1)
    before = sum(parameter.numel() for parameter in model.parameters())
    plain = HuggingFaceLM(model, take_over=True)
    assert plain.num_parameters == before
    fused = plain._fused._layers[0].qkv.dense()
    assert model.model.layers[0].self_attn.q_proj.weight.data_ptr() == fused.data_ptr()  # a view
    packed = tiny_model("llama", 1).bfloat16()
    lm = HuggingFaceLM(packed, take_over=True)
    assert lm.num_parameters == before
    if PackedLinear.serves(torch.zeros(16, 32, dtype=torch.bfloat16)):
        assert packed.model.layers[0].self_attn.q_proj.weight.numel() == 0
    assert 0 < lm.weight_bytes <= 2 * before


def test_fingerprints_tell_weights_and_their_form_apart():
    forms = [(torch.float32, None), (torch.bfloat16, None), (torch.bfloat16, "int8"), (torch.bfloat16, "int4")]
    prints = [taken_over(dtype=dtype, quantization=quantization).fingerprint() for dtype, quantization in forms]
    assert len(set(prints)) == len(prints)
    assert prints[1] == taken_over(dtype=torch.bfloat16).fingerprint()
    changed = tiny_model("llama", 1).bfloat16()
    with torch.no_grad():
        changed.model.layers[1].mlp.up_proj.weight[3, 4] += 1
    assert HuggingFaceLM(changed, take_over=True).fingerprint() != prints[1]


def test_quantisation_needs_a_known_architecture():
    with pytest.raises(UnsupportedModelError, match="quantization='int4' needs a family that is described.*Persimmon"):
        HuggingFaceLM(tiny("persimmon"), take_over=True, quantization="int4")
    with pytest.raises(UnsupportedModelError, match="quantization"):
        HuggingFaceLM(tiny_model("llama", 1), quantization="int4")


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_every_form_is_compared_with_the_model_when_it_is_loaded(quantization, monkeypatch):
    """Products that are wrong are refused, whatever form the weights have."""
    call = FusedDecoder.forward

    def wrong(self, rows):
        return [logits.roll(1, dims=-1) for logits in call(self, rows)]

    taken_over("qwen2", torch.bfloat16, quantization)  # right, it is taken
    monkeypatch.setattr(FusedDecoder, "forward", wrong)
    with pytest.raises(UnsupportedModelError, match="differs from the model's own by"):
        taken_over("qwen2", torch.bfloat16, quantization)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_the_comparison_leaves_the_model_without_the_weights_that_were_taken(quantization, tied):
    lm = taken_over("qwen2", torch.bfloat16, quantization, tie_word_embeddings=tied)
    taken = [layer.mlp.down_proj.weight.numel() for layer in lm.model.base_model.layers]
    assert set(taken) == {0}
    assert (lm.model.lm_head.weight is lm.model.base_model.embed_tokens.weight) == tied
    assert lm.model.base_model.embed_tokens.weight.numel() > 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.model.modules())


def test_a_weight_that_the_kernels_read_wrongly_is_seen(monkeypatch):
    """The reference computes with what the integers stand for, so a layout that is read wrongly stands out."""
    if native_library() is None:
        pytest.skip("needs kernels")
    # One layer: random weights make much of what is rounded off.
    wide = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 64, "num_hidden_layers": 1}
    panels = Int4Linear.native
    assert taken_over("llama", torch.bfloat16, "int4", **wide)._fused._native is not None
    monkeypatch.setattr(
        Int4Linear, "native", lambda self: replace(panels(self), data=panels(self).data.flip(0).contiguous())
    )
    with pytest.raises(UnsupportedModelError, match="differs from the model's own by"):
        taken_over("llama", torch.bfloat16, "int4", **wide)


@pytest.mark.in_a_hurry(1)
@pytest.mark.parametrize(("kind", "device"), [("llama", CUDA), ("gemma3", CUDA), ("llama", MPS)], ids=str)
def test_a_pass_on_a_gpu_waits_for_nothing_but_its_check(kind, device):
    model = tiny_model(kind, 1)
    with fake_gpu(device) as gpu, NoDoubles(device):
        fused = FusedDecoder(moved(model, torch.bfloat16, device))
        assert fused.kernels.startswith("none (")  # there is no GPU in truth
        cache = KVCache(len(fused.windows), 100)
        read = torch.empty(30, dtype=torch.int64, device=gpu)
        fused.forward([Rows(read, cache, 0, of_prompt=True)])
        cache.advance(30)
        for new in (1, 5):
            (logits,) = fused.forward([Rows(read[:new], cache, new, check=False)])
            cache.advance(new)
            assert logits.shape == (new, VOCAB_SIZE) and logits.device == gpu and logits.dtype == torch.float32
        with pytest.raises(HostWaitsError):
            fused.forward([Rows(read[:1], cache, 1)])


# Of every kind of layer a family; those with experts wait once in each layer, for where the places of each expert end.
ON_A_GPU = (
    *("cohere2", "deepseek_v2", "deepseek_v32", "falcon_mamba", "gemma2", "gemma3n_text", "gemma4_text"),
    *("glm4", "gpt2", "gpt_neox", "gpt_oss", "granitemoehybrid", "jamba", "kimi_linear", "lfm2", "llama4_text"),
    *("mamba", "nanochat", "nemotron_h", "olmo2", "olmo_hybrid", "opt", "phi3", "phimoe", "qwen3_5_text"),
    *("qwen3_moe", "qwen3_next", "recurrent_gemma", "zamba2"),
)


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("kind", ON_A_GPU)
def test_a_pass_of_any_family_mixes_no_devices_and_waits_for_nothing(monkeypatch, kind):
    """Weights and indices of the processor would fail there, and a copy or a number would make the host wait."""
    places = []
    by_expert = experts._by_expert

    def counted(taken, count):
        places.append(taken.numel())
        return by_expert(taken, count)

    monkeypatch.setattr(experts, "_by_expert", counted)
    # The places are shared out, as nobody knows the numbers of these tensors.
    shared = lambda ends: [places[-1] * (at + 1) // len(ends) for at in range(len(ends))]  # noqa: E731
    monkeypatch.setattr(experts, "numbers_of", shared)
    model = tiny(kind)
    with fake_gpu() as gpu:
        with while_it_loads():
            fused = FusedDecoder(moved(model, torch.bfloat16))
            cache = fused.new_cache(100)
        read = torch.empty(22, dtype=torch.int64, device=gpu)
        trees = [None] if cache.state is not None else [None, (-1, 0, 0)]
        fused.forward([Rows(read, cache, 0, of_prompt=True)])
        cache.advance(22, of_prompt=True)
        for parents in trees:
            for new in (1, 3) if parents is None else (3,):
                rows = Rows(read[:new], cache, new, parents=parents, check=False)
                (logits,) = fused.forward([rows])
                cache.advance(new)
                assert logits.shape == (new, VOCAB_SIZE) and logits.device == gpu and logits.dtype == torch.float32
