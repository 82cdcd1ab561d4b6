"""What chunk KV costs in quality and saves in time: q beside the exact q, and the drafter's prefill.

python benchmarks/chunk_kv.py FOLDER --model smollm2-135m-instruct --documents 1 --questions 3

FOLDER holds JSON lines {"document": ..., "questions": [{"question": ..., "answers": [...]}, ...]}. For each question,
the drafter's prompt is prefilled, and again with rows from elsewhere. Then q is compared at every position of the exact
answer. Ways: the target's own rows of the whole document, moved; the same rows where they lie ("view"); each chunk read
alone; each chunk read behind the beginning of the drafter's prompt. The number is that of the tokens of each run that
are read anew.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from rapid_integrations import Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.cache.prefix_cache import common_prefix
from rapid_integrations.decoding import chunk_view, moved_rows
from rapid_integrations.decoding.passes import run_alone
from rapid_integrations.decoding.reader import Reader
from rapid_integrations.engine.prepared_prompt import PreparedPrompt
from rapid_integrations.evaluation.metrics import token_f1
from rapid_integrations.prompt import RenderedPrompt

WAYS = (("target", 0), ("target", 16), ("alone", 16), ("behind", 16))
Taken = list[tuple[moved_rows.Run, KVCache]]


class Drafters:
    """Prefills the drafter's prompts of one document's questions in each way, with the rows of the target's prompt."""

    def __init__(self, engine: RapidEngine, target: KVCache, target_ids: list[int]) -> None:
        self._engine, self._target, self._target_ids = engine, target, target_ids
        self._chunks: dict[tuple[int, ...], KVCache] = {}

    def taken(self, way: str, prepared: PreparedPrompt) -> Taken:
        """Return the runs of a drafter's prompt, each with the cache of its rows. Caches of chunks are made before."""
        ids = prepared.drafter_ids
        if way == "target":
            return [(run, self._target) for run in moved_rows.common_runs(ids, self._target_ids)]
        start = prepared.drafter.context_spans[0][0]
        opening = RenderedPrompt(prepared.drafter.text[:start], (), (), "", "plain", templated=True)
        begin = common_prefix(np.array(ids), np.array(self._engine.vocabulary.encode_prompt(opening)))
        before = ids[:begin] if way == "behind" else []
        taken: Taken = []
        for chunk in prepared.retrieved:
            source = [*before, *self._engine.vocabulary.encode(chunk.text)]
            cache = self._chunk(source)
            runs = [run for run in moved_rows.common_runs(ids, source, begin) if run.source >= len(before)]
            if runs:
                taken.append((runs[0], cache))
                begin = runs[0].begin + runs[0].length
        return taken

    def viewing(self, prepared: PreparedPrompt, new_tokens: int) -> Reader:
        """Return a reader that sees the target's rows of the chunks where they lie."""
        closing = self._engine.vocabulary.encode(prepared.target.text[prepared.target.context_spans[-1][1] :])
        runs = moved_rows.common_runs(prepared.drafter_ids, self._target_ids)
        chosen = chunk_view.choose(prepared.drafter_ids, self._target_ids, runs, len(closing))
        return chunk_view.reader_over(self._engine.drafter, chosen, self._target, new_tokens)

    def _chunk(self, ids: list[int]) -> KVCache:
        key = tuple(ids)
        if key not in self._chunks:
            cache = self._engine.drafter.new_cache(len(ids))
            self._engine.drafter.forward([Rows(torch.tensor(ids), cache, 0, of_prompt=True)])
            self._chunks[key] = cache
        return self._chunks[key]


def q_along(reader: Reader, answer: list[int]) -> Tensor:
    """Return q (len(answer), V) at temperature 1 at every position of an answer."""
    (logits,) = reader.model.forward([reader.wants(answer[:-1], keep=len(answer))])
    return torch.softmax(logits.float(), dim=-1)


