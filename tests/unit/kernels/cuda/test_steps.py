"""Whole steps by an eager stand-in for graphs, against PyTorch's operators on the same weights."""

import pytest
import torch

from rapid_integrations import RapidEngine, SamplingParams
from rapid_integrations.cache import Rows
from rapid_integrations.cache.chunk_view import ChunkView
from rapid_integrations.cache.hidden_states import LAST, WantedStates
from rapid_integrations.errors import CacheError, NotANumberError
from rapid_integrations.kernels.cuda import steps as steps_module
from rapid_integrations.kernels.cuda.graph import graph_of
from rapid_integrations.kernels.cuda.places import chunks_of
from rapid_integrations.models.gpu_steps import gpu_steps
from rapid_integrations.models.hf import HuggingFaceLM
from tests.toys.decoders import error, ids
from tests.toys.embedder import HashEmbedder
from tests.toys.engines import PROMPT, SMALL
from tests.toys.models import VOCAB_SIZE, byte_tokenizer, tiny_model
from tests.unit.kernels.cuda.waits import NoWaits

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma3", "phi3")


def taken_over(kind="llama", quantization=None, **config):
    model = tiny_model(kind, 1, **config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.5)
    return HuggingFaceLM(model, take_over=True, quantization=quantization)


def on_kernels(monkeypatch, *arguments, **config):
    """Return a model whose steps the kernels compute, a step in 16 rows: the interpreter takes a while for each."""
    lm = taken_over(*arguments, **config)
    fused = lm._fused
    assert fused._gpu is None and fused._native is None
    with monkeypatch.context() as patched:
        patched.setenv("RAPID_CUDA", "interpret")
        patched.setattr(steps_module.GraphSteps.__init__, "__defaults__", (graph_of, 16, None))
        fused._gpu, reason = gpu_steps(fused._described, fused._layers, fused._head, fused._rotations.pairs)
    assert not reason
    return lm


def pair(monkeypatch, *arguments, **config):
    """Return a model on the kernels, and the same one on the operators."""
    return on_kernels(monkeypatch, *arguments, **config), taken_over(*arguments, **config)


def read(lm, cache, tokens, keep=None, parents=None):
    return lm.forward([Rows(tokens, cache, len(tokens) if keep is None else keep, parents=parents)])[0]


def prompt(lm, length, seed=0, capacity=None):
    cache = lm.new_cache(capacity or length + 64)
    lm.forward([Rows(ids(length, seed), cache, 0, of_prompt=True)])
    return cache


def same(found, expected):
    torch.testing.assert_close(found, expected, atol=5e-4, rtol=5e-4)


@pytest.mark.parametrize("kind", FAMILIES)
def test_steps_compute_what_the_operators_do(monkeypatch, kind):
    ours, reference = pair(monkeypatch, kind)
    caches = [prompt(lm, 40) for lm in (ours, reference)]
    for seed, count in enumerate((1, 5, 2)):
        found, expected = (
            read(lm, cache, ids(count, seed)) for lm, cache in zip((ours, reference), caches, strict=True)
        )
        same(found, expected)
    tree = (-1, 0, 0, 2)
    same(*(read(lm, cache, ids(4, 9), parents=tree) for lm, cache in zip((ours, reference), caches, strict=True)))


def test_a_model_is_loaded_onto_the_kernels(monkeypatch):
    monkeypatch.setenv("RAPID_CUDA", "interpret")
    lm = taken_over("qwen2")  # loading compares some steps with the model's own
    assert lm.kernels == "triton" and lm._fused._gpu.captures == 1
    monkeypatch.setenv("RAPID_CUDA", "0")
    assert taken_over("qwen2").kernels.startswith("none (")


def test_rollbacks_lengths_caches_and_capacities_between_replays(monkeypatch):
    ours, reference = pair(monkeypatch)
    documents = [prompt(lm, 300) for lm in (ours, reference)]
    others = [prompt(lm, 7, seed=3, capacity=900) for lm in (ours, reference)]
    captures = ours._fused._gpu.captures
    for round_ in range(2):
        for caches in (documents, others):
            drafts = [read(lm, cache, ids(4, round_)) for lm, cache in zip((ours, reference), caches, strict=True)]
            same(*drafts)
            for cache in caches:
                cache.rollback(cache.length - 4 + round_)  # so many of the draft stand
    forks = [cache.fork(290, 700) for cache in documents]
    assert all(fork.shared for fork in forks)
    same(*(read(lm, cache, ids(3, 8)) for lm, cache in zip((ours, reference), forks, strict=True)))
    assert ours._fused._gpu.captures == max(captures, 1)


