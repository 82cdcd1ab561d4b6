"""The C++ kernels: against the same weights in float32, row by row bit for bit, compiled or done without."""

import ctypes
import logging
import math
import threading

import pytest
import torch

from rapid_integrations import CompressionConfig, Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.cache import Rows
from rapid_integrations.errors import CacheError, NotANumberError
from rapid_integrations.kernels import cpu as native
from rapid_integrations.kernels.cpu import compiler as builder
from rapid_integrations.kernels.cpu import library as build
from rapid_integrations.models.hf import HuggingFaceLM
from rapid_integrations.models.loader import LoadedModel
from rapid_integrations.models.vocabulary import Vocabulary
from tests.toys.budget import BUDGET, in_turn
from tests.toys.decoders import FAMILIES, error, ids, model, pair, read
from tests.toys.embedder import HashEmbedder
from tests.toys.models import EOS_ID, VOCAB_SIZE, byte_tokenizer, words
from tests.unit.kernels.cpu.eight_bits import round_inputs

pytestmark = pytest.mark.skipif(native.native_library() is None, reason="no compiler, or RAPID_NATIVE=0")


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_are_those_of_the_same_weights_in_float32(kind, quantization):
    ours, exact = pair(kind, quantization, **FAMILIES[kind])
    text = ids(600)
    lengths = [470, 1, 2, 3, 5, 8, 17, 32, 1, 1, 27, 32, 1]
    first = lengths[0]
    cache = exact.new_cache(600)
    found, expected = read(ours, text, *lengths), exact.forward([Rows(text, cache, 600)])[0]
    allowed = error(found[:first], expected[:first])  # PyTorch's bfloat16
    if quantization:  # and what comes of inputs of eight bits
        cache.rollback(first)
        round_inputs(exact.model)
        (rounded,) = exact.forward([Rows(text[first:], cache, 600 - first)])
        allowed = math.hypot(allowed, error(rounded, expected[first:]))
    assert error(found[first:], expected[first:]) < min(1.2 * allowed, 0.05 if quantization else 0.03)


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("head_dim", [32, 64, 96, 128, 160, 192, 224, 256])
@pytest.mark.parametrize("heads", [(4, 4), (4, 1), (14, 2)])
def test_head_shapes(head_dim, heads):
    count, kv = heads
    ours, exact = pair("qwen2", head_dim=head_dim, num_attention_heads=count, num_key_value_heads=kv)
    text = ids(140)
    found, expected = read(ours, text, 100, 7, 1, 32), exact.forward([Rows(text, exact.new_cache(140), 140)])[0]
    assert error(found[100:], expected[100:]) < 0.03


@pytest.mark.in_turn(2)
@pytest.mark.parametrize("past", [1, 15, 16, 17, 63, 64, 65, 511, 512, 513, 1023])
@pytest.mark.parametrize("window", [None, 1, 100, *(pytest.param(each, marks=pytest.mark.long) for each in (64, 600))])
def test_every_edge_of_tiles_chunks_and_windows(either, past, window):
    ours, exact = pair("mistral", sliding_window=window)
    text = ids(past + 20)
    found, expected = read(ours, text, past, 9, 1, 10), read(exact, text, past, 20)
    assert error(found[past:], expected[past:]) < 0.03


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
@pytest.mark.parametrize("window", [None, 70])
def test_a_token_gets_the_same_bits_alone_and_among_others(either, quantization, window):
    ours, _ = pair("mistral", quantization, sliding_window=window)
    text = ids(560)
    alone = read(ours, text, 490, *[1] * 70)
    for lengths in ([32, 32, 6], [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 5], [17] * 4 + [2]):
        assert torch.equal(read(ours, text, 490, *lengths), alone)


def test_threads_change_no_bit():
    ours, _ = pair(quantization="int4")
    text = ids(300)
    before = torch.get_num_threads()
    try:
        outcomes = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outcomes.append(read(ours, text, 250, 1, 17, 32)[250:])
    finally:
        torch.set_num_threads(before)
    # the prefill is PyTorch's, whose own sums may depend on the threads
    assert error(outcomes[1], outcomes[0]) < 1e-2 and error(outcomes[2], outcomes[0]) < 1e-2
    text = ids(60)
    cache = ours.new_cache(60)
    ours.forward([Rows(text[:40], cache, 0)])
    rows = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        cache.rollback(40)
        rows.append(ours.forward([Rows(text[40:], cache, 20)])[0])
    torch.set_num_threads(before)
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[2])


