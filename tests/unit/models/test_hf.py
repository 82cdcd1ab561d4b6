"""transformers models on this package's cache and attention, against the same models left alone."""

import functools
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from rapid_integrations.cache import Rows
from rapid_integrations.cache.saved_cache import read_cache, write_cache
from rapid_integrations.errors import (
    CacheError,
    ModelLoadError,
    RapidError,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from rapid_integrations.models.attention import ATTENTION_NAME
from rapid_integrations.models.causal_lm import CausalLM
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.loader import wrap
from rapid_integrations.models.unsupported import device_of_inputs
from tests.toys.budget import examples
from tests.toys.every_family import tiny
from tests.toys.models import KINDS, VOCAB_SIZE, byte_tokenizer, randomise, tiny_model

ATOL = 1e-3  # logits are about 10, and random weights this large blow rounding up
CACHE_ATOL = 1e-4


TAKEN_OVER = [f"{kind}, taken over" for kind in KINDS]
WAYS = [*KINDS, *TAKEN_OVER]


@functools.cache
def plain(way):
    """The model as transformers runs it: eager attention, no cache."""
    model = tiny_model(way.partition(",")[0], 1)
    model.set_attn_implementation("eager")
    return model


@functools.cache
def ours(way):
    kind, _, taken_over = way.partition(",")
    return HuggingFaceLM(tiny_model(kind, 1), take_over=bool(taken_over))


def random_ids(seed, count):
    return torch.randint(0, VOCAB_SIZE, (count,), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def all_logits(model, ids):
    return model(input_ids=ids[None], use_cache=False).logits[0]


def assert_equal_caches(cache, other):
    assert cache.length == other.length
    for layer in range(cache.layers):
        for mine, theirs in zip(cache.layer(layer), other.layer(layer), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=CACHE_ATOL)


# --- the same logits, however the text arrives ------------------------------------------------------------------------


@pytest.mark.in_a_hurry(4)
@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=examples(60))
@given(chunks=st.lists(st.integers(1, 70), min_size=1, max_size=6), seed=st.integers(0, 2**16))
def test_chunks_give_the_logits_of_one_full_forward(way, chunks, seed):
    ids = random_ids(seed, sum(chunks))
    lm = ours(way)
    cache = lm.new_cache(len(ids))
    computed = []
    for chunk in ids.split(chunks):
        computed.append(lm.forward([Rows(chunk, cache, len(chunk))])[0])
    assert cache.length == len(ids)
    torch.testing.assert_close(torch.cat(computed), all_logits(plain(way), ids), rtol=0, atol=ATOL)


@pytest.mark.in_a_hurry(4)
@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=examples(50))
@given(
    steps=st.lists(st.tuples(st.integers(1, 70), st.floats(0, 1), st.booleans()), min_size=1, max_size=8),
    seed=st.integers(0, 2**16),
)
def test_any_mix_of_forwards_and_rollbacks_equals_a_fresh_prefill(way, steps, seed):
    lm = ours(way)
    cache = lm.new_cache(1024)
    text = torch.empty(0, dtype=torch.long)
    for number, (new, stands, skip_head) in enumerate(steps):
        draft = random_ids(seed + number, new)
        lm.forward([Rows(draft, cache, 0 if skip_head else 1)])
        text = torch.cat([text, draft[: int(stands * new)]])
        cache.rollback(len(text))
    last = random_ids(seed + 1000, 3)
    computed = lm.forward([Rows(last, cache, 3)])[0]
    text = torch.cat([text, last])
    torch.testing.assert_close(computed, all_logits(plain(way), text)[-3:], rtol=0, atol=ATOL)
    fresh = lm.new_cache(1024)
    lm.forward([Rows(text, fresh, 0)])
    assert_equal_caches(cache, fresh)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("llama", {"num_key_value_heads": 1}),
        ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
        ("llama", {"hidden_size": 48, "num_attention_heads": 6, "head_dim": 6, "num_hidden_layers": 4}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "vocab_size": 320}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 10000.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64,
                }
            },
        ),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}),
        ("mistral", {"sliding_window": None}),
        ("gemma3", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
    ],
)
def test_variants_of_the_families(kind, config):
    model = tiny_model(kind, 5, **config)
    ids = random_ids(0, 150)
    lm = HuggingFaceLM(model)
    cache = lm.new_cache(150)
    computed = torch.cat([lm.forward([Rows(chunk, cache, len(chunk))])[0] for chunk in ids.split([90, 1, 5, 54])])
    lm.close()
    torch.testing.assert_close(computed, all_logits(model, ids), rtol=0, atol=ATOL)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_models_are_accepted_and_give_float32_logits(dtype):
    model = tiny_model("llama", 3).to(dtype)
    ids = random_ids(0, 80)
    lm = HuggingFaceLM(model)
    cache = lm.new_cache(80)
    computed = torch.cat([lm.forward([Rows(chunk, cache, len(chunk))])[0] for chunk in ids.split([70, 1, 9])])
    assert computed.dtype == torch.float32
    assert cache.layer(0)[0].dtype == dtype
    lm.close()
    expected = all_logits(model, ids).float()
    assert (computed - expected).norm() / expected.norm() < 0.1