def test_target_and_drafter_rows_and_other_requests_share_a_pass(monkeypatch):
    ours, reference = pair(monkeypatch)
    results = []
    for lm in (ours, reference):
        document = prompt(lm, 300)
        caches = [prompt(lm, 30, seed=1), document.fork(290, 400), document.fork(280, 400)]
        asked = [
            Rows(ids(count, count), cache, keep)
            for count, cache, keep in zip((3, 4, 1), caches, (3, 2, 0), strict=True)
        ]
        results.append(lm.forward(asked))
        results[-1] += [read(lm, cache, ids(2)) for cache in caches]
    assert [len(each) for each in results[0]] == [3, 2, 0, 2, 2, 2]
    for found, expected in zip(*results, strict=True):
        same(found, expected)


def test_a_token_has_the_same_bits_alone_and_in_company(monkeypatch):
    lm = on_kernels(monkeypatch, "qwen3")
    document = prompt(lm, 300)
    draft = ids(6, 4)

    def forked():
        return document.fork(290, 400)

    one_by_one = forked()
    alone = torch.cat([read(lm, one_by_one, draft[i : i + 1]) for i in range(6)])
    assert torch.equal(read(lm, forked(), draft), alone)
    company = [Rows(ids(3, 1), prompt(lm, 90, seed=2), 1), Rows(draft, forked(), 6), Rows(ids(7, 2), forked(), 2)]
    assert torch.equal(lm.forward(company)[1], alone)


def test_views_of_chunks_are_read_where_they_lie(monkeypatch):
    """Their keys begin within another cache's buffers, and their next token stands further on than among them."""
    ours, reference = pair(monkeypatch, "qwen3")
    results = []
    for lm in (ours, reference):
        document = prompt(lm, 400, capacity=500)
        view = ChunkView(document, [(0, 64), (192, 320)], 300)
        assert view.position == view.length + 128
        company = [Rows(ids(3, 1), view, 3), Rows(ids(2, 2), document, 2)]
        results.append([*lm.forward(company), read(lm, view, ids(2, 3), parents=(-1, -1))])
    assert ours._fused._gpu.captures == 1
    for found, expected in zip(*results, strict=True):
        same(found, expected)


def test_whoever_shares_a_pass_with_rows_that_no_step_reads_has_its_own_bits(monkeypatch):
    lm = on_kernels(monkeypatch)
    alone = read(lm, prompt(lm, 40), ids(3))
    first = Rows(ids(4, 6), lm.new_cache(64), 4)  # of a text of which nothing has been read
    company = lm.forward([first, Rows(ids(3), prompt(lm, 40), 3)])
    assert torch.equal(company[1], alone)
    plain = taken_over()
    same(company[0], read(plain, plain.new_cache(64), ids(4, 6)))


def test_hidden_states_are_those_of_the_operators(monkeypatch):
    """Trained heads draft from them: with and without a head, an answer's rows are read by the same kernels."""
    ours, reference = pair(monkeypatch)
    logits, given = [], []
    for lm in (ours, reference):
        taken = []
        states = WantedStates((0, LAST, 1), 45, lambda at, tokens, tree, found, taken=taken: taken.append((at, found)))
        behind, before = prompt(lm, 50), prompt(lm, 20, seed=1)
        rows = [Rows(ids(3, 2), before, 3, states=states), Rows(ids(4, 3), behind, 1, states=states)]
        logits.append(lm.forward(rows))
        given.append(taken)
    assert ours._fused._gpu.captures == 1
    for found, expected in zip(*logits, strict=True):
        same(found, expected)
    ((at, found),), ((_, expected),) = given  # those before position 45 are not wanted
    assert at == 50 and found.shape == (4, 3 * 32)
    same(found, expected)
    plain = read(ours, prompt(ours, 50), ids(4, 3))
    assert torch.equal(plain[-1:], logits[0][1])  # a step that gives states has the same bits


