"""Recurrences: pieces against the whole, kernels against operators, and what is refused."""

import pytest
import torch

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.cache import RecordedState
from rapid_integrations.cache import Rows as CacheRows
from rapid_integrations.cache.arena import Arena
from rapid_integrations.errors import CacheError
from rapid_integrations.kernels import cpu as native
from rapid_integrations.models.description import RowsOf
from rapid_integrations.models.families import describe
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.recurrence import TakenRecurrence, state_shape
from rapid_integrations.models.vocabulary import Vocabulary
from tests.toys.decoders import error
from tests.toys.described import float32_copy
from tests.toys.embedder import HashEmbedder
from tests.toys.every_family import TEXT, ids, tiny
from tests.toys.models import EOS_ID, byte_tokenizer, words

KERNELS = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")


QWEN = {
    **{"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "moe_intermediate_size": 32},
    **{"shared_expert_intermediate_size": 32, "linear_key_head_dim": 32, "linear_value_head_dim": 64},
}


GRANITE = {
    **{"hidden_size": 64, "intermediate_size": 32, "shared_intermediate_size": 96, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 32, "mamba_n_groups": 2},
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_state": 32, "mamba_n_groups": 2}
FALCON = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32},
    **MAMBA,
    **{"mamba_d_ssm": 128, "mlp_multipliers": [0.7, 0.6], "ssm_multipliers": [0.8, 1.2, 0.7, 1.3, 0.9]},
}
NEMOTRON = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32},
    **{"mamba_num_heads": 4, "mamba_head_dim": 32, "ssm_state_size": 32, "n_groups": 2, "moe_intermediate_size": 32},
}
BAMBA = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1, **MAMBA}
KIMI = {
    **{"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32, "linear_head_dim": 32},
    **{"linear_num_heads": 2, "q_lora_rank": None, "kv_lora_rank": 64, "v_head_dim": 32},
    **{"qk_nope_head_dim": 32, "qk_rope_head_dim": 32},
}
ZAMBA = {
    **{"hidden_size": 64, "intermediate_size": 96, "mamba_d_state": 32, "n_mamba_heads": 4, "adapter_rank": 32},
    "attention_head_dim": 32,
}
JAMBA = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1},
    "mamba_d_state": 16,
}
MAMBA_1 = {"hidden_size": 64, "state_size": 16}
GRIFFIN = {
    **{"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 2, "num_key_value_heads": 1},
    "attention_window_size": 20,
}
LFM2 = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1}
LARA = {name: size for name, size in QWEN.items() if name != "intermediate_size"}
MINIMAX = {"hidden_size": 64, "intermediate_size": 32, "head_dim": 32, "mlp_alpha_factor": 1.5, "mlp_beta_factor": 0.5}
MAMBA_2 = {"hidden_size": 64, "state_size": 32, "num_heads": 4, "head_dim": 32, "n_groups": 2}
SIZES = {
    **{"qwen3_next": QWEN, "qwen3_5_text": QWEN, "granitemoehybrid": GRANITE, "lfm2": LFM2},
    **{"bamba": BAMBA, "falcon_h1": FALCON, "nemotron_h": NEMOTRON, "olmo_hybrid": QWEN, "kimi_linear": KIMI},
    **{"zamba2": ZAMBA, "jamba": JAMBA, "mamba": MAMBA_1, "falcon_mamba": MAMBA_1},
    **{"recurrent_gemma": GRIFFIN, "lara_mini": LARA, "lfm3": LFM2 | {"head_dim": 32}, "minimax": MINIMAX},
    "mamba2": MAMBA_2,
}
FAMILIES = ("granitemoehybrid", "jamba", "kimi_linear", "minimax", "qwen3_next", "recurrent_gemma")


def taken(family, dtype=torch.float32, **changes):
    """The first layer with a state of a model whose weights are bfloat16, as numbers of another dtype."""
    described = describe(tiny(family, **(SIZES[family] | changes)).bfloat16().to(dtype)).recurrences[0]
    return TakenRecurrence.of(described, Arena() if dtype == torch.bfloat16 else None)


def inputs_of(own, dtype=torch.float32):
    """Random rows of 100 tokens."""
    torch.manual_seed(1)
    described = own.described
    gates = 0 if described.gate_up is not None else described.value_heads * described.value_dim
    width = described.channels + gates
    rates = None if own.rates is None else torch.randn(100, own.rates.dense().shape[0]).to(dtype)
    return torch.randn(100, width).to(dtype), rates


