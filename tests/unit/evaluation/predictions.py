"""Predictions without a model."""

from rapid_integrations.evaluation.predictions import Prediction
from rapid_integrations.outputs import DecodeStats, Usage


def prediction(task="t", item="0", method="lc", score=1.0, *, document="d", tokens=20, decode_s=2.0, **changes):
    stats = {
        "law": "target",
        "eta": 0.0,
        "proposer": "none",
        "segmentation": "explicit",
        "retrieval": None,
        "target": "m",
        "drafter": None,
        "rounds": 10,
        "drafted_tokens": 40 if method.startswith("rapid") else 0,
        "accepted_tokens": 30 if method.startswith("rapid") else 0,
        "compress_s": 0.0,
        "prefill_s": 1.0,
        "time_to_first_token_s": 1.0,
        "decode_s": decode_s,
        "propose_s": 0.0,
        "score_s": 0.0,
        "verify_s": 0.0,
        "tokens": tokens,
        "cache_bytes": 0,
    }
    fields = {
        "task": task,
        "item": item,
        "method": method,
        "document": document,
        "answer": "a",
        "references": ("a",),
        "metric": "f1",
        "scores": {"f1": score},
        "groups": {},
        "finish_reason": "eos",
        "usage": Usage(prompt_tokens=10, completion_tokens=tokens),
        "stats": DecodeStats(**stats),
        "seconds": 1.0,
    }
    return Prediction(**{**fields, **changes})
