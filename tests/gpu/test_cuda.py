"""What only a GPU can show, on small shapes: python -m pytest -m gpu tests/gpu."""

import pytest
import torch

from rapid_integrations import OutOfMemoryError, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.cache.chunk_view import ChunkView
from rapid_integrations.cache.out_of_memory import memory_errors_taught
from rapid_integrations.cache.saved_cache import read_cache, write_cache
from rapid_integrations.config import CompressionConfig
from rapid_integrations.decoding import device_rounds
from rapid_integrations.kernels.ops import ops_for
from rapid_integrations.models.attention import rapid_attention
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.linear import make_linear
from rapid_integrations.sampling import Law, Randomness, TorchOps
from rapid_integrations.sampling.rows import TorchRows
from tests.toys.device_rounds import IDS, LAWS, decoded, result_of, toy
from tests.toys.embedder import HashEmbedder
from tests.toys.every_family import tiny
from tests.toys.models import KINDS, ROPES, VOCAB_SIZE, byte_tokenizer, tiny_model, words

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
CUDA = torch.device("cuda", 0)
SMALL = CompressionConfig(chunk_tokens=16, min_tokens=64, min_chunks=1)


def relative(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


# --- attention ------------------------------------------------------------------------------------------------------


def exact(query, key, value, scale, window):
    new, total, group = query.shape[2], key.shape[2], query.shape[1] // key.shape[1]
    key, value = (x.double().repeat_interleave(group, dim=1) for x in (key, value))
    at, of = torch.arange(total - new, total, device=CUDA)[:, None], torch.arange(total, device=CUDA)[None]
    seen = (of <= at) if window is None else (of <= at) & (of > at - window)
    scores = (query.double() @ key.transpose(2, 3) * scale).masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, 512])
@pytest.mark.parametrize("new", [1, 2, 9, 16, 17, 64, 65, 300, 1024])
@pytest.mark.parametrize(("kv_heads", "group", "width"), [(8, 4, 128), (2, 7, 64), (3, 3, 64), (1, 4, 256)])
def test_attention(kv_heads, group, width, new, window, dtype):
    for before in (0, 1, 511, 4099):
        query = torch.randn(1, new, kv_heads * group, width, device=CUDA, dtype=dtype).transpose(1, 2)
        buffers = [
            torch.full((1, kv_heads, before + new + 37, width), torch.nan, device=CUDA, dtype=dtype) for _ in "kv"
        ]
        key, value = (b[:, :, : before + new].normal_() for b in buffers)
        found, _ = rapid_attention(torch.nn.Identity(), query, key, value, None, sliding_window=window)
        error = relative(found, exact(query, key, value, width**-0.5, window))
        assert error < (1e-5 if dtype == torch.float32 else 1e-2), f"{before} before: {error}"  # NaN fails, too


# --- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 9, 16, 17, 200])
@pytest.mark.parametrize("form", [None, "int8", "int4"])
@pytest.mark.parametrize(
    ("out", "columns"), [(6144, 4096), (4096, 14_336), (1152, 896), (1536, 576), (960, 960), (96, 64)]
)
def test_a_product(out, columns, form, rows):
    """576 and 960 columns are SmolLM2's: multiples of 32 that no 128 divides."""
    weight = torch.randn(out, columns, device=CUDA, dtype=torch.bfloat16)
    made, x = make_linear(weight, None, form), torch.randn(rows, columns, device=CUDA, dtype=torch.bfloat16)
    assert relative(made(x), x.double() @ made.dense().double().T) < 1e-2
    assert relative(made.dense(), weight) < {None: 1e-9, "int8": 0.02, "int4": 0.1}[form]


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("take_over", [False, True])
@pytest.mark.parametrize("kind", [*KINDS, *ROPES])
def test_a_model_in_any_pieces_computes_what_transformers_does(kind, take_over):
    model = tiny_model(kind, 1).to(CUDA)
    ids = torch.randint(0, VOCAB_SIZE, (300,), generator=torch.Generator().manual_seed(2)).to(CUDA)
    with torch.inference_mode():
        model.set_attn_implementation("eager")
        expected = model(input_ids=ids[None], use_cache=False).logits[0].float()
    lm = HuggingFaceLM(model, take_over=take_over)
    for pieces in ([300], [200, 64, 17, 9, 1, 1, 8], [1] * 20 + [280]):
        cache = lm.new_cache(300)
        found = torch.cat([lm.forward([Rows(part, cache, len(part))])[0] for part in torch.split(ids, pieces)])
        assert relative(found, expected) < 1e-4
    cache.rollback(250)
    again = torch.cat([lm.forward([Rows(part, cache, len(part))])[0] for part in torch.split(ids[250:], [9, 41])])
    assert relative(again, expected[250:]) < 1e-4
    lm.close()


