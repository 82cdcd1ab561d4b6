"""Requests that share documents, and what an engine without prefix reuse answers to them."""

import functools

import torch

from rapid_integrations import (
    CompressionConfig,
    Prompt,
    RapidEngine,
    SamplingParams,
    SpeculationConfig,
)
from rapid_integrations.cache import Rows
from rapid_integrations.models import loader
from tests.toys.embedder import HashEmbedder
from tests.toys.models import SHALLOW, byte_tokenizer, tiny_model, words

SMALL = CompressionConfig(chunk_tokens=64, min_tokens=64, min_chunks=2)
SHORT = SamplingParams(max_new_tokens=10)
DOCUMENT = words(1, 120)
WINDOW = 4096
MIXED = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
TAKEN_OVER = {"qwen3"}  # computed by this package's own forward pass, whose rows can be moved
ROWS_TOLERANCE = 1e-4  # on keys and values of size 1 to 10, float32: chunks of other sizes sum in another order


def engine(kind="llama", drafter=None, **options):
    size = {"max_position_embeddings": WINDOW, **(MIXED if kind == "gemma3" else SHALLOW)}
    settings = {"embedder": HashEmbedder(), "compression": SMALL, "sampling": SHORT, **options}
    if kind in TAKEN_OVER:
        return RapidEngine(loader.wrap(tiny_model(kind, 0, **size), byte_tokenizer(), take_over=True), **settings)
    return RapidEngine.from_models(
        tiny_model(kind, 0, **size),
        byte_tokenizer(),
        drafter_model=None if drafter is None else tiny_model(drafter, 5, **size),
        **settings,
    )


def about(document, question):
    return Prompt.from_context(document, question)


def assert_entries_are_right(engine):
    """Each kept cache holds what a fresh prefill of its tokens would, but for rows behind windows that are freed."""
    memory = engine._prefixes.memory
    assert memory.nbytes <= memory.max_bytes
    for entry in memory._entries:
        assert entry.cache.length == len(entry.token_ids)
        fresh = entry.model.new_cache(len(entry.token_ids))
        entry.model.forward([Rows(torch.from_numpy(entry.token_ids), fresh, 0)])
        held = torch.ones(fresh.length, dtype=torch.bool)
        for begin, end in (*entry.cache.freed, *fresh.freed):
            held[begin:end] = False
        assert held[-1] and entry.cache.windows == fresh.windows
        for layer in range(fresh.layers):
            windowed = bool(fresh.windows) and fresh.windows[layer] is not None
            seen = held if windowed else torch.ones_like(held)
            for rows, wanted in zip(entry.cache.layer(layer), fresh.layer(layer), strict=True):
                torch.testing.assert_close(rows[:, :, seen], wanted[:, :, seen], rtol=0, atol=ROWS_TOLERANCE)


PARTS = [words(seed, count) for seed, count in ((21, 20), (22, 70), (23, 150), (24, 8))]
FAMILIES = {"llama": None, "mistral": "llama", "gemma3": None, "qwen3": None}
# full, sliding and mixed attention; with a drafter; taken over


@functools.cache
def without_reuse(kind):
    return engine(kind, FAMILIES[kind], prefix_cache_bytes=0)


@functools.cache
def expected(kind, parts, question, law, proposer):
    prompt, speculation = request_of(parts, question, law, proposer)
    return without_reuse(kind).generate(prompt, speculation=speculation).token_ids


def request_of(parts, question, law, proposer):
    prompt = about(" ".join(PARTS[part] for part in parts), f"{'why ' * question}?")
    return prompt, SpeculationConfig(law=law, proposer=proposer, draft_length=3)
