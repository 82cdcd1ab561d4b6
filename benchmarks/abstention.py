"""How well `stats.answerable` tells questions that the documents answer from questions that they do not.

    python benchmarks/abstention.py FOLDER

FOLDER holds JSON lines {"document": ..., "questions": [{"question": ...}, ...]}, a file for each set. Each question is
asked about its own document and about the next one of its set, which does not answer it. No model answers: the score
comes before the prefill. The table has, for each set, the area under the ROC curve (the share of pairs in which the
own document scores higher), and over all sets the shares that a threshold would answer.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rapid_integrations import Prompt, RapidEngine
from rapid_integrations.compression import answerable, query_presence

THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7)


def area(own: list[float], other: list[float]) -> float:
    """Return the share of pairs in which the first is the larger one; equal ones count a half."""
    return statistics.mean((a > b) + (a == b) / 2 for a in own for b in other)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of JSON lines.")],
    documents: Annotated[int, typer.Option(help="Documents of each set, the shortest first.")] = 4,
    questions: Annotated[int, typer.Option(help="Questions of each document.")] = 10,
    target: Annotated[str, typer.Option(help="Model whose tokenizer cuts the documents.")] = "smollm2-135m-instruct",
    out: Annotated[Path | None, typer.Option("--json", help="File for every single score.")] = None,
) -> None:
    """Measure the score on own and on swapped documents."""
    found: dict[str, dict[bool, list[float]]] = {}
    single: list[dict[str, Any]] = []
    with RapidEngine.from_pretrained(target) as engine:
        for path in sorted(folder.glob("*.jsonl")):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            chosen = sorted(rows, key=lambda row: len(row["document"]))[:documents]
            for at, row in enumerate(chosen):
                for asked in row["questions"][:questions]:
                    for own in (True, False):
                        document = (row if own else chosen[(at + 1) % len(chosen)])["document"]
                        score = measure(engine, document, asked["question"])
                        found.setdefault(path.stem, {True: [], False: []})[own].append(score["answerable"])
                        single.append({"set": path.stem, "own": own, "question": asked["question"], **score})
                sys.stderr.write(f"{path.stem}: {at + 1}/{len(chosen)} documents\n")
    if out is not None:
        out.write_text("".join(json.dumps(each) + "\n" for each in single))
    sys.stdout.write("| set | questions | area under the curve |\n| --- | --- | --- |\n")
    for name, scores in found.items():
        sys.stdout.write(f"| {name} | {len(scores[True])} | {area(scores[True], scores[False]):.3f} |\n")
    own, other = ([score for scores in found.values() for score in scores[kind]] for kind in (True, False))
    sys.stdout.write(f"| all | {len(own)} | {area(own, other):.3f} |\n\n")
    sys.stdout.write("| abstain_below | answered, own document | answered, other document |\n| --- | --- | --- |\n")
    for least in THRESHOLDS:
        kept = [statistics.mean(score >= least for score in scores) for scores in (own, other)]
        sys.stdout.write(f"| {least} | {kept[0]:.0%} | {kept[1]:.0%} |\n")


def measure(engine: RapidEngine, document: str, question: str) -> dict[str, float | None]:
    """Return the score of a question about a document, and the two signs that it is made of."""
    similarity = engine.compressor.similarity([document], question, engine.compression)
    presence = query_presence([document], question)
    prepared = engine.explain(Prompt.from_context(document, question))
    score = answerable(presence, similarity)
    assert prepared.compression is None or not prepared.compression.shortened or prepared.answerable == score
    return {"answerable": score, "presence": presence, "similarity": similarity}


if __name__ == "__main__":
    typer.run(main)