@pytest.mark.parametrize("keep", [0, 1, 2, 7, 20])
def test_only_the_logits_asked_for_are_computed(keep):
    model = tiny_model("llama", 1)
    lm = HuggingFaceLM(model)
    rows = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(output.shape[-2]))
    cache = lm.new_cache(30)
    ids = random_ids(4, 30)
    lm.forward([Rows(ids[:10], cache, 0)])
    logits = lm.forward([Rows(ids[10:], cache, keep)])[0]
    assert logits.shape == (keep, VOCAB_SIZE)
    assert rows == ([keep] if keep else [])  # with keep=0 the head is not run at all
    assert cache.length == 30
    if keep:
        torch.testing.assert_close(logits, all_logits(plain("llama"), ids)[-keep:], rtol=0, atol=ATOL)


def test_no_forward_copies_or_moves_the_cache():
    lm = ours("llama")
    cache = lm.new_cache(400)
    lm.forward([Rows(random_ids(0, 100), cache, 0)])
    where = [tensor.data_ptr() for layer in range(cache.layers) for tensor in cache.layer(layer)]
    for new in (1, 5, 100, 64, 65):
        lm.forward([Rows(random_ids(1, new), cache, 1)])
        cache.rollback(cache.length - new // 2)
    assert [tensor.data_ptr() for layer in range(cache.layers) for tensor in cache.layer(layer)] == where


def test_two_texts_keep_apart():
    lm = ours("gemma3")
    caches = [lm.new_cache(100), lm.new_cache(100)]
    texts = [random_ids(seed, 60) for seed in (1, 2)]
    for begin in range(0, 60, 20):
        for cache, text in zip(caches, texts, strict=True):
            logits = lm.forward([Rows(text[begin : begin + 20], cache, 1)])[0]
            torch.testing.assert_close(logits, all_logits(plain("gemma3"), text[: begin + 20])[-1:], rtol=0, atol=ATOL)


def test_a_saved_cache_goes_on_where_it_was(tmp_path):
    lm, ids = ours("llama"), random_ids(7, 90)
    cache = lm.new_cache(90)
    lm.forward([Rows(ids[:80], cache, 0)])
    write_cache(tmp_path / "cache", cache, np.arange(cache.length), "")
    computed = lm.forward([Rows(ids[80:], read_cache(tmp_path / "cache", 90)[1], 10)])[0]
    torch.testing.assert_close(computed, all_logits(plain("llama"), ids)[-10:], rtol=0, atol=ATOL)


# --- what fails half-way leaves no trace ------------------------------------------------------------------------------


def test_a_forward_over_the_capacity_leaves_the_cache_as_it_was():
    lm, ids = ours("llama"), random_ids(3, 600)
    cache = lm.new_cache(512)
    lm.forward([Rows(ids[:500], cache, 0)])
    with pytest.raises(CacheError):
        lm.forward([Rows(ids[500:], cache, 1)])
    assert cache.length == 500
    computed = lm.forward([Rows(ids[500:512], cache, 1)])[0]
    torch.testing.assert_close(computed, all_logits(plain("llama"), ids[:512])[-1:], rtol=0, atol=ATOL)


def test_a_forward_that_fails_between_layers_leaves_the_cache_as_it_was():
    model = tiny_model("llama", 1)
    lm, ids = HuggingFaceLM(model), random_ids(3, 40)
    cache = lm.new_cache(40)
    lm.forward([Rows(ids[:20], cache, 0)])

    def fail(module, inputs):
        raise KeyboardInterrupt

    hook = model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        lm.forward([Rows(random_ids(4, 20), cache, 1)])
    hook.remove()
    assert cache.length == 20
    computed = lm.forward([Rows(ids[20:], cache, 20)])[0]
    torch.testing.assert_close(computed, all_logits(plain("llama"), ids)[-20:], rtol=0, atol=ATOL)


# --- what a model says of itself --------------------------------------------------------------------------------------


def test_it_is_a_causal_lm_with_the_models_figures():
    model = tiny_model("llama", 1, vocab_size=320, max_position_embeddings=777)
    lm = HuggingFaceLM(model, "mine")
    assert isinstance(lm, CausalLM)
    assert (lm.name, lm.context_window, lm.vocab_size) == ("mine", 777, 320)
    assert lm.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert lm.device == torch.device("cpu")
    assert HuggingFaceLM(tiny_model("llama", 1)).name == "LlamaForCausalLM"


class _FormerBase(transformers.LlamaModel):
    """Calls its cache what transformers did before 5.24, as code beside a model may do for long."""

    def forward(self, input_ids, position_ids=None, past_key_values=None, use_cache=None):
        taken = inspect.signature(transformers.LlamaModel.forward).parameters
        name = "cache" if "cache" in taken else "past_key_values"
        cache = {} if past_key_values is None else {name: past_key_values}
        return super().forward(input_ids=input_ids, position_ids=position_ids, use_cache=use_cache, **cache)


class _FormerModel(transformers.LlamaForCausalLM):
    def forward(self, input_ids, position_ids=None, past_key_values=None, use_cache=None, logits_to_keep=0):
        read = self.model(input_ids, position_ids, past_key_values, use_cache).last_hidden_state
        return transformers.modeling_outputs.CausalLMOutputWithPast(logits=self.lm_head(read[:, -logits_to_keep:]))


def test_a_model_that_calls_its_cache_by_the_former_name():
    model, ids = tiny_model("llama", 1), random_ids(0, 40)
    expected = all_logits(model, ids)
    model.__class__, model.model.__class__ = _FormerModel, _FormerBase
    lm = HuggingFaceLM(model)
    cache = lm.new_cache(64)
    lm.forward([Rows(ids[:30], cache, 0)])
    torch.testing.assert_close(lm.forward([Rows(ids[30:], cache, 10)])[0], expected[30:], rtol=0, atol=ATOL)


# --- the model is the user's ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", ["eager", "sdpa"])
def test_the_model_gets_its_own_attention_back(own):
    model, ids = tiny_model("gemma3", 1), random_ids(0, 50)
    model.set_attn_implementation(own)
    before = all_logits(model, ids)
    lm = HuggingFaceLM(model)
    assert model.config._attn_implementation == ATTENTION_NAME
    lm.close()
    lm.close()
    assert model.config._attn_implementation == own
    assert torch.equal(all_logits(model, ids), before)


def test_the_model_gets_the_attention_back_that_it_came_with_this_time():
    model = tiny_model("llama", 1)
    HuggingFaceLM(model).close()
    model.set_attn_implementation("eager")
    HuggingFaceLM(model).close()
    assert model.config._attn_implementation == "eager"


def test_two_wrappers_of_one_model_may_close_in_either_order():
    for order in (0, 1), (1, 0):
        model = tiny_model("llama", 1)
        wrappers = [HuggingFaceLM(model), HuggingFaceLM(model)]
        for index in order:
            wrappers[index].close()
        assert model.config._attn_implementation == "sdpa", f"closed in the order {order}"


def test_a_wrapper_still_runs_its_attention_after_another_one_of_the_same_model_closed():
    model = tiny_model("llama", 1)
    first, second = HuggingFaceLM(model), HuggingFaceLM(model)
    first.close()
    assert model.config._attn_implementation == ATTENTION_NAME
    second.close()


def test_a_refused_tokenizer_gives_the_model_back():
    class Slow:
        backend_tokenizer = chat_template = eos_token_id = None
        added_tokens_decoder, all_special_ids = {}, []

    model = tiny_model("llama", 1)
    with pytest.raises(UnsupportedModelError, match="tokenizers library"):
        wrap(model, Slow())
    assert model.config._attn_implementation == "sdpa"


def test_a_refused_pair_gives_both_models_back():
    from rapid_integrations.engine.engine import RapidEngine

    model, drafter = tiny_model("llama", 1), tiny_model("llama", 2)
    other = byte_tokenizer(merges=[("t", "h"), ("h", "e")])
    with pytest.raises(VocabularyMismatchError):
        RapidEngine.from_models(model, byte_tokenizer(), drafter_model=drafter, drafter_tokenizer=other)
    assert [m.config._attn_implementation for m in (model, drafter)] == ["sdpa", "sdpa"]


def test_a_refused_target_gives_the_drafter_back():
    from rapid_integrations.engine.engine import RapidEngine

    model, drafter = tiny("xlm"), tiny_model("llama", 2)
    own = model.config._attn_implementation
    with pytest.raises(UnsupportedModelError):
        RapidEngine.from_models(model, byte_tokenizer(), drafter_model=drafter)
    assert [m.config._attn_implementation for m in (model, drafter)] == [own, "sdpa"]


def test_an_engine_gives_both_models_back():
    from rapid_integrations.engine.engine import RapidEngine

    model, drafter = tiny_model("llama", 1), tiny_model("qwen2", 2)
    with RapidEngine.from_models(model, byte_tokenizer(), drafter_model=drafter):
        assert [m.config._attn_implementation for m in (model, drafter)] == [ATTENTION_NAME] * 2
    assert [m.config._attn_implementation for m in (model, drafter)] == ["sdpa", "sdpa"]


# --- models that cannot be run exactly --------------------------------------------------------------------------------

SMALL = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def build(model_class, config_class, **config):
    names = getattr(transformers, config_class).__dataclass_fields__
    shape = {name: value for name, value in SMALL.items() if name in names}
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**{**shape, **config}))
    return randomise(model, 0).eval()