def main(
    folder: Annotated[Path, typer.Argument(help="JSON lines with documents and questions.")],
    model: Annotated[str, typer.Option(help="Packaged name, GGUF file, folder or hub name.")] = "smollm2-135m-instruct",
    quantization: Annotated[str | None, typer.Option(help="int8 or int4.")] = None,
    documents: Annotated[int, typer.Option(help="Documents of each file.")] = 1,
    questions: Annotated[int, typer.Option(help="Questions of each document.")] = 3,
    longest: Annotated[int, typer.Option(help="Longest document, in tokens.")] = 6000,
    new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 24,
) -> None:
    """Compare q and answers with and without chunk KV."""
    settings: dict[str, Any] = {"quantization": quantization} if quantization else {}
    sampling = SamplingParams(max_new_tokens=new_tokens)
    figures: dict[str, list[dict[str, float]]] = defaultdict(list)
    with RapidEngine.from_pretrained(model, sampling=sampling, **settings) as engine:
        for path in sorted(folder.glob("*.jsonl")):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            fitting = [row for row in rows if len(engine.vocabulary.encode(row["document"])) <= longest]
            for row in sorted(fitting, key=lambda row: len(row["document"]))[:documents]:
                for asked in row["questions"][:questions]:
                    found = measure(engine, row["document"], asked)
                    sys.stderr.write(json.dumps({"file": path.name, **found}) + "\n")
                    sys.stderr.flush()
                    for way, values in found.items():
                        figures[way].append(values)
    for way, each in figures.items():
        summary = {name: summarised(name, [values[name] for values in each if name in values]) for name in each[0]}
        sys.stdout.write(json.dumps({"way": way, "questions": len(each), **summary}) + "\n")


def summarised(name: str, values: list[float]) -> float:
    """Return the median of times and distances, and the mean of shares and scores."""
    taken = statistics.median if name in ("tv", "seconds") else statistics.mean
    return round(taken(values), 4)


def measure(engine: RapidEngine, document: str, asked: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return a question's figures for each way; empty if the drafter reads the whole document.

    `tv` is the mean total variation to the exact q over the positions of the exact answer, `greedy` the share of the
    positions with the same best token, `seconds` the processor time of the drafter's prefill, and `taken` the share of
    its prompt that was not read. `same` says whether the answer of the law "augmented" is the same.
    """
    prompt = Prompt.from_context(document, asked["question"])
    exact = engine.generate(prompt, speculation=SpeculationConfig(law="augmented"))
    elsewhere = {
        name: engine.generate(prompt, speculation=SpeculationConfig(law="augmented", chunk_cache=way))
        for name, way in ((f"target {moved_rows.REPAIRED}", "target"), ("view", "view"))
    }
    prepared = engine.explain(prompt)
    ids, answer = prepared.drafter_ids, list(exact.token_ids)
    if prepared.compression is None or not prepared.compression.shortened:
        return {}
    room = len(prepared.target_ids) + len(answer)
    cache = engine._prefixes.memory.take(engine.target, [*prepared.target_ids, -1], room)
    assert cache is not None, "the engine keeps what it has just read"
    drafters = Drafters(engine, cache, prepared.target_ids)
    target = Reader(engine.target, prepared.target_ids, room, cache.fork(len(prepared.target_ids) - 1, room))
    p = q_along(target, answer)
    found: dict[str, dict[str, float]] = {}
    q: Tensor | None = None
    for way, repaired in (("exact", 0), ("view", 0), *WAYS):
        begun = time.process_time()
        if way == "view":
            reader = drafters.viewing(prepared, len(answer))
            run_alone(reader.prefill())
        else:
            taken = [] if way == "exact" else drafters.taken(way, prepared)
            reader = Reader(engine.drafter, ids, len(ids) + len(answer))
            begun = time.process_time()
            run_alone(moved_rows.prefill(reader, taken, repaired=repaired))
        seconds = time.process_time() - begun
        own = q_along(reader, answer)
        q = own if q is None else q
        found[f"{way} {repaired}" if (way, repaired) in WAYS else way] = {
            "tv": float((own - q).abs().sum(-1).mean() / 2),
            "greedy": float((own.argmax(-1) == q.argmax(-1)).float().mean()),
            "seconds": seconds,
            "taken": reader.reused / len(ids),
            "tv_to_p": float((own - p).abs().sum(-1).mean() / 2),
        }
    for way, completion in (("exact", exact), *elsewhere.items()):
        f1 = token_f1(completion.text, asked["answers"])
        found[way] |= {"f1": f1, "same": float(completion.token_ids == exact.token_ids)}
    return found


if __name__ == "__main__":
    typer.run(main)