# Of every kind of layer a family; `test_fused_decoder` reads them on a GPU that is not there.
FAMILIES = (
    *("cohere2", "deepseek_v2", "deepseek_v32", "falcon_h1", "falcon_mamba", "gemma2", "gemma3n_text", "gemma4_text"),
    *("glm4", "gpt2", "gpt_neox", "gpt_oss", "granitemoehybrid", "jamba", "kimi_linear", "lfm2", "llama4_text"),
    *("mamba", "nanochat", "nemotron_h", "olmo2", "olmo_hybrid", "opt", "phi3", "phimoe", "qwen3_5_text"),
    *("qwen3_moe", "qwen3_next", "recurrent_gemma", "zamba2"),
)


def logits_of(lm):
    """Read a prompt, steps, a draft that is taken back, and a tree, if it may be one; return all logits."""
    ids = torch.randint(0, VOCAB_SIZE, (120,), generator=torch.Generator().manual_seed(2)).to(lm.device)
    cache = lm.new_cache(200)
    found = lm.forward([Rows(ids[:70], cache, 1, of_prompt=True)])
    for begin, end, left in ((70, 71, 71), (71, 76, 73), (73, 74, 74), (74, 114, 114)):
        found += lm.forward([Rows(ids[begin:end], cache, end - begin)])
        cache.rollback(left)
    if lm.reads_trees:
        found += lm.forward([Rows(ids[114:118], cache, 4, parents=(-1, 0, 0, 2))])
    return torch.cat(found).cpu()


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_computes_on_the_device_what_it_does_on_the_processor(kind):
    """By operators or kernels, whichever serve it there."""
    expected = logits_of(HuggingFaceLM(tiny(kind), take_over=True))
    lm = HuggingFaceLM(tiny(kind).to(CUDA), take_over=True)
    assert lm.kernels
    assert relative(logits_of(lm), expected) < 1e-3


