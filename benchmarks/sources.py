"""How often a cited passage is evidence: the sources of right answers, beside the annotated passages.

    python benchmarks/sources.py FOLDER [--questions 8]
    python benchmarks/sources.py FOLDER --predictions predictions.jsonl [more.jsonl.gz] [--method rapid] [--right 0.5]

FOLDER holds JSON lines of documents with "questions", each with "question", "answers" and "evidence". The first answer
is taken as what a model said, or those of an evaluation's predictions that score at least `--right`. So no model runs.
A cited passage counts if it shares five successive words with the evidence.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rapid_integrations.compression.sources import SourceFinder
from rapid_integrations.evaluation.evidence import BETWEEN_PASSAGES

RUN = 5  # words


def runs(text: str) -> set[tuple[str, ...]]:
    """Return the sequences of five words of `text`, or its words if there are fewer."""
    words = text.split()
    length = min(RUN, len(words))
    return {tuple(words[at : at + length]) for at in range(len(words) - length + 1)} if length else set()


def is_evidence(passage: str, evidence: list[str]) -> bool:
    """Return whether `passage` shares a sequence of words with one of the passages of `evidence`."""
    return any(runs(passage) & runs(each) or each.strip() in passage for each in evidence if each.strip())


def documents(folder: Path) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Yield each set's documents, with those of their questions that have evidence and answers."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield path.stem, row, [each for each in row["questions"] if each.get("evidence") and each.get("answers")]


def known(folder: Path, most: int) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Yield the set, the document, the question and its first annotated answer, at most so many of a document."""
    for name, row, questions in documents(folder):
        for question in questions[:most]:
            yield name, row["document"], question, question["answers"][0]


def given_by_a_model(
    folder: Path, predictions: list[Path], method: str, least: float
) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Yield the same for the answers of predictions that score at least `least`; those by letter say nothing."""
    answers: dict[tuple[str, str, tuple[str, ...]], str] = {}
    for path in predictions:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row.get("method") == method and row["metric"] == "f1" and row["scores"]["f1"] >= least:
                    name = row["task"].removeprefix("evidence:")
                    answers[name, row["document"], tuple(row["references"])] = row["answer"]
    for name, row, questions in documents(folder):
        for question in questions:
            if (answer := answers.get((name, row["id"], tuple(question["answers"])))) is not None:
                yield name, row["document"], question, answer


def main() -> None:
    """Print a table with a line for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=8, help="of each document")
    parser.add_argument("--predictions", type=Path, nargs="+", help="of `rapid eval`, in place of annotated answers")
    parser.add_argument("--method", default="rapid", help="whose predictions")
    parser.add_argument("--right", type=float, default=0.5, help="F1 from which an answer counts as right")
    given = parser.parse_args()
    answers = (
        given_by_a_model(given.folder, given.predictions, given.method, given.right)
        if given.predictions
        else known(given.folder, given.questions)
    )
    found: dict[str, list[tuple[int, int]]] = {}
    finder, indexed = None, ""
    for name, document, question, answer in answers:
        if finder is None or document != indexed:
            finder, indexed = SourceFinder((document,)), document
        evidence = question["evidence"]
        passages = evidence.split(BETWEEN_PASSAGES) if isinstance(evidence, str) else evidence
        sources = finder.find(answer, question["question"])
        right = sum(is_evidence(source.text, passages) for source in sources)
        found.setdefault(name, []).append((right, len(sources)))
    table = Table("set", "questions", "with sources", "evidence among the cited")
    for name, counts in [*found.items(), ("all", [pair for pairs in found.values() for pair in pairs])]:
        right, cited = (sum(each) for each in zip(*counts, strict=True))
        share = sum(bool(count) for _, count in counts) / len(counts)
        table.add_row(name, str(len(counts)), f"{share:.0%}", f"{right / max(1, cited):.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