@torch.inference_mode()
def read(own, inputs, rates, lengths, kernels, every=16, prompt=True):
    """Return what the heads give for rows that are read in pieces, and the states that were kept."""
    state, given, begin = RecordedState(state_shape([own.described], torch.device("cpu")), every), [], 0
    for length in lengths:
        done = state.begin(begin, length, of_prompt=prompt)
        piece = slice(begin, begin + length)
        given.append(own.read(0, inputs[piece], None if rates is None else rates[piece], done, kernels))
        state.end(done)
        begin += length
    return torch.cat(given), state.states


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("lengths", [[100], [1] * 20 + [3, 77], [40, 8, 52]])
def test_pieces_and_stops_change_nothing(lengths, prompt, family):
    own = taken(family)
    inputs, rates = inputs_of(own)
    expected, states = read(own, inputs, rates, [100], False, every=1000)
    found, kept = read(own, inputs, rates, lengths, False, prompt=prompt)
    assert torch.allclose(found, expected, atol=1e-4)
    if prompt:
        assert [each.position for each in kept] == [*range(16, 100, 16), 100]
        for name, tensor in states[-1].tensors.items():
            assert torch.allclose(kept[-1].tensors[name], tensor, atol=1e-4)


def of_widths(family, key, value):
    if family == "qwen3_next":
        return {"linear_key_head_dim": key, "linear_value_head_dim": value}
    if family == "kimi_linear":
        return {"linear_head_dim": value}
    if family == "jamba":
        return {"mamba_d_state": key, "hidden_size": value}
    if family == "minimax":
        return {"head_dim": value}
    if family == "recurrent_gemma":
        return {"hidden_size": value * 2, "num_attention_heads": 2}
    return {"mamba_d_state": key, "mamba_d_head": value, "mamba_n_heads": 2, "hidden_size": value, "mamba_n_groups": 1}


@KERNELS
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("widths", [(32, 64), (128, 128), (16, 48), (8, 24)])
def test_kernels_read_prompts_as_operators_do(widths, family):
    sizes = of_widths(family, *widths)
    own, exact = taken(family, torch.bfloat16, **sizes), taken(family, **sizes)
    inputs, rates = inputs_of(own, torch.bfloat16)
    found, kept = read(own, inputs, rates, [40, 60], True)
    expected, states = read(exact, inputs.float(), None if rates is None else rates.float(), [100], False)
    assert error(found, expected) < 0.01
    for ours, theirs in zip(kept, states, strict=True):
        assert ours.position == theirs.position
        # what some are computed from is bfloat16
        most = 1e-4 if own.rates is not None and own.decay_up is None else 0.01
        held = [name for name, each in theirs.tensors.items() if each.numel()]  # a convolution of one row has none
        assert all(error(ours.tensors[name], theirs.tensors[name]) < most for name in held)
    # token by token, and with stops elsewhere: the same bits
    assert torch.equal(read(own, inputs, rates, [1] * 100, True)[0], found)
    assert torch.equal(read(own, inputs, rates, [100], True, every=7)[0], found)


def model(dtype=torch.float32, family="qwen3_next", **changes):
    made = tiny(family, 1, **(SIZES[family] | changes))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.3)
    return made.to(dtype)


def in_steps(lm, text, *lengths):
    cache, parts, begin = lm.new_cache(len(text)), [], 0
    for length in lengths:
        parts += lm.forward([CacheRows(text[begin : begin + length], cache, length, of_prompt=begin == 0)])
        begin += length
    return torch.cat(parts)


