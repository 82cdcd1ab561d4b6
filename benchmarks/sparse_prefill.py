"""What a sparse prefill costs and saves: time, closeness of the next token's law, and token F1 on real questions.

    python benchmarks/sparse_prefill.py time FILE.jsonl --tokens 7000 --threshold 0.9 --threshold 0.95
    python benchmarks/sparse_prefill.py close FILE.jsonl... --tokens 7000 --documents 4
    python benchmarks/sparse_prefill.py answers FILE.jsonl... --questions 10

FILE.jsonl has a document and its questions with answers a line. `time` compares processor time of dense
and sparse prefills in turns, on one thread. `close` compares the laws of the next token at the last positions of
documents. `answers` asks the questions with the target alone (law "target"). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch

from rapid_integrations import Prompt, RapidEngine, SamplingParams, SpeculationConfig
from rapid_integrations.cache import TILE, Rows
from rapid_integrations.config import DEFAULT_TARGET
from rapid_integrations.decoding.reader import PREFILL_CHUNK
from rapid_integrations.kernels.cpu import prefill
from rapid_integrations.models import loader, operators_pass

SELECT = prefill.select_blocks
LEAST_TOKENS = 2048  # of documents about which questions are asked: shorter ones are read nearly densely
ENDS = 256  # last tokens whose laws are compared
TOGETHER = 16  # tokens of a pass there


class Watched:
    """Sums the processor time of attention, and counts the blocks that are read, while it is open."""

    def __enter__(self) -> Watched:
        self.seconds, self.taken, self.seen = 0.0, 0, 0
        self._before = operators_pass.attend, operators_pass.sparse_attention, prefill.select_blocks
        dense, sparse, select = self._before
        self._depth = 0
        operators_pass.attend, operators_pass.sparse_attention = self._timed(dense), self._timed(sparse)
        prefill.select_blocks = self._counted(select)
        return self

    def __exit__(self, *error: object) -> None:
        operators_pass.attend, operators_pass.sparse_attention, prefill.select_blocks = self._before

    def _timed(self, function):
        def timed(*args, **options):
            begun, outer = time.process_time(), self._depth == 0
            self._depth += 1
            try:
                return function(*args, **options)
            finally:
                self._depth -= 1
                self.seconds += (time.process_time() - begun) * outer

        return timed

    def _counted(self, function):
        def counted(*args):
            taken = function(*args)
            _, rows, columns = taken.shape
            self.taken += int(taken.sum())
            self.seen += len(taken) * (rows * (columns - rows) + rows * (rows + 1) // 2)
            return taken

        return counted

    @property
    def density(self) -> float:
        """The share of the blocks behind the dense beginning that was read."""
        return self.taken / self.seen if self.seen else 1.0


def prefilled(lm, ids: torch.Tensor, ends: int = 0):
    """Return the cache of a prompt but its last `ends` tokens, and the watch."""
    cache = lm.new_cache(len(ids))
    with Watched() as watched:
        begun = time.process_time()
        for begin in range(0, len(ids) - ends, PREFILL_CHUNK):
            piece = ids[begin : min(begin + PREFILL_CHUNK, len(ids) - ends)]
            lm.forward([Rows(piece, cache, 0, of_prompt=True)])
        total = time.process_time() - begun
    return cache, watched, total


def laws(lm, ids: torch.Tensor) -> tuple[torch.Tensor, Watched, float]:
    """Return the laws behind the last tokens, (ENDS, V), read densely behind a prefill of the others, and its times."""
    cache, watched, total = prefilled(lm, ids, ENDS)
    found = []
    for token in range(len(ids) - ENDS, len(ids), TOGETHER):
        rows = Rows(ids[token : token + TOGETHER], cache, TOGETHER)
        found.append(torch.softmax(lm.forward([rows])[0].float(), dim=-1))
    return torch.cat(found), watched, total


def documents(paths: list[Path], tokens: int, vocabulary, most: int):
    """Yield a name and token ids (tokens,) of the first documents that are so long, or of several in a row."""
    for path in paths:
        held: list[int] = []
        count = 0
        for line in path.open():
            held += vocabulary.encode(json.loads(line)["document"])
            while len(held) >= tokens and count < most:
                yield path.stem, torch.tensor(held[:tokens])
                held, count = [], count + 1
            if count == most:
                break


def say(line: str) -> None:
    """Write a line now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def choose(lm, setting: float | int | None) -> None:
    """Let a loaded model read prompts densely (None), by a threshold below 1, or by tri-shape (a window in blocks)."""
    windowed = setting is not None and setting >= 1
    lm._fused.sparse_prefill = 0.5 if windowed else setting
    prefill.select_blocks = partial(tri_shape, window=int(setting)) if windowed else SELECT


