"""Out of memory: a clear error of the exception tree, caches freed even while it is handled, the next request served.

torch raises `torch.OutOfMemoryError` on GPUs and a bare `RuntimeError` on processors, wherever memory is asked for.
"""

import gc
import sys

import pytest
import torch

from rapid_integrations import OutOfMemoryError, RapidError, SpeculationConfig
from rapid_integrations.cache import KVCache
from rapid_integrations.cache.out_of_memory import is_out_of_memory
from rapid_integrations.models import loader
from tests.toys.embedder import HashEmbedder
from tests.toys.engines import PROMPT, engine
from tests.toys.models import byte_tokenizer, tiny_model

CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:131] . DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "64000000000 bytes. Error code 12 (Cannot allocate memory)"
)
KINDS = {
    "processor": CPU,
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "python": MemoryError(),
}


def fail_at(monkeypatch, owner, name, error, call):
    """Make the `call`-th call of a method fail (from 0), the others go on."""
    original, calls = getattr(owner, name), iter(range(10**6))

    def sometimes(self, *args, **kwargs):
        if next(calls) == call:
            rows = torch.zeros(1000)  # what a failed forward pass leaves in its frame
            assert rows.numel()
            raise error
        return original(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, sometimes)


@pytest.mark.in_turn(3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (KVCache, "_allocate", 0),  # prefill of the target
        (KVCache, "_allocate", 5),  # prefill of the drafter: the target's cache is there
        ("model", "forward", 0),
        ("model", "forward", 4),  # decoding
        ("model", "new_cache", 1),
    ],
    ids=["target's cache", "drafter's cache", "prefill", "decoding", "new cache"],
)
def test_the_error_is_clear_and_everything_is_free_while_it_is_handled(
    monkeypatch,
    caches,  # noqa: F811
    owner,
    name,
    call,
    kind,
):
    with engine({"num_hidden_layers": 2}) as running:  # each has two buffers
        expected = running.generate(PROMPT).token_ids
        running.clear_prefix_cache()
        gc.collect()
        caches.clear()
        with monkeypatch.context() as patch:
            fail_at(patch, type(running.target) if owner == "model" else owner, name, KINDS[kind], call)
            try:
                running.generate(PROMPT)
            except OutOfMemoryError as error:
                said = str(error)
                assert len([cache for cache in caches if cache.nbytes]) == 0  # no gc: the traceback holds none
                assert len(running._prefixes.memory) == 0
                assert error.__cause__ is KINDS[kind]
            else:
                pytest.fail("nothing was raised")
        assert "not enough memory" in said and "quantization" in said and "\n" not in said
        assert running.generate(PROMPT).token_ids == expected


def test_embedding_without_memory(monkeypatch):
    with engine(embedder=HashEmbedder()) as running:
        expected = running.generate(PROMPT).token_ids
    with engine(embedder=HashEmbedder()) as running:
        with monkeypatch.context() as patch:
            fail_at(patch, HashEmbedder, "embed", CPU, 0)
            with pytest.raises(
                OutOfMemoryError, match="finding the passages that the question needs: .*smaller embedder"
            ):
                running.generate(PROMPT)
        assert running.generate(PROMPT).token_ids == expected


def test_loading_without_memory(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise CPU

    monkeypatch.setattr(loader, "load_with_transformers", fail)
    tiny_model("llama", 0).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(OutOfMemoryError, match="loading .*: .*DefaultCPUAllocator.*quantization='int8'"):
        loader.load(tmp_path)


def test_another_request_goes_on_when_one_runs_out_of_memory(monkeypatch):
    with engine() as running:
        expected = running.generate(PROMPT).text
        stream = running.stream(PROMPT, speculation=SpeculationConfig(draft_length=1))
        first = next(stream).text
        with monkeypatch.context() as patch:
            fail_at(patch, KVCache, "_allocate", CPU, 0)
            with pytest.raises(OutOfMemoryError):
                running.generate(PROMPT)
        assert first + "".join(chunk.text for chunk in stream) == expected


def test_other_failures_keep_their_type(monkeypatch):
    with engine() as running, monkeypatch.context() as patch:
        fail_at(patch, type(running.target), "forward", RuntimeError("mat1 and mat2 shapes cannot be multiplied"), 1)
        with pytest.raises(RuntimeError, match="shapes") as caught:
            running.generate(PROMPT)
        assert not isinstance(caught.value, RapidError)
    assert not is_out_of_memory(RuntimeError("shapes")) and not is_out_of_memory(ValueError("out of memory"))


REAL_LIMIT = """
import resource, psutil, torch
from rapid_integrations import OutOfMemoryError, RapidEngine, SamplingParams
from tests.toys.embedder import HashEmbedder
from tests.toys.models import byte_tokenizer, tiny_model
model = tiny_model("llama", 0, max_position_embeddings=10**9)
with RapidEngine.from_models(model, byte_tokenizer(), embedder=HashEmbedder(), kv_cache_bytes=10**15) as engine:
    few = SamplingParams(max_new_tokens=5)
    expected = engine.generate("where is the cat?", sampling=few).token_ids
    limit = psutil.Process().memory_info().vms + 2 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for _ in range(3):
        try:
            engine.generate("where is the cat?", sampling=SamplingParams(max_new_tokens=100_000_000))
        except OutOfMemoryError as error:
            # torch's words, or ours
            print(any(words in str(error) for words in ("DefaultCPUAllocator", "bytes were requested")))
            assert engine.generate("where is the cat?", sampling=few).token_ids == expected
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited as on Linux")
def test_the_allocator_of_a_real_process_with_too_little_memory(children):
    out = children.run(REAL_LIMIT)
    assert out.stdout.splitlines() == ["True"] * 3, out.stderr