@pytest.mark.long
@KERNELS
@pytest.mark.parametrize(
    "family",
    [
        *("bamba", "falcon_h1", "granitemoehybrid", "kimi_linear", "lfm2", "nemotron_h", "olmo_hybrid", "qwen3_next"),
        *("qwen3_5_text", "zamba2", "jamba", "mamba", "falcon_mamba", "recurrent_gemma"),
        *("lara_mini", "lfm3", "mamba2", "minimax"),
    ],
)
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_steps_of_the_kernels_are_the_model_in_float32(family, quantization):
    # rounding sends rows to other experts
    changes = {"mlp_layer_types": ["dense"] * 3} if family == "kimi_linear" else {}
    made = model(torch.bfloat16, family, **changes)
    ours = HuggingFaceLM(made, take_over=True, quantization=quantization)
    assert ours._fused._native is not None
    exact = HuggingFaceLM(float32_copy(ours), take_over=True)
    lengths = 40, 1, 2, 3, 17, 32, 1, 4
    found, expected = (in_steps(lm, ids(), *lengths) for lm in (ours, exact))
    prompt = error(found[:40], expected[:40])
    assert error(found[40:], expected[40:]) < max(1.5 * prompt, 0.2 if quantization else 0.04)


@pytest.mark.in_a_hurry(4)
@KERNELS
@pytest.mark.parametrize(
    "family", [*FAMILIES, "falcon_h1", "falcon_mamba", "lfm2", "lfm3", "mamba", "nemotron_h", "olmo_hybrid", "zamba2"]
)
@pytest.mark.parametrize("quantization", [None, "int4"])
def test_a_token_has_the_same_bits_alone_among_drafts_and_in_company(quantization, family):
    lm = HuggingFaceLM(model(torch.bfloat16, family), take_over=True, quantization=quantization)
    text = ids()
    alone = in_steps(lm, text, 40, *[1] * 60)
    for lengths in ((40, 32, 28), (40, *range(1, 10), 15)):
        assert torch.equal(in_steps(lm, text, *lengths), alone)
    caches = [lm.new_cache(TEXT), lm.new_cache(2 * TEXT)]
    for cache in caches:
        lm.forward([CacheRows(text[:40], cache, 0, of_prompt=True)])
    other, done = text.flip(0), 40
    for accepted in (
        1,
        3,
        0,
        2,
        5,
        1,
    ):  # drafts of five of which some are right, beside another text that goes its own way
        right = text[done : done + 1 + accepted]
        draft = torch.cat([right, (text[done + 1 + accepted : done + 6] + 1) % 250])
        rows = [CacheRows(draft, caches[0], len(draft)), CacheRows(other[:3], caches[1], 3)]
        found = lm.forward(rows)[0]
        assert torch.equal(found[: 1 + accepted], alone[done : done + 1 + accepted])
        caches[0].keep(done, range(1 + accepted))
        caches[1].keep(caches[1].length - 3, [0, 1])
        done += 1 + accepted


@pytest.mark.in_a_hurry(2)
@KERNELS
@pytest.mark.parametrize(
    "family",
    ["falcon_h1", "jamba", "kimi_linear", "lfm3", "mamba", "minimax", "qwen3_next", "recurrent_gemma", "zamba2"],
)
def test_threads_change_no_bit_of_a_step(family):
    lm, before, outcomes = HuggingFaceLM(model(torch.bfloat16, family), take_over=True), torch.get_num_threads(), []
    cache = lm.new_cache(TEXT)
    lm.forward([CacheRows(ids()[:60], cache, 0, of_prompt=True)])
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            cache.rollback(60)
            outcomes.append(lm.forward([CacheRows(ids()[60:80], cache, 20)])[0])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outcomes[0], outcomes[1]) and torch.equal(outcomes[0], outcomes[2])


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=KERNELS)])
def test_a_tree_is_refused_and_the_next_pass_works(dtype):
    lm = HuggingFaceLM(model(dtype), take_over=True)
    assert not lm.reads_trees
    cache = lm.new_cache(TEXT)
    lm.forward([CacheRows(ids()[:60], cache, 0, of_prompt=True)])
    with pytest.raises(CacheError, match="tree|chain"):
        lm.forward([CacheRows(ids()[60:63], cache, 3, parents=(-1, 0, 0))])
    assert cache.length == 60 and len(lm.forward([CacheRows(ids()[60:63], cache, 3)])[0]) == 3