REFUSED = {
    "indexed attention": (
        ("DeepseekV32ForCausalLM", "DeepseekV32Config"),
        {"num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 16, "n_routed_experts": 4, "index_n_heads": 2},
        "needs to be loaded by its name or folder",
    ),
    "another recurrence": (("RwkvForCausalLM", "RwkvConfig"), {"attention_hidden_size": 32}, "recurrent state"),
    "encoder and decoder": (
        ("T5ForConditionalGeneration", "T5Config"),
        {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4},
        "encoder-decoder",
    ),
    "attention of its own": (
        ("XGLMForCausalLM", "XGLMConfig"),
        {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 256},
        "attention cannot be replaced",
    ),
    "both directions": (("BertForMaskedLM", "BertConfig"), {}, "neither causal nor a sliding window"),
    "no head": (("LlamaModel", "LlamaConfig"), {}, "no language-model head"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_be_run_exactly_is_refused_with_the_reason(case):
    classes, config, reason = REFUSED[case]
    model = build(*classes, **config)
    own = model.config._attn_implementation
    with pytest.raises(UnsupportedModelError, match=reason):
        HuggingFaceLM(model)
    assert model.config._attn_implementation == own


class AddsSomething(torch.nn.Module):
    """An attention output projection that also adds what only the first forward of a text should see."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) + (x.shape[1] > 1)


def test_a_model_that_computes_something_else_in_chunks_is_refused():
    model = tiny_model("llama", 1)
    model.model.layers[0].self_attn.o_proj = AddsSomething(model.model.layers[0].self_attn.o_proj)
    with pytest.raises(UnsupportedModelError, match=r"differs from the model's own by \d+"):
        HuggingFaceLM(model)
    assert model.config._attn_implementation == "sdpa"


ROPE = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}


@pytest.mark.parametrize(
    ("kind", "rope"), [("llama", ROPE | {"rope_type": "dynamic"}), ("qwen2", ROPE | LONG | {"rope_type": "longrope"})]
)
def test_frequencies_that_depend_on_the_length_are_refused_or_right(kind, rope):
    model = tiny_model(
        kind, 1, rope_parameters=rope, max_position_embeddings=64 if rope["rope_type"] == "dynamic" else 256
    )
    ids = random_ids(0, 200)
    try:
        lm = HuggingFaceLM(model)
    except RapidError:
        return
    cache = lm.new_cache(200)
    computed = torch.cat([lm.forward([Rows(chunk, cache, len(chunk))])[0] for chunk in ids.split([50, 50, 100])])
    lm.close()
    torch.testing.assert_close(computed, all_logits(model, ids), rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    ("classes", "config"),
    [
        (("MixtralForCausalLM", "MixtralConfig"), {"head_dim": 8, "num_local_experts": 4}),
        (
            ("Qwen3MoeForCausalLM", "Qwen3MoeConfig"),
            {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        ),
    ],
)
def test_mixtures_of_experts_run(classes, config):
    model, ids = build(*classes, **config), random_ids(0, 120)
    lm = HuggingFaceLM(model)
    cache = lm.new_cache(120)
    computed = torch.cat([lm.forward([Rows(chunk, cache, len(chunk))])[0] for chunk in ids.split([70, 1, 49])])
    lm.close()
    torch.testing.assert_close(computed, all_logits(model, ids), rtol=0, atol=ATOL)


def test_where_ids_go_if_the_embedding_is_offloaded():
    """Its weight is on "meta" between two passes; ids there would have no numbers."""
    model = tiny_model("llama", 1)
    assert device_of_inputs(model) == torch.device("cpu")
    model.model.embed_tokens.to("meta")
    with pytest.raises(ModelLoadError, match="its embedding has no numbers"):
        device_of_inputs(model)
    model.model.embed_tokens._hf_hook = SimpleNamespace(execution_device="cuda:1")
    assert device_of_inputs(model) == torch.device("cuda", 1)
