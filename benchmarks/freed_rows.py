"""What layers with a sliding window free, and what it costs: `python benchmarks/freed_rows.py 7000 30000`.

A random model of the size and shape of Gemma 3 270M (five windowed layers to each full one) reads a random text of each
length and then decodes. For each length: memory of the KV cache as the process has it and as the engine counts it, and
processor seconds of the prompt and of a step, with rows freed and with all rows kept. Steps are timed in alternation.
Without names of lengths, 7,000 tokens.
"""

from __future__ import annotations

import statistics
import sys
import time

import psutil
import torch
from rich.console import Console
from rich.table import Table

from rapid_integrations.cache import KVCache, Rows, freed_pages
from rapid_integrations.models.hf import HuggingFaceLM

PIECE, STEPS, VOCABULARY = 1024, 30, 4096
MIB = 2**20


def gemma_like() -> HuggingFaceLM:
    """Return a model of the shape of Gemma 3 270M with a small vocabulary."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        sliding_window=512,
        max_position_embeddings=32768,
    )
    return HuggingFaceLM(Gemma3ForCausalLM(config).bfloat16().eval(), take_over=True)


def read(lm: HuggingFaceLM, text: torch.Tensor) -> tuple[KVCache, int, int, float]:
    """Return the cache of a text, the most bytes that the process got meanwhile and has now, and the seconds."""
    process = psutil.Process()
    cache, before, most = lm.new_cache(len(text) + 512), process.memory_info().rss, 0
    start = time.process_time()
    for piece in text.split(PIECE):
        lm.forward([Rows(piece, cache, 0, of_prompt=True)])
        most = max(most, process.memory_info().rss - before)
    return cache, most, process.memory_info().rss - before, time.process_time() - start


def step(lm: HuggingFaceLM, cache: KVCache) -> float:
    """Return the processor seconds of a step of one token, which is undone."""
    start = time.process_time()
    lm.forward([Rows(torch.tensor([7]), cache, 1)])
    took = time.process_time() - start
    cache.rollback(cache.length - 1)
    return took


def main() -> None:
    """Measure all lengths."""
    torch.set_num_threads(1)
    lm = gemma_like()
    read(lm, torch.randint(0, VOCABULARY, (int(sys.argv[1]) if sys.argv[1:] else 7000,)))  # what is made once
    table = Table("tokens", "rows", "process, MiB", "at most", "counted, MiB", "prompt, s", "step, ms")
    serves = freed_pages.serves
    for length in map(int, sys.argv[1:] or ["7000"]):
        text, caches, lines = torch.randint(0, VOCABULARY, (length,)), [], []
        for name, frees in (("all kept", lambda: False), ("freed", serves)):
            freed_pages.serves = frees  # type: ignore[assignment]
            cache, most, now, seconds = read(lm, text)
            caches.append(cache)
            lines.append([f"{length:,}", name, f"{now / MIB:.0f}", f"{most / MIB:.0f}", f"{cache.nbytes / MIB:.0f}"])
            lines[-1].append(f"{seconds:.1f}")
        times = [[step(lm, cache) for cache in caches] for _ in range(STEPS)]
        for line, own in zip(lines, zip(*times, strict=True), strict=True):
            table.add_row(*line, f"{1e3 * statistics.median(own):.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