@KERNELS
def test_a_pass_that_fails_leaves_the_state_as_it_was(monkeypatch):
    lm = HuggingFaceLM(model(torch.bfloat16), take_over=True)
    cache = lm.new_cache(TEXT)
    lm.forward([CacheRows(ids()[:60], cache, 0, of_prompt=True)])
    expected = lm.forward([CacheRows(ids()[60:62], cache, 2)])[0]
    cache.rollback(60)
    with pytest.raises(IndexError, match="are tokens"):
        lm.forward([CacheRows(torch.tensor([5, 10**6]), cache, 2)])
    monkeypatch.setattr(lm._fused._native, "_run", lambda step: 2)
    with pytest.raises(Exception, match="NaN"):
        lm.forward([CacheRows(ids()[70:72], cache, 2)])
    monkeypatch.undo()
    assert torch.equal(lm.forward([CacheRows(ids()[60:62], cache, 2)])[0], expected)


def test_keys_in_eight_bits_and_states_as_they_are():
    lm, plain = (HuggingFaceLM(model(), take_over=True) for _ in range(2))
    before = lm.kv_bytes_per_token
    lm.store_in_eight_bits()
    assert lm.kv_bytes_per_token < before
    found, expected = (in_steps(each, ids(), 60, 1, 3, 36) for each in (lm, plain))
    assert 0 < error(found, expected) < 0.05


def test_a_described_model_says_what_it_holds():
    lm = HuggingFaceLM(model(), take_over=True)
    assert not lm.moves_keys
    cache = lm.new_cache(TEXT)
    lm.forward([CacheRows(ids()[:60], cache, 0, of_prompt=True)])
    # one layer of three attends: the other two have a state
    assert cache.layers == 1 and not lm.has_parts and lm.passes_together
    assert (
        cache.state.shape.nbytes
        == lm.state_bytes
        == sum(each.nbytes for each in cache.state.states[-1].tensors.values())
    )
    assert lm.windowed == (0, 0)


@pytest.mark.in_a_hurry(2)
@pytest.mark.parametrize(
    "family", ["falcon_h1", "granitemoehybrid", "nemotron_h", "qwen3_next", "qwen3_5_text", "zamba2"]
)
def test_rows_of_a_matrix_are_taken_in_another_order_and_given_back(family):
    made = model(family=family)
    before = {name: each.clone() for name, each in made.state_dict().items()}
    lm = HuggingFaceLM(made, take_over=True)
    named = [part for own in describe(made).recurrences for part in (*own.inputs, *own.rates)]
    rows = [each for each in named if isinstance(each, RowsOf)]
    assert rows or family == "qwen3_5_text"
    assert all(each.module.weight.numel() == 0 for each in rows)  # it is held once
    given = lm.transformers_copy(torch.float32).state_dict()
    assert given.keys() == before.keys()
    assert all(torch.equal(given[name], before[name]) for name in before)


@KERNELS
@pytest.mark.long
@pytest.mark.parametrize("law", ["target", "augmented"])
@pytest.mark.parametrize(
    "family", ["falcon_h1", "granitemoehybrid", "jamba", "mamba", "olmo_hybrid", "qwen3_5_text", "zamba2"]
)
def test_answers_do_not_depend_on_who_proposes_nor_on_company(family, law):
    target = LoadedModel(
        HuggingFaceLM(model(torch.bfloat16, family, max_position_embeddings=4096), take_over=True),
        Vocabulary(byte_tokenizer(), frozenset({EOS_ID})),
    )
    prompts = [Prompt.from_context(words(seed, 80), "which words?") for seed in range(3)]

    def asked(proposer, length):
        return {
            "sampling": SamplingParams(max_new_tokens=40, seed=7),
            "speculation": SpeculationConfig(proposer=proposer, law=law, draft_length=length, eta=5.0),
        }

    with RapidEngine(
        target,
        embedder=HashEmbedder(threshold=-1.0),
        compression=CompressionConfig(chunk_tokens=16, min_tokens=64, min_chunks=1),
    ) as engine:
        expected = [engine.generate(prompt, **asked("none", 1)).token_ids for prompt in prompts]
        for proposer, length in (("drafter", 4), ("prompt_lookup", 16), ("hybrid", 1), ("tree_hybrid", 8)):
            assert engine.generate(prompts[0], **asked(proposer, length)).token_ids == expected[0]
        # in one pass with others, which draft or do not
        ways = [asked(*way) for way in (("drafter", 3), ("none", 1), ("tree_hybrid", "auto"))]
        streams = [engine.stream(prompt, **way) for prompt, way in zip(prompts, ways, strict=True)]
        assert [tuple(token for piece in each for token in piece.token_ids) for each in streams] == expected
