"""A process of `rapid bench question`: one engine, asked about one document, and the waits that it had.

Its first argument is a JSON file:

    method                "rapid", "target" or a name in `benchmarks.peers.PEERS`
    run                   one of `benchmarks.waits.RUNS`
    document, questions   the text and two questions, for this engine
    prompts, shared       the same as tokens, for peers: both prompts, and what the prompts of all questions begin with
    warm_up, eos          further tokens for peers: a prompt about something else, and those that end an answer
    new_tokens            maximum length of an answer
    engine, speculation   arguments of `RapidEngine.from_pretrained`, and a `SpeculationConfig` as JSON
    target, drafter, device, dtype, threads, kv_cache, context_tokens    what peers are made from, see `PeerSource`
    files                 a folder that "ahead" writes to and "restart" reads; null for the other runs

Its second argument is the clock (`time.perf_counter`, the same in all processes) at the start of the process. The last
line of its output is JSON: "waits" by stage and "settings", or "failed", the reason why the engine cannot run.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rapid_integrations.benchmarks.measured_process import end_with_parent
from rapid_integrations.benchmarks.waits import Wait
from rapid_integrations.errors import RapidError


def main(told: dict[str, Any], begun: float) -> dict[str, Any]:
    """Ask the questions of a run. See the module."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `rapid ask`
    try:
        return _run(told, begun)
    except RapidError as error:
        return {"failed": str(error)}


def _run(told: dict[str, Any], begun: float) -> dict[str, Any]:
    opened = _imported(told["method"])
    imported = time.perf_counter()
    waits: dict[str, Wait] = {}
    with opened(told) as process:
        loaded = time.perf_counter()
        before = {"imports": imported - begun, "load": loaded - imported}
        if told["run"] == "cold":
            cpu_s = time.process_time()
            waits["cold"] = _from_start(process.ask(0), before, cpu_s)
        elif told["run"] == "restart":
            process.restore()
            restored_s, cpu_s = time.perf_counter() - loaded, time.process_time()
            waits["restart"] = _from_start(process.ask(1), before, cpu_s, restored_s)
        else:
            process.warm_up()
            if told["run"] == "warm":
                waits["first"], waits["second"] = process.ask(0), process.ask(1)
            else:
                process.read()
                waits["ahead"] = process.ask(0)
        if told["files"] is not None and told["run"] == "ahead":
            process.keep()
    return {"waits": {stage: asdict(wait) for stage, wait in waits.items()}, "settings": process.settings}


def _imported(method: str) -> Any:
    """Import the engine of a method and nothing else; returns what opens it."""
    if method in ("rapid", "target"):
        from rapid_integrations.benchmarks.own_process import OwnProcess

        return OwnProcess.opened
    from rapid_integrations.benchmarks.peer_process import PeerProcess
    from rapid_integrations.benchmarks.peers import peer_class

    peer_class(method).import_package()
    return PeerProcess.opened


def _from_start(wait: Wait, before: dict[str, float], cpu_s: float, restored_s: float = 0.0) -> Wait:
    """Return the wait from the start of the process. Loading cached rows is a part of the prefill."""
    more = sum(before.values()) + restored_s
    return replace(
        wait,
        first_token_s=wait.first_token_s + more,
        parts=before | wait.parts | {"prefill": wait.parts["prefill"] + restored_s},
        first_token_cpu_s=wait.first_token_cpu_s + cpu_s,
        total_s=wait.total_s + more,
    )


if __name__ == "__main__":
    end_with_parent()
    from rapid_integrations.cli.few_collections import few_collections

    with few_collections():
        _said = main(json.loads(Path(sys.argv[1]).read_text()), float(sys.argv[2]))
        sys.stdout.write("\n" + json.dumps(_said) + "\n")
