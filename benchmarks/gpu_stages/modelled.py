"""Speeds that follow from the steps that were measured."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu_stages import CONTEXTS, RETRIEVAL, ROUND, ROWS, Say


def modelled(say: Say, results: list[dict[str, Any]]) -> None:
    """Tokens/s at .8 and .9, from the steps measured above, today and as graphs; each position costs its law, too.

    The law costs what it does position by position, and what a whole round's laws and verdict do, shared out.
    """
    by = {(r["stage"], r["quantization"], r["length"], r["new"]): r for r in results if "today_ms" in r}
    position = next((r["position_ms"] for r in results if r.get("law") == "greedy auto"), 0.0)
    whole = next((r["rows_round_ms"] / ROUND for r in results if "rows_round_ms" in r), position)
    for way, cost in (("today", position), ("today", whole), ("graph", whole)):
        key = f"{way}_ms"
        for length in CONTEXTS:
            for acceptance in (0.8, 0.9):
                for form, stage in ((None, "steps"), ("int4", "steps_int4")):
                    draft = by.get((stage, form, RETRIEVAL, 1), {}).get(key)
                    alone = by.get(("steps", None, length, 1), {}).get(key)
                    best = (0.0, 0)
                    for new in ROWS[1:]:
                        k, verify = new - 1, by.get(("steps", None, length, new), {}).get(key)
                        if draft and alone and verify:
                            tokens = (1 - acceptance ** (k + 1)) / (1 - acceptance)
                            best = max(best, (tokens / (verify + (k + acceptance**k) * draft + (k + 1) * cost), k))
                    if best[1]:
                        say(
                            way=way,
                            law_ms=cost,
                            length=length,
                            acceptance=acceptance,
                            drafter=form or "bfloat16",
                            draft_length=best[1],
                            tps=1e3 * best[0],
                            to_target=best[0] * alone,
                        )
