"""Measure how much of the annotated evidence retrieval brings to the drafter, and what it costs. No model answers.

A passage of evidence is found if at least 70% of its five-word sequences stand in the text that the drafter reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rapid_integrations.compression import Compression, ContextCompressor
from rapid_integrations.config import CompressionConfig
from rapid_integrations.errors import ConfigurationError, PromptError
from rapid_integrations.evaluation.tasks.rows import Row, read_rows, require
from rapid_integrations.progress import OnProgress, ignore_progress

BETWEEN_PASSAGES = "\n---\n"
_SEQUENCE = 5  # words
_FOUND = 0.7


@dataclass(frozen=True)
class EvidenceQuestion:
    """A question and the passages of its document that answer it."""

    question: str
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class EvidenceDocument:
    """A document with questions."""

    id: str
    text: str
    questions: tuple[EvidenceQuestion, ...]


@dataclass(frozen=True)
class Retrieved:
    """What one question's retrieval brought.

    Attributes:
        set, document, question: where the question is from; `question` is its number in the document.
        settings: the name of the retrieval settings.
        recall: share of the passages of evidence that were found.
        precision: share of the words that the drafter reads that lie in five-word sequences of the evidence.
        share: share of the document's tokens that the drafter reads.
        seconds: wall time of the search. A document's first question also pays for its index.
        first: whether it is the first question of its document.
        document_tokens: length of the document in the target's tokens.
    """

    set: str
    document: str
    question: int
    settings: str
    recall: float
    precision: float
    share: float
    seconds: float
    first: bool
    document_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def evidence_recall(evidence: Sequence[str], text: str) -> float:
    """Return the share of the passages in `evidence` of which `text` has at least 70% of the five-word sequences.

    A passage of fewer than five words is one sequence. Words are separated by white space.
    """
    words = text.split()
    found, counted = 0, 0
    for passage in evidence:
        wanted = _sequences(passage.split(), _SEQUENCE)
        if not wanted:
            continue
        there = set(_sequences(words, len(wanted[0])))
        counted += 1
        found += sum(sequence in there for sequence in wanted) >= _FOUND * len(wanted)
    return found / counted if counted else 1.0


def evidence_precision(evidence: Sequence[str], text: str) -> float:
    """Return the share of the words of `text` that lie in a five-word sequence of `evidence`, 0 for an empty text."""
    words = text.split()
    lengths: dict[int, set[tuple[str, ...]]] = {}
    for passage in evidence:
        for sequence in _sequences(passage.split(), _SEQUENCE):
            lengths.setdefault(len(sequence), set()).add(sequence)
    inside = [False] * len(words)
    for length, wanted in lengths.items():
        for begin in range(len(words) - length + 1):
            if tuple(words[begin : begin + length]) in wanted:
                inside[begin : begin + length] = [True] * length
    return sum(inside) / len(words) if words else 0.0


def _sequences(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    length = min(length, len(words))
    return [tuple(words[begin : begin + length]) for begin in range(len(words) - length + 1)] if length else []


def read_sets(data: Path) -> dict[str, list[EvidenceDocument]]:
    """Return the documents of a JSON-lines file, or of each `.jsonl` file of a folder, by the file's name.

    A line holds "document" (a text) and "questions", each with "question" and "evidence": a list of passages, or one
    text in which lines of three hyphens separate them. Questions without evidence are left out.

    Raises:
        PromptError: nothing is there, or a line is malformed.
    """
    paths = sorted(data.glob("*.jsonl")) if data.is_dir() else [data]
    sets = {path.stem: [_document(row, number, path) for number, row in enumerate(read_rows(path))] for path in paths}
    kept = {name: [each for each in documents if each.questions] for name, documents in sets.items()}
    if not any(kept.values()):
        raise PromptError(f"{data} holds no question with evidence: give a folder or a file of JSON lines that do")
    return {name: documents for name, documents in kept.items() if documents}


def _document(row: Row, number: int, path: Path) -> EvidenceDocument:
    require(row, ("document", "questions"), path.name)
    text, asked = row["document"], row["questions"]
    if not isinstance(text, str) or not isinstance(asked, list):
        raise PromptError(f"{path}, row {number + 1}: expected a text as document and a list as questions")
    questions = []
    for each in asked:
        if not isinstance(each, dict) or not isinstance(each.get("question"), str):
            raise PromptError(f"{path}, row {number + 1}: each of its questions needs a text as question")
        given = each.get("evidence") or []
        passages = given.split(BETWEEN_PASSAGES) if isinstance(given, str) else given
        if not isinstance(passages, list) or not all(isinstance(passage, str) for passage in passages):
            raise PromptError(f"{path}, row {number + 1}: evidence is a text or a list of texts")
        if kept := tuple(passage for passage in passages if passage.strip()):
            questions.append(EvidenceQuestion(each["question"], kept))
    return EvidenceDocument(str(row.get("id", number)), text, tuple(questions))


def retrieval_settings(name: str) -> CompressionConfig:
    """Return the settings that `name` stands for: a preset, options such as "chunk_tokens=256,search=words", or both.

    Raises:
        ConfigurationError: a setting is unknown or has a wrong value.
    """
    values: dict[str, Any] = {}
    for part in name.split(","):
        option, separator, value = part.strip().partition("=")
        if separator:
            values[option] = None if value == "None" else value
        elif option:
            values["preset"] = option
    return CompressionConfig(**values)


def measure(
    sets: dict[str, list[EvidenceDocument]],
    settings: dict[str, CompressionConfig],
    compressor_of: Callable[[], ContextCompressor],
    on_progress: OnProgress | None = None,
) -> Iterator[Retrieved]:
    """Yield what is retrieved for each question by each of the `settings`.

    `compressor_of` makes a new compressor for each of the settings, so that none finds what another has embedded.
    `on_progress("retrieve", done, total)` counts questions.
    """
    report = on_progress or ignore_progress
    total = len(settings) * sum(len(each.questions) for documents in sets.values() for each in documents)
    done = 0
    for name, config in settings.items():
        compressor = compressor_of()
        for set_name, documents in sets.items():
            for document in documents:
                for number, asked in enumerate(document.questions):
                    report("retrieve", done, total)
                    begin = time.perf_counter()
                    found = compressor.compress((document.text,), asked.question, config)
                    seconds = time.perf_counter() - begin
                    yield _retrieved(set_name, document, number, name, found, seconds)
                    done += 1
    report("retrieve", done, total)


def _retrieved(
    set_name: str, document: EvidenceDocument, number: int, settings: str, found: Compression, seconds: float
) -> Retrieved:
    evidence, text = document.questions[number].evidence, found.texts[0]
    return Retrieved(
        set=set_name,
        document=document.id,
        question=number,
        settings=settings,
        recall=evidence_recall(evidence, text),
        precision=evidence_precision(evidence, text),
        share=found.kept_tokens / max(1, found.context_tokens),
        seconds=seconds,
        first=number == 0,
        document_tokens=found.context_tokens,
    )


def require_names(names: Sequence[str]) -> dict[str, CompressionConfig]:
    """Return the settings by name; raises `ConfigurationError` if a name is given twice."""
    if len(set(names)) < len(names):
        raise ConfigurationError(f"retrieval settings are given twice: {', '.join(names)}. Each counts once")
    return {name: retrieval_settings(name) for name in names}