@pytest.mark.parametrize("keep", [0, 1, 4, 9])
def test_the_rows_that_are_asked_for(keep):
    ours, _ = pair()
    text = ids(49)
    expected = read(ours, text, 40, 9)[49 - keep :]
    cache = ours.new_cache(60)
    ours.forward([Rows(text[:40], cache, 0)])
    assert torch.equal(ours.forward([Rows(text[40:], cache, keep)])[0], expected)
    assert cache.length == 49
    further = read(ours, ids(50), 40, 9, 1)[-1:]
    cache = ours.new_cache(60)
    ours.forward([Rows(ids(50)[:40], cache, 0)])
    ours.forward([Rows(ids(50)[40:49], cache, keep)])
    assert torch.equal(
        ours.forward([Rows(ids(50)[49:], cache, 1)])[0], further
    )  # every row was written, whatever was kept


def test_what_lies_behind_the_text_is_never_read():
    ours, _ = pair()
    text = ids(300)
    clean = read(ours, text, 250, 10, 40)
    cache = ours.new_cache(400)
    ours.forward([Rows(text[:250], cache, 0)])
    buffers = cache.tail(0)
    with torch.inference_mode():
        for buffer in (*buffers.keys, *buffers.values):
            buffer[:, :, 250:] = float("nan")
    found = torch.cat(
        [ours.forward([Rows(text[250:260], cache, 10)])[0], ours.forward([Rows(text[260:], cache, 40)])[0]]
    )
    assert torch.equal(found, clean[250:])


def test_a_cache_that_is_full():
    ours, _ = pair()
    cache = ours.new_cache(512)
    ours.forward([Rows(ids(500), cache, 0)])
    with pytest.raises(CacheError, match="512 tokens cannot take 513"):
        ours.forward([Rows(ids(13), cache, 1)])
    assert cache.length == 500
    assert ours.forward([Rows(ids(12), cache, 1)])[0].isfinite().all()


def test_another_models_cache():
    ours, _ = pair()
    other = HuggingFaceLM(model("llama", num_key_value_heads=3), take_over=True)
    cache = other.new_cache(20)
    other.forward([Rows(ids(5), cache, 1)])
    with pytest.raises(CacheError, match="another model's"):
        ours.forward([Rows(ids(1), cache, 1)])
    with pytest.raises(CacheError, match="keep=2 of 1"):
        cache = ours.new_cache(20)
        ours.forward([Rows(ids(5), cache, 1)])
        ours.forward([Rows(ids(1), cache, 2)])