@pytest.mark.parametrize("law", ["target", "augmented"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_a_greedy_answer_depends_on_neither_device_nor_proposer(kind, law):
    answers = {}
    for device in ("cpu", "cuda"):
        engine = RapidEngine.from_models(
            tiny_model(kind, 1).to(device), byte_tokenizer(), embedder=HashEmbedder(threshold=-1.0), compression=SMALL
        )
        for proposer in ("none", "drafter", "prompt_lookup", "hybrid"):
            for length in (1, 4, 10, 16):
                speculation = SpeculationConfig(law=law, proposer=proposer, draft_length=length)
                answer = engine.generate(
                    Prompt.from_context(words(5, 60), words(55, 3)),
                    sampling=SamplingParams(max_new_tokens=24),
                    speculation=speculation,
                )
                answers.setdefault(tuple(answer.token_ids), []).append((device, proposer, length))
        engine.close()
    assert len(answers) == 1, answers


def test_a_seed_gives_the_same_sample_on_both_devices():
    answers = set()
    for device in ("cpu", "cuda"):
        engine = RapidEngine.from_models(
            tiny_model("llama", 1).to(device),
            byte_tokenizer(),
            embedder=HashEmbedder(threshold=-1.0),
            compression=SMALL,
        )
        sampling = SamplingParams(temperature=0.8, top_p=0.9, seed=3, max_new_tokens=24)
        answers.add(
            tuple(engine.generate(Prompt.from_context(words(5, 60), words(55, 3)), sampling=sampling).token_ids)
        )
    assert len(answers) == 1, answers  # a near tie may part them: look at the first difference before worrying


@pytest.mark.parametrize("rows", [None, TorchRows()], ids=["kernels", "torch"])
@pytest.mark.parametrize("proposer", ["none", "drafter", "prompt_lookup", "draft_lm"])
@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_rounds_on_the_device_are_the_hosts(law, proposer, rows):
    ops = ops_for(CUDA) if rows is None else TorchOps(rows)
    for seed in range(6):
        request = {"eos": frozenset({4}) if seed % 2 else frozenset(), "length": (1, 3, 6)[seed % 3], "seed": seed}
        expected = result_of(toy(law, proposer, **request), TorchOps(), seed)
        found = result_of(toy(law, proposer, device="cuda", **request), ops, seed)
        assert found[:6] == expected[:6]  # what observers see is rounded otherwise


@pytest.mark.parametrize("proposer", ["none", "drafter", "prompt_lookup"])
@pytest.mark.parametrize("law", LAWS, ids=IDS)
def test_pytorch_counts_one_wait_a_round(monkeypatch, law, proposer):
    """From the first verdict on, PyTorch raises at every other wait: a number of a tensor, a copy from the host."""
    rounds = []
    read = device_rounds.numbers_of

    def verdict(numbers):
        torch.cuda.set_sync_debug_mode("default")
        rounds.append(read(numbers))
        torch.cuda.set_sync_debug_mode("error")
        return rounds[-1]

    monkeypatch.setattr(device_rounds, "numbers_of", verdict)
    lm = HuggingFaceLM(tiny_model("llama", 1).to(CUDA), take_over=True)
    try:
        decoded((lm, lm, lm), law, proposer, Randomness(0), ops=ops_for(CUDA), tokens=40)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(rounds) > 3


@pytest.mark.parametrize("eta", ["auto", "nearest", 10.0])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_law_is_the_same_on_both_devices(temperature, eta):
    law = Law("augmented", temperature=temperature, eta=eta, relevance=0.9, trust=0.5)
    for scale in (0.5, 3.0, 12.0):
        z, q = (scale * torch.randn(128_256) for _ in range(2))
        torch.testing.assert_close(law.form(z.to(CUDA), q.to(CUDA)).cpu(), law.form(z, q), rtol=1e-3, atol=1e-6)


# --- caches and memory ----------------------------------------------------------------------------------------------


def test_a_cache_is_forked_saved_and_read_back(tmp_path):
    lm = HuggingFaceLM(tiny_model("llama", 1).to(CUDA), take_over=True)
    ids = torch.randint(0, VOCAB_SIZE, (700,)).to(CUDA)
    cache = lm.new_cache(700)
    for part in torch.split(ids, 300):
        lm.forward([Rows(part, cache, 0)])
    fork = cache.fork(600, 2000)
    assert fork.shared
    cache.freeze()
    write_cache(tmp_path / "saved", cache, ids.cpu().numpy(), "model")
    _, loaded = read_cache(tmp_path / "saved", 900, 600, CUDA)
    again = fork.fork(600, 700)
    alone = lm.forward([Rows(ids[600:609], loaded, 9)])[0]
    assert torch.equal(lm.forward([Rows(ids[600:609], fork, 9)])[0], lm.forward([Rows(ids[600:609], again, 9)])[0])
    fork.rollback(600)
    torch.testing.assert_close(lm.forward([Rows(ids[600:609], fork, 9)])[0], alone, rtol=1e-3, atol=1e-3)
    assert torch.equal(fork.layer(0)[0][:, :, :600], loaded.layer(0)[0][:, :, :600])


def test_running_out_of_memory_is_told_and_the_next_step_runs():
    lm = HuggingFaceLM(tiny_model("llama", 1).to(CUDA), take_over=True)
    ids = torch.arange(9, device=CUDA)
    with pytest.raises(OutOfMemoryError), memory_errors_taught("this", "Use less"):
        lm.forward([Rows(ids, KVCache(2, 3 * 10**9), 1)])
    assert lm.forward([Rows(ids, lm.new_cache(16), 1)])[0].shape == (1, VOCAB_SIZE)


# --- steps by kernels -----------------------------------------------------------------------------------------------


def of_middle_size(dtype=torch.bfloat16, quantization=None, kind="llama", device=CUDA):
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "head_dim": 128}
    model = tiny_model(kind, 1, **sizes, num_attention_heads=16, num_key_value_heads=4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.1)  # its layers would round to noise otherwise
    return HuggingFaceLM(model.to(device, dtype), take_over=True, quantization=quantization)


def middle_ids(count, seed=0):
    return torch.randint(0, VOCAB_SIZE, (count,), generator=torch.Generator().manual_seed(seed)).to(CUDA)


def read(lm, cache, ids, parents=None):
    return lm.forward([Rows(ids, cache, len(ids), parents=parents)])[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma3"])
def test_steps_are_captured_and_compute_what_the_operators_do(kind, dtype):
    lm = of_middle_size(dtype, kind=kind)
    assert lm.kernels == "triton"
    assert type(lm._fused._gpu._graph).__name__ == "CudaGraph"
    cache = lm.new_cache(9100)
    lm.forward([Rows(middle_ids(9000), cache, 0, of_prompt=True)])
    for parents in (None, (-1, 0, 0, 1, 3)):
        ids = middle_ids(5, 1)
        found = read(lm, cache, ids, parents)
        cache.rollback(9000)
        (expected,) = lm._fused._read([Rows(ids, cache, 5, parents=parents)])
        assert relative(found, expected) < (1e-4 if dtype == torch.float32 else 3e-2)


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_a_token_has_the_same_bits_alone_among_drafts_and_in_company(quantization):
    """What the kernels promise. That a library's product gives a row the same bits in any place is seen here alone."""
    lm = of_middle_size(quantization=quantization)
    cache = lm.new_cache(2100)
    lm.forward([Rows(middle_ids(1900), cache, 0, of_prompt=True)])
    other = lm.new_cache(300)
    lm.forward([Rows(middle_ids(200, 3), other, 0, of_prompt=True)])
    for count in (2, 9, 16):
        draft = middle_ids(count, count)
        together = read(lm, cache, draft)
        cache.rollback(1900)
        company = lm.forward([Rows(middle_ids(7, 5), other, 7), Rows(draft, cache, count)])[1]
        cache.rollback(1900), other.rollback(200)
        alone = torch.cat([read(lm, cache, each) for each in draft.split(1)])
        cache.rollback(1900)
        assert torch.equal(together, alone), relative(together, alone)
        assert torch.equal(together, company), relative(together, company)


def test_views_of_chunks_are_read_where_they_lie():
    lm = of_middle_size(torch.float32)
    document = lm.new_cache(800)
    lm.forward([Rows(middle_ids(700), document, 0, of_prompt=True)])
    view = ChunkView(document, [(0, 64), (192, 320), (448, 512)], 400)
    ids = middle_ids(3, 1)
    company = lm.forward([Rows(ids, view, 3), Rows(middle_ids(2, 2), document, 2)])
    view.rollback(256)
    (expected,) = lm._fused._read([Rows(ids, view, 3)])
    assert relative(company[0], expected) < 1e-4


def test_several_gpus_have_graphs_of_their_own():
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    first, second = (of_middle_size(device=torch.device("cuda", each)) for each in (0, 1))
    assert relative(logits_of(second), logits_of(first)) < 3e-2