def test_space_for_partial_results_grows_with_the_text(monkeypatch):
    monkeypatch.setattr(steps_module, "_LEAST_CHUNKS", 1)
    ours, reference = pair(monkeypatch)
    steps = ours._fused._gpu
    captures = steps.captures
    caches = [prompt(lm, 600) for lm in (ours, reference)]
    same(*(read(lm, cache, ids(2)) for lm, cache in zip((ours, reference), caches, strict=True)))
    assert steps.captures == captures + 1
    assert steps._log_sums.shape[2] >= chunks_of(602)
    read(ours, caches[0], ids(2))
    assert steps.captures == captures + 1


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_quantised_products(monkeypatch, quantization):
    ours, reference = pair(monkeypatch, "llama", quantization)
    caches = [prompt(lm, 20) for lm in (ours, reference)]
    found, expected = (read(lm, cache, ids(5)) for lm, cache in zip((ours, reference), caches, strict=True))
    assert error(found, expected) < 1e-4


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_nothing_of_a_graph_waits_for_the_device(monkeypatch, quantization):
    lm = on_kernels(monkeypatch, "llama", quantization)
    cache = prompt(lm, 20)  # it has to live as long as its addresses are used
    read(lm, cache, ids(2))
    with torch.inference_mode(), NoWaits():
        lm._fused._gpu._step()
    monkeypatch.setattr(lm._fused._gpu, "_check_ids", lambda rows: None)  # looks at ids of the processor only
    with NoWaits():
        lm.forward([Rows(ids(2), cache, 2, check=False)])
    with pytest.raises(AssertionError, match="waits"), NoWaits():
        bool(torch.ones(1).isnan().any())


def test_an_unknown_id_is_refused_and_the_next_step_is_right(monkeypatch):
    ours, reference = pair(monkeypatch)
    caches = [prompt(lm, 20) for lm in (ours, reference)]
    with pytest.raises(IndexError, match=f"0 to {VOCAB_SIZE - 1}"):
        read(ours, caches[0], torch.tensor([1, VOCAB_SIZE]))
    assert caches[0].length == 20
    same(*(read(lm, cache, ids(2)) for lm, cache in zip((ours, reference), caches, strict=True)))


def test_nan_is_noticed_and_does_not_stay(monkeypatch):
    ours, reference = pair(monkeypatch)
    damaged = prompt(ours, 20, seed=5)
    with torch.inference_mode():
        damaged.tail(0).layer(0)[0][:, :, 3] = float("nan")
    with pytest.raises(NotANumberError):
        read(ours, damaged, ids(2))
    caches = [prompt(lm, 20) for lm in (ours, reference)]
    same(*(read(lm, cache, ids(2)) for lm, cache in zip((ours, reference), caches, strict=True)))


def test_another_models_cache_is_refused(monkeypatch):
    ours, other = on_kernels(monkeypatch), taken_over(head_dim=16)
    with pytest.raises(CacheError, match="another model's"):
        read(ours, prompt(other, 20), ids(1))


@pytest.mark.parametrize(
    "kind", ["llama", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("qwen2", "qwen3"))]
)
def test_answers_are_those_of_the_operators(monkeypatch, tmp_path, kind):
    tiny_model(kind, 1, vocab_size=264).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    answers = {}
    for switch in ("interpret", "0"):
        monkeypatch.setenv("RAPID_CUDA", switch)
        engine = RapidEngine.from_pretrained(
            tmp_path, dtype="float32", device="cpu", embedder=HashEmbedder(), compression=SMALL
        )
        greedy = engine.generate(PROMPT, sampling=SamplingParams(max_new_tokens=5))
        seeded = engine.generate(PROMPT, sampling=SamplingParams(max_new_tokens=5, temperature=1.0, seed=3))
        answers[switch] = [(each.text, each.token_ids) for each in (greedy, seeded)]
        assert (greedy.stats.kernels == "triton") == (switch == "interpret")
        engine.close()
    assert answers["interpret"] == answers["0"]
