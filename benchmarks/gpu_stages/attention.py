"""One layer's attention: steps, and pieces of a prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu_stages import CONTEXTS, DEVICE, DRY, HEAD_DIM, HEADS, KV_HEADS, PIECES, RETRIEVAL, ROWS, Say
from benchmarks.gpu_stages.timing import first_and_steady_ms, kernels, ms, peak_gb

_MASKED = 40_000  # tokens; behind more, all scores of a piece may take all memory, and the time of the other stages


def folded(q: Any, k: Any, v: Any, scale: float) -> Any:
    """The path without the flash operator."""
    from rapid_integrations.kernels.layers import PLAIN
    from rapid_integrations.models.attention import _folded
    from rapid_integrations.models.mask import Sight

    return _folded(q, [(k, v)], scale, Sight(None, None), PLAIN)


def masked(q: Any, k: Any, v: Any, scale: float) -> Any:
    """A prompt's piece by the library's attention with a mask, as before flash attention was used."""
    from rapid_integrations.models.attention import _fused
    from rapid_integrations.models.mask import Sight

    return _fused(q, k, v, scale, Sight(None, None))


def today(q: Any, k: Any, v: Any, scale: float) -> Any:
    """What the package runs."""
    from rapid_integrations.models.attention import attend

    return attend(q, [(k, v)], scale, None)


def random_kv(length: int, bytes_wanted: float = 0.0 if DRY else 1.5e9) -> list[tuple[Any, Any]]:
    """Sets of keys and values, enough of them that repeated runs do not find one in the L2 cache."""
    one = 4 * KV_HEADS * length * HEAD_DIM
    shape = (1, KV_HEADS, length, HEAD_DIM)
    return [
        tuple(torch.randn(shape, dtype=torch.bfloat16, device=DEVICE) for _ in range(2))  # type: ignore[misc]
        for _ in range(max(1, min(16, int(bytes_wanted // one))))
    ]


def relative(found: Any, expected: Any) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def attention(say: Say) -> None:
    """One layer's attention: what runs today, and what could run instead; microseconds, GB/s and error."""
    from torch.nn.attention.bias import causal_lower_right
    from torch.nn.functional import scaled_dot_product_attention as sdpa

    scale = HEAD_DIM**-0.5
    for length in (RETRIEVAL, CONTEXTS[0], CONTEXTS[-1]):
        sets = random_kv(length)
        read = 4 * KV_HEADS * length * HEAD_DIM
        for new in ROWS:
            q = torch.randn(1, new, HEADS, HEAD_DIM, dtype=torch.bfloat16, device=DEVICE).transpose(1, 2)
            ways: dict[str, Callable[[Any, Any], Any]] = {
                "today": lambda k, v, q=q: today(q, k, v, scale),
                "folded": lambda k, v, q=q: folded(q, k, v, scale),
                "sdpa lower right": lambda k, v, q=q, n=new, m=length: sdpa(
                    q, k, v, attn_mask=causal_lower_right(n, m), scale=scale, enable_gqa=True
                ).transpose(1, 2),
            }
            exact = folded(q.float(), *(x.float() for x in sets[0]), scale)
            row: dict[str, Any] = {"length": length, "new": new}
            for name, way in ways.items():
                try:
                    took = ms(lambda i, way=way: way(*sets[i % len(sets)]))
                    error = relative(way(*sets[0]), exact)
                    row[name] = {"us": round(1e3 * took, 1), "gb_per_s": round(read / took / 1e6), "error": error}
                except Exception as failed:
                    row[name] = repr(failed)[:300]
            say(**row)
        del sets
        torch.cuda.empty_cache()


def prefill(say: Say) -> None:
    """A chunk's attention behind a filled cache: which kernel runs, what its first call costs, and the way out."""
    scale = HEAD_DIM**-0.5
    for chunk, past in PIECES:
        total = past + chunk
        k, v = random_kv(total, 0)[0]
        q = torch.randn(1, chunk, HEADS, HEAD_DIM, dtype=torch.bfloat16, device=DEVICE).transpose(1, 2)
        flops = 4 * HEADS * HEAD_DIM * chunk * (past + chunk / 2)
        row: dict[str, Any] = {"chunk": chunk, "past": past}
        ways = {"today": lambda: today(q, k, v, scale)}
        if total <= _MASKED:
            ways["masked"] = lambda: masked(q, k, v, scale)
        for name, way in ways.items():
            peak_gb()
            before = torch.cuda.memory_allocated()
            try:
                first, steady = first_and_steady_ms(way)
                row[name] = {
                    "first_ms": round(first, 1),
                    "ms": round(steady, 3),
                    "tflops": round(flops / steady / 1e9),
                    "peak_gb": round(peak_gb() - before / 1e9, 2),
                    "kernels": kernels(way, 3),
                }
            except Exception as failed:
                row[name] = repr(failed)[:300]
                torch.cuda.empty_cache()
        say(**row)
        del q, k, v
