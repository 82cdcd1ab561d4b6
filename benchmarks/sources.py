"""How often a cited passage is evidence: the sources of known right answers, beside the annotated passages.

    python benchmarks/sources.py FOLDER [--questions 8]

FOLDER holds JSON lines of documents with "questions", each with "question", "answers" and "evidence". The first answer
is taken as what a model said, so no model runs. A cited passage counts if it shares five successive words with the
evidence.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

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


def asked(folder: Path, most: int) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Yield the set, the document and the question, at most so many of a document."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            questions = [each for each in row["questions"] if each.get("evidence") and each.get("answers")]
            for question in questions[:most]:
                yield path.stem, row["document"], question


def main() -> None:
    """Print a table with a line for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=8, help="of each document")
    given = parser.parse_args()
    found: dict[str, list[tuple[int, int]]] = {}
    finder, indexed = None, ""
    for name, document, question in asked(given.folder, given.questions):
        if finder is None or document != indexed:
            finder, indexed = SourceFinder((document,)), document
        evidence = question["evidence"]
        passages = evidence.split(BETWEEN_PASSAGES) if isinstance(evidence, str) else evidence
        sources = finder.find(question["answers"][0], question["question"])
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