def tri_shape(query, segments, scale, threshold, window: int) -> torch.Tensor:
    """Return the blocks of MInference's tri-shape: the first one and the last `window`. The last rows are dense."""
    rows = query.shape[2] // TILE
    columns = sum(key.shape[2] for key, _ in segments) // TILE
    last = torch.arange(columns - rows, columns)[:, None]
    block = torch.arange(columns)
    taken = (block <= last) & ((block > last - window) | (block == 0))
    return taken.expand(segments[0][0].shape[1], rows, columns).contiguous()


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("time", "close", "answers"))
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--target", default=DEFAULT_TARGET)
    parser.add_argument("--tokens", type=int, default=7000)
    parser.add_argument("--threshold", type=float, action="append")
    parser.add_argument("--window", type=int, action="append", default=[], help="blocks of tri-shape, to compare with")
    parser.add_argument("--documents", type=int, default=2)
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    thresholds = [None, *(asked.threshold or (0.8, 0.9)), *asked.window]
    torch.set_num_threads(1)
    measure = {"time": measure_time, "close": measure_closeness, "answers": measure_answers}[asked.what]
    say(json.dumps(measure(asked, thresholds)))


def measure_time(asked, thresholds) -> dict:
    """Compare processor times in turns."""
    loaded = loader.load(asked.target)
    _, ids = next(iter(documents(asked.data, asked.tokens, loaded.vocabulary, 1)))
    times: dict = {str(each): [] for each in thresholds}
    for _ in range(asked.repeats):
        for threshold in thresholds:
            choose(loaded.lm, threshold)
            _, watched, total = prefilled(loaded.lm, ids)
            times[str(threshold)].append((total, watched.seconds, watched.density))
            say(f"{threshold}: {total:.2f} s, attention {watched.seconds:.2f} s, density {watched.density:.2f}")
    return {name: [statistics.median(each) for each in zip(*runs, strict=True)] for name, runs in times.items()}


def measure_closeness(asked, thresholds) -> dict:
    """Compare the laws of the next token behind sparse prefills with those behind a dense one."""
    loaded = loader.load(asked.target)
    found: dict = {str(each): [] for each in thresholds[1:]}
    for name, ids in documents(asked.data, asked.tokens, loaded.vocabulary, asked.documents):
        choose(loaded.lm, None)
        exact, watched, total = laws(loaded.lm, ids)
        say(f"{name} dense: {total:.2f} s, attention {watched.seconds:.2f} s")
        for threshold in thresholds[1:]:
            choose(loaded.lm, threshold)
            other, watched, total = laws(loaded.lm, ids)
            distance = (exact - other).abs().sum(dim=-1) / 2
            same = (exact.argmax(dim=-1) == other.argmax(dim=-1)).float().mean()
            row = (float(distance.median()), float(distance.mean()), float(same), watched.density)
            found[str(threshold)].append(row)
            say(
                f"{name} {threshold}: TV median {row[0]:.3f}, mean {row[1]:.3f}, top-1 {row[2]:.3f}, "
                f"density {watched.density:.2f}, {total:.2f} s, attention {watched.seconds:.2f} s"
            )
    return {name: [statistics.mean(each) for each in zip(*rows, strict=True)] for name, rows in found.items()}


def measure_answers(asked, thresholds) -> dict:
    """Ask the same questions with dense and sparse prefills."""
    from rapid_integrations.evaluation.metrics import token_f1

    scores: dict = {str(each): [] for each in thresholds}
    alone = SpeculationConfig(law="target", proposer="none")
    with RapidEngine.from_pretrained(asked.target, prefix_cache_bytes=0) as engine:
        longest = engine.target.context_window - 96
        for path in asked.data:
            count = 0
            for line in path.open():
                item = json.loads(line)
                tokens = len(engine.vocabulary.encode(item["document"]))
                if count == asked.questions:
                    break
                if not LEAST_TOKENS <= tokens <= longest:
                    continue
                count += 1
                question = item["questions"][0]
                prompt = Prompt.from_context(item["document"], question["question"])
                for threshold in thresholds:
                    choose(engine.target, threshold)
                    said = engine.generate(prompt, sampling=SamplingParams(max_new_tokens=48), speculation=alone)
                    scores[str(threshold)].append(token_f1(said.text, question["answers"]))
                say(f"{path.stem} {tokens} { ({name: round(each[-1], 3) for name, each in scores.items()}) }")
    return {name: (statistics.mean(each), len(each)) for name, each in scores.items() if each}


if __name__ == "__main__":
    main()