_LITTLE_MEMORY = """
import ctypes, resource, torch
assert ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD, so that what is freed is given back
from tests.toys.decoders import ids, model
from rapid_integrations.cache import Rows
from rapid_integrations.models.hf import HuggingFaceLM
lm = HuggingFaceLM(model(max_position_embeddings=70000), take_over=True)
cache = lm.new_cache(60000)
lm.forward([Rows(ids(40), cache, 1)])[0]
lm.forward([Rows(ids(1), cache, 1)])[0]
cache.advance(59000 - cache.length)
lm.forward([Rows(ids(1), cache, 1)])[0]  # what is kept for every step is made before
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, -1))
try:
    lm.forward([Rows(ids(32), cache, 32)])[0]
except MemoryError as error:
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    print("clear:", error)
    print(lm.forward([Rows(ids(32), cache, 32)])[0].shape)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="it bounds the memory of the GNU C library")
def test_a_step_without_memory_is_an_error_and_the_next_one_works(children):
    run = children.run(_LITTLE_MEMORY, seconds=120)
    assert run.returncode == 0 and "clear: a decode step found no memory" in run.stdout, run.stderr[-2000:]
    assert "torch.Size([32, " in run.stdout


def test_a_window_that_only_the_configuration_mentions():
    """Llama has none, whatever its configuration says."""
    plain = model("llama")
    plain.config.sliding_window = 40
    text = ids(120)
    with torch.no_grad():
        expected = plain.float()(input_ids=text[None]).logits[0]
    plain.bfloat16()
    lm = HuggingFaceLM(plain, take_over=True)
    assert error(read(lm, text, 100, 20), expected) < 0.03


def test_two_threads_at_once():
    ours, _ = pair()
    text = ids(200)
    expected = read(ours, text, 150, 1, 9, 40)
    wrong = []

    def work():
        for _ in range(30):
            if not torch.equal(read(ours, text, 150, 1, 9, 40), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_path_for_other_processors(portable):
    """The same sums without AVX-512."""
    assert not portable.rapid_fast_path()
    for kind, quantization in (("qwen2", None), ("qwen3", "int4"), ("mistral", "int8")):
        ours, exact = pair(kind, quantization, **FAMILIES[kind])
        ours._fused._native._library = portable
        text = ids(600)
        lengths = [470, 1, 2, 3, 5, 8, 17, 32, 1, 1, 27, 32, 1]
        found, expected = read(ours, text, *lengths), exact.forward([Rows(text, exact.new_cache(600), 600)])[0]
        assert error(found[470:], expected[470:]) < (0.05 if quantization else 0.03)
        assert torch.equal(found[470:], read(ours, text, 470, *[1] * 130)[470:])


@pytest.mark.parametrize("shape", [{"hidden_act": "tanh"}, {"intermediate_size": 48}, {"head_dim": 8}])
def test_shapes_that_are_not_served_run_on_pytorch(shape):
    lm = HuggingFaceLM(model(**shape), take_over=True)
    if shape != {"head_dim": 8} or native.native_library().rapid_fast_path():
        assert lm._fused is None or lm._fused._native is None
    assert lm.forward([Rows(ids(5), lm.new_cache(8), 1)])[0].isfinite().all()


@pytest.mark.parametrize("wrong", [-1, VOCAB_SIZE])
def test_an_id_that_is_no_token(wrong):
    ours, _ = pair()
    cache = ours.new_cache(60)
    ours.forward([Rows(ids(40), cache, 0)])
    with pytest.raises(IndexError, match=f"{VOCAB_SIZE - 1} are tokens"):
        ours.forward([Rows(torch.tensor([1, wrong]), cache, 1)])
    assert ours.forward([Rows(ids(2), cache, 1)])[0].isfinite().all() and cache.length == 42


@pytest.mark.parametrize("rows", [1, 5, 40])
@pytest.mark.parametrize("quantization", [None, "int4"])
def test_a_weight_that_is_no_number(quantization, rows):
    ours, _ = pair(quantization=quantization)
    with torch.no_grad():
        ours.model.base_model.norm.weight[3] = float("nan")
    cache = ours.new_cache(100)
    ours.forward([Rows(ids(40), cache, 0)])
    with pytest.raises(NotANumberError):
        ours.forward([Rows(ids(rows), cache, 1)])
    assert cache.length == 40


@pytest.mark.parametrize("change", [torch.set_default_dtype, torch.set_default_device])
def test_what_else_happens_in_the_process_changes_nothing(change):
    """transformers sets the default dtype of the whole process while it loads a model."""
    ours, _ = pair()
    text = ids(200)
    expected = read(ours, text, 150, 1, 9, 40)
    ours._fused._rotations._tables.clear()  # rotations are computed again
    try:
        change(torch.bfloat16 if change is torch.set_default_dtype else "meta")
        found = read(ours, text, 150, 1, 9, 40)
    finally:
        change(torch.float32 if change is torch.set_default_dtype else "cpu")
    assert torch.equal(found, expected)


def test_ids_of_another_width():
    ours, _ = pair()
    text = ids(60)
    found = [read(ours, text.to(kind), 40, 19, 1) for kind in (torch.int32, torch.int64)]
    assert torch.equal(*found)


def test_float32_runs_on_pytorch():
    assert HuggingFaceLM(model().float(), take_over=True)._fused._native is None


def test_the_switch(monkeypatch):
    monkeypatch.setenv("RAPID_NATIVE", "0")
    assert native.native_library() is None and native.why_not_native() == "RAPID_NATIVE=0 is set"
    assert HuggingFaceLM(model(), take_over=True)._fused._native is None


def test_compiled_once_and_kept(fresh_process, monkeypatch):
    stages = []
    assert build.native_library(lambda *stage: stages.append(stage)) is not None
    assert stages == [("compiling kernels", 0, 1), ("compiling kernels", 1, 1)]
    (kept,) = (fresh_process / "home" / "kernels").glob("*.so")
    monkeypatch.setattr(build, "_outcome", None)
    monkeypatch.setattr(builder, "compile_to", None)
    assert build.native_library(lambda *stage: stages.append(stage)) is not None
    assert len(stages) == 2 and kept.exists()


def test_without_a_compiler(fresh_process, monkeypatch, caplog):
    monkeypatch.setattr(builder, "find_compiler", lambda: None)
    with caplog.at_level(logging.WARNING):
        assert build.native_library() is None and build.native_library() is None
    assert "no C++ compiler was found" in build.why_not_native()
    assert len(caplog.records) == 1 and "RAPID_NATIVE=0" in caplog.text
    lm = HuggingFaceLM(model(), take_over=True, quantization="int4")
    assert lm._fused._native is None and lm.forward([Rows(ids(5), lm.new_cache(8), 1)])[0].isfinite().all()


def test_a_compiler_that_fails(monkeypatch, tmp_path):
    broken = tmp_path / "broken-cc"
    broken.write_text(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 1; exit 0; fi\necho 'no such target' >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    monkeypatch.setattr(build, "_outcome", None)
    monkeypatch.setenv("RAPID_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", str(broken))
    assert build.native_library() is None
    assert "did not compile them: no such target" in build.why_not_native()
    assert {path.suffix for path in (tmp_path / "kernels").iterdir()} <= {".lock"}


def test_a_folder_that_cannot_be_written(fresh_process, monkeypatch):
    (fresh_process / "file").write_text("")
    monkeypatch.setenv("RAPID_HOME", str(fresh_process / "file"))
    assert build.native_library() is not None


@pytest.mark.parametrize("content", [b"\xff\xfe", b""])
def test_a_damaged_checksum(fresh_process, monkeypatch, content):
    build.native_library()
    (checksum,) = (fresh_process / "home" / "kernels").glob("*.sha256")
    checksum.write_bytes(content)
    monkeypatch.setattr(build, "_outcome", None)
    assert build.native_library() is not None and checksum.read_bytes() != content


def test_a_folder_that_others_may_write_to(fresh_process, monkeypatch):
    folder = fresh_process / "home" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert build.native_library() is not None
    assert list(folder.iterdir()) == []  # nothing is run from there


def test_a_folder_from_which_nothing_may_be_run(fresh_process, monkeypatch):
    load, folder = ctypes.CDLL, str(fresh_process / "home")

    def refuse(path):
        if path.startswith(folder):
            raise OSError("failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert build.native_library() is not None


def test_a_damaged_library_is_compiled_anew(fresh_process):
    folder = fresh_process / "home" / "kernels"
    folder.mkdir(parents=True)
    kept = folder / builder._name(builder.find_compiler())
    builder._checksum_file(kept).write_text(builder._checksum(fresh_process / "compiled.so"))
    kept.write_bytes((fresh_process / "compiled.so").read_bytes()[:1000])  # to map it would kill the process
    assert build.native_library() is not None
    assert kept.read_bytes() == (fresh_process / "compiled.so").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("quantization", [None, "int4"])
@pytest.mark.parametrize("law", ["target", "augmented"])
def test_bfloat16_answers_do_not_depend_on_who_proposes(law, quantization):
    """The rows of a draft are bit for bit those of single tokens."""
    tokenizer = byte_tokenizer()
    drafter = HuggingFaceLM(model("llama", num_hidden_layers=3), take_over=True)
    engine = RapidEngine(
        LoadedModel(pair(quantization=quantization)[0], Vocabulary(tokenizer, frozenset({EOS_ID}))),
        drafter=LoadedModel(drafter, Vocabulary(tokenizer, frozenset({EOS_ID}))),
        embedder=HashEmbedder(threshold=-1.0),
        compression=CompressionConfig(chunk_tokens=16, min_tokens=64, min_chunks=1),
    )
    ways = [
        (proposer, length)
        for proposer in ("drafter", "prompt_lookup", "hybrid", "retrieval_tree", "tree_hybrid", "adaptive")
        for length in (1, 4, 16, 64)
    ]
    for seed in range(4 if BUDGET == "nightly" else 2):  # two try all ways
        answers = {
            engine.generate(
                Prompt.from_context(words(seed, 80), "which words?"),
                sampling=SamplingParams(max_new_tokens=60),
                speculation=SpeculationConfig(proposer=proposer, law=law, draft_length=length, eta=5.0),
            ).token_ids
            for proposer, length in [("none", 1), *in_turn(ways, seed)]
        }
        assert len(answers) == 1
