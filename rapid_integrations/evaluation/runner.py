"""Run tasks x methods over one engine, by document, so that its questions and methods share one prefill.

Several questions of a document are asked at once, so that they share forward passes, too. Their answers are those of
questions asked alone, but their times are not: a pass for eight takes longer than a pass for one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice, zip_longest
from zlib import crc32

from rapid_integrations.compression import ContextCompressor
from rapid_integrations.config import CompressionConfig, SamplingParams, SpeculationConfig, StructuredOutput
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.engine.speculative_rag import SpeculativeRAG
from rapid_integrations.errors import ConfigurationError
from rapid_integrations.evaluation.contexts import UnrelatedPassages, middle_cut
from rapid_integrations.evaluation.methods import Method
from rapid_integrations.evaluation.predictions import Prediction, PredictionFile
from rapid_integrations.evaluation.tasks.base import Item, PlannedTask
from rapid_integrations.evaluation.together import Together
from rapid_integrations.outputs import Completion
from rapid_integrations.progress import OnProgress, ignore_progress
from rapid_integrations.prompt import Prompt

ALONE = SpeculationConfig(law="target", proposer="none")
AT_ONCE = 8
_TEMPLATE_TOKENS = 128  # maximum that a chat template may add
_QUESTION_TOKENS = 1024  # room in the window that generated tasks leave for the question


@dataclass
class _Document:
    """The items of a document.

    Attributes:
        items: the items to answer.
        fit: returns the part of the document that the target reads.
        other: another document of the task, for unrelated passages; None if there is none.
    """

    planned: PlannedTask
    items: Sequence[Item]
    fit: Callable[[], str]
    other: _Document | None = None

    @cached_property
    def text(self) -> str:
        """The part of the document that the target reads. It is cut when it is first needed."""
        return self.fit()


class Runner:
    """Answers every item with every method and stores the predictions.

    Args:
        engine: all methods but "rag" answer with its target. Its prefix cache serves a document's questions.
        sampling: temperature and truncations. Length and form are the items'. A seed is derived from `seed`, task and
            item, so that all methods of an item use the same one.
        compression: settings of retrieval; None takes the engine's.
        seed: see `sampling`. It matters only if the temperature is above 0.
        max_documents, max_questions: limits per task and per document; None for all.
        at_once: maximum number of a document's questions that are asked at once. 1 measures speeds, too: `Summary` has
            them only of questions that were asked alone.
        on_progress: is called with ("evaluate", done, total), and with the engine's own stages.

    Attributes:
        cut: ids of the documents that did not fit and lost their middle, by the task's label.
    """

    def __init__(
        self,
        engine: RapidEngine,
        *,
        sampling: SamplingParams | None = None,
        compression: CompressionConfig | None = None,
        seed: int = 0,
        max_documents: int | None = None,
        max_questions: int | None = None,
        at_once: int = AT_ONCE,
        on_progress: OnProgress | None = None,
    ) -> None:
        if at_once < 1:
            raise ConfigurationError(f"at_once={at_once}: at least one question has to be asked at a time")
        self._engine = engine
        self._sampling = sampling or SamplingParams()
        self._compression = compression or engine.compression
        self._seed = seed
        self._max_documents = max_documents
        self._max_questions = max_questions
        self._at_once = at_once
        self._report = on_progress or ignore_progress
        self.cut: dict[str, set[str]] = {}

    def run(
        self,
        tasks: Sequence[PlannedTask],
        methods: Sequence[Method],
        file: PredictionFile,
        *,
        max_seconds: float | None = None,
    ) -> bool:
        """Make the predictions that are missing in `file`. Return whether the file is complete.

        The tasks' documents come in turn (each task's first, then each task's second, ...), so that a stopped run has
        some predictions of every task. After `max_seconds`, no further question is begun. If a question fails, those
        that were asked with it are still answered and stored before its error is raised.

        Raises:
            ConfigurationError: two tasks have one label, or a question of `file` is another one now.
            PromptError: a task's data are missing or malformed.
            ContextOverflowError: a question alone does not fit into the target's window.
            MissingExtraError: a metric or a constrained answer needs a package that is not installed.
        """
        begin = time.monotonic()
        _require_labels(tasks)
        documents = list(self._in_turn([self._documents(planned) for planned in tasks]))
        _require_same_questions(documents, methods, file)
        total = len(methods) * sum(len(document.items) for document in documents)
        done = 0

        def take(prediction: Prediction) -> None:
            nonlocal done
            file.add(prediction)
            done += 1
            self._report("evaluate", done, total)

        self._report("evaluate", done, total)
        for document in documents:
            for items in self._groups(document):
                for method in methods:
                    label = document.planned.label
                    missing = [item for item in items if (label, item.id, method.name) not in file.predictions]
                    done += len(items) - len(missing)
                    self._report("evaluate", done, total)
                    if not missing:
                        continue
                    if max_seconds is not None and time.monotonic() - begin > max_seconds:
                        return False
                    self._predict_together(document, missing, method, take)
        return True

    # --- documents --------------------------------------------------------------------------------------------------

    def _documents(self, planned: PlannedTask) -> Iterator[_Document]:
        window = self._engine.target.context_window
        wanted = min(planned.context_tokens or window, window - _QUESTION_TOKENS)
        before: _Document | None = None
        first: _Document | None = None
        for items in islice(planned.task.documents(wanted, self._count), self._max_documents):
            if not items:  # a document without a question
                continue
            # Fitted with all its questions, asked or not, so that a run with more of them keeps the same text.
            document = _Document(planned, items[: self._max_questions], partial(self._fit, planned, items), before)
            if first is not None and first.other is None:
                first.other = document
            before, first = document, first or document
            yield document

    def _fit(self, planned: PlannedTask, items: Sequence[Item]) -> str:
        """Return the document, with its middle cut so that it fits the window with the longest question."""
        around = max(self._count(item.before + item.after) + item.max_new_tokens for item in items)
        room = self._engine.target.context_window - around - _TEMPLATE_TOKENS
        whole = items[0].document
        fitted = middle_cut(whole, max(1, min(planned.context_tokens or room, room)), self._engine.vocabulary)
        if fitted != whole:
            self.cut.setdefault(planned.label, set()).add(items[0].document_id)
        return fitted

    def _count(self, text: str) -> int:
        return len(self._engine.vocabulary.offsets(text))

    @staticmethod
    def _in_turn(tasks: Sequence[Iterator[_Document]]) -> Iterator[_Document]:
        for row in zip_longest(*tasks):
            yield from (document for document in row if document is not None)

    def _groups(self, document: _Document) -> Iterator[Sequence[Item]]:
        for start in range(0, len(document.items), self._at_once):
            yield document.items[start : start + self._at_once]

    # --- answers ----------------------------------------------------------------------------------------------------

    def _predict_together(
        self, document: _Document, items: Sequence[Item], method: Method, take: Callable[[Prediction], None]
    ) -> None:
        together = Together()
        _ = document.text, self._reader(method)  # made here, once, and not in each question's thread
        predict = partial(self._predict, document, method=method, together=together, at_once=len(items))
        together.run([partial(predict, item) for item in items], take)

    def _predict(self, document: _Document, item: Item, method: Method, together: Together, at_once: int) -> Prediction:
        begin = time.perf_counter()
        completion = self._answer(document, item, method, together)
        answer, reasoning = completion.text, ""
        if item.follow_up:
            reasoning = completion.text
            prompt = Prompt(text=item.follow_up.replace("{answer}", reasoning))
            sampling = self._sampling_of(document, item, item.follow_up_tokens, item.follow_up_form)
            answer = together.generate(self._reader(method), prompt, sampling=sampling, speculation=ALONE).text
        task = document.planned.task
        return Prediction(
            task=document.planned.label,
            item=item.id,
            method=method.name,
            document=item.document_id,
            answer=answer,
            references=item.references,
            metric=task.metric,
            scores=task.score(item, answer),
            groups=dict(item.groups),
            finish_reason=completion.finish_reason,
            usage=completion.usage,
            stats=completion.stats,
            seconds=time.perf_counter() - begin,
            reasoning=reasoning,
            at_once=at_once,
            asked=item.digest,
        )

    def _answer(self, document: _Document, item: Item, method: Method, together: Together) -> Completion:
        sampling = self._sampling_of(document, item, item.max_new_tokens, item.form)
        compressor = self._compressor(document, method)
        compression = self._compression_for(document, method)
        if method.kind == "speculative_rag":
            found = compressor.compress((document.text,), item.query, compression, self._report)
            drafting = SpeculativeRAG(self._engine, method.drafting)
            return drafting.answer(found.passages, item.query, item.without_context, sampling=sampling).best.completion
        if method.view == "retrieved":
            # The same prompt as RAPID's drafter reads, so that one prefill serves both if the model is the same.
            found = compressor.compress((document.text,), item.query, compression, self._report)
            prompt = item.prompt(found.texts[0])
        else:
            prompt = item.prompt(document.text)
        return together.generate(
            self._reader(method),
            prompt,
            sampling=sampling,
            speculation=self._speculation_of(document, method, compression),
            compression=compression,
            compressor=compressor,
            on_progress=self._report,
        )

    def _compressor(self, document: _Document, method: Method) -> ContextCompressor:
        if not method.unrelated:
            return self._engine.compressor
        if document.other is None:
            raise ConfigurationError(
                f"{method.name} takes passages of another document, but {document.planned.label} has only one: take "
                "at least two documents of it"
            )
        return UnrelatedPassages(self._engine.compressor, document.other.text)

    def _compression_for(self, document: _Document, method: Method) -> CompressionConfig:
        if method.retrieved is None:
            return self._compression
        share = min(1.0, method.retrieved / max(1, self._count(document.text)))
        return CompressionConfig(**{**self._compression.model_dump(), "ratio": share, "min_tokens": 1})

    def _speculation_of(self, document: _Document, method: Method, compression: CompressionConfig) -> SpeculationConfig:
        if method.kind != "magicdec":
            return method.speculation
        sinks = method.speculation.draft_sinks
        recent = method.recent or max(1, compression.budget(self._count(document.text)) - sinks)
        return SpeculationConfig(**{**method.speculation.model_dump(), "draft_recent": recent})

    def _sampling_of(
        self, document: _Document, item: Item, max_new_tokens: int, form: StructuredOutput | None
    ) -> SamplingParams:
        seed = crc32(f"{self._seed} {document.planned.label} {item.id}".encode())
        changed = {"max_new_tokens": max_new_tokens, "structured": form, "seed": seed}
        return SamplingParams(**{**self._sampling.model_dump(), **changed})

    # --- engines ----------------------------------------------------------------------------------------------------

    def _reader(self, method: Method) -> RapidEngine:
        """Return the engine with the answering target."""
        if method.kind == "rag":
            return self._drafter_alone
        return self._engine

    @cached_property
    def _drafter_alone(self) -> RapidEngine:
        return self._engine if self._engine.self_speculation else self._engine.alone(self._engine.drafter)


def _require_labels(tasks: Sequence[PlannedTask]) -> None:
    """Refuse two tasks whose predictions could not be told apart, such as files of one name in two folders."""
    labels = [planned.label for planned in tasks]
    if twice := [label for label in dict.fromkeys(labels) if labels.count(label) > 1]:
        raise ConfigurationError(
            f"{twice[0]} is the name of {labels.count(twice[0])} tasks, and predictions are stored by name: give each "
            "task once, and files of your own different names"
        )


def _require_same_questions(documents: Sequence[_Document], methods: Sequence[Method], file: PredictionFile) -> None:
    """Refuse a file in which a prediction answers another question than the one that has its name now."""
    for document in documents:
        label = document.planned.label
        for item in document.items:
            keys = [(label, item.id, method.name) for method in methods]
            asked = {file.predictions[key].asked for key in keys if key in file.predictions}
            if asked - {"", item.digest}:
                raise ConfigurationError(
                    f"{label}, question {item.id}: {file.path} has answers to another question, document or right "
                    "answer of this name, as the data have changed since. Choose another folder, or remove their lines"
                )
