"""A process of `rapid bench start`: does what `rapid ask` does for one question, and prints when each part had ended.

Its argument is JSON: "document", "question" (None only loads the models), "new_tokens", "prefix_cache_dir" and
"engine", further arguments of `RapidEngine.from_pretrained`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main(told: dict[str, Any]) -> dict[str, Any]:
    """Answer the question and return the clock at the end of each part, and numbers of tokens."""
    ended = {"interpreter": time.perf_counter()}
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `rapid ask`
    from rapid_integrations.cli import ask  # noqa: F401 (what the command imports first)

    ended["command_line"] = time.perf_counter()
    import torch  # noqa: F401

    ended["torch"] = time.perf_counter()
    from rapid_integrations.benchmarks.first_token import answer
    from rapid_integrations.config import SpeculationConfig
    from rapid_integrations.engine.engine import RapidEngine
    from rapid_integrations.prompt import Prompt

    ended["package"] = time.perf_counter()
    from rapid_integrations.documents import read_document

    text = read_document(Path(told["document"])).text
    ended["document"] = time.perf_counter()
    with RapidEngine.from_pretrained(prefix_cache_dir=told["prefix_cache_dir"], **told["engine"]) as engine:
        ended["models"] = time.perf_counter()
        if told["question"] is None:
            return {"ended": ended, "prompt_tokens": 0, "cached_tokens": 0}
        prompt = Prompt.from_context([text], told["question"])
        timed, _ = answer(engine, prompt, SpeculationConfig(), told["new_tokens"])
        prefilled = timed.target_s + timed.drafter_s + timed.first_round_s
        at = ended["models"]
        lengths = {
            "retrieval": timed.first_token_s - prefilled,
            "target": timed.target_s,
            "drafter": timed.drafter_s,
            "first_round": timed.first_round_s,
            "answer": timed.total_s - timed.first_token_s,
        }
        for part, length in lengths.items():
            at += length
            ended[part] = at
    ended["close"] = time.perf_counter()
    return {"ended": ended, "prompt_tokens": timed.prompt_tokens, "cached_tokens": timed.cached_tokens}


if __name__ == "__main__":
    from rapid_integrations.cli.few_collections import few_collections

    with few_collections():
        sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))) + "\n")
