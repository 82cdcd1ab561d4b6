"""`SpeculativeRAG` scores drafts with the target, and chooses one.

A draft's score is the product of three probabilities (arXiv 2407.08223, section 3.3):

    draft           of the draft, to the model that wrote it
    self_contained  of the draft behind the question alone, to the target
    self_reflected  of "Yes" to whether the rationale supports the draft, to the target
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rapid_integrations.config import require_known
from rapid_integrations.engine.answering import AnsweringEngine
from rapid_integrations.engine.async_stream import in_thread
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.engine.speculative_rag.drafting import Draft, PromptOf, draft_all
from rapid_integrations.engine.speculative_rag.scores import preference_of, probability_of, scores
from rapid_integrations.engine.speculative_rag.settings import SpeculativeRAGConfig
from rapid_integrations.engine.speculative_rag.subsets import subsets_of
from rapid_integrations.errors import ConfigurationError, PromptError
from rapid_integrations.outputs import Completion
from rapid_integrations.prompt import Prompt

_OF_TEMPLATE = ("apply_chat_template", "chat_template_kwargs")
_QUESTION = "Question: {question}\nAnswer:"
_REFLECTION = (
    "Rationale:\n{rationale}\n\nQuestion: {question}\nAnswer: {answer}\n\n"
    "Do you think the rationale supports the answer, yes or no?"
)
_YES, _NO = ("Yes", "yes", " Yes", " yes"), ("No", "no", " No", " no")


@dataclass(frozen=True)
class ScoredDraft:
    """A draft and its scores, each in [0, 1].

    Attributes:
        passages: the positions of the passages that it is from.
        rationale: what it was judged by: the passages' text, or the written rationale.
        completion: the answer.
        draft, self_contained, self_reflected: see this module. With a written rationale, `draft` is the mean of the
            rationale's and the answer's. Each is the geometric mean over the tokens.
    """

    passages: tuple[int, ...]
    rationale: str
    completion: Completion
    draft: float
    self_contained: float
    self_reflected: float

    @property
    def score(self) -> float:
        """The product of the three."""
        return self.draft * self.self_contained * self.self_reflected


@dataclass(frozen=True)
class SpeculativeAnswer:
    """All drafts, in the order of their subsets, and the position of the chosen one."""

    drafts: tuple[ScoredDraft, ...]
    chosen: int

    @property
    def best(self) -> ScoredDraft:
        """The chosen draft."""
        return self.drafts[self.chosen]

    @property
    def text(self) -> str:
        """The answer."""
        return self.best.completion.text


class SpeculativeRAG:
    """Answers from several subsets of the passages at once, and lets the target choose.

    The engine's drafter writes the drafts, its target scores them. If the target drafts for itself, it does both.
    Neither reads more than the passages of one draft at a time.

    Args:
        engine: a local one; one at a server gives no probabilities.
        config: settings.
    """

    def __init__(self, engine: RapidEngine, config: SpeculativeRAGConfig | None = None) -> None:
        self._engine, self._config = engine, config or SpeculativeRAGConfig()

    @cached_property
    def _drafting(self) -> RapidEngine:
        return self._engine if self._engine.self_speculation else self._engine.alone(self._engine.drafter)

    def answer(self, passages: Sequence[str], question: str, prompt_of: PromptOf, **options: Any) -> SpeculativeAnswer:
        """Return the drafts and the choice.

        Args:
            passages: what was retrieved, in the order in which a draft reads it.
            question: the question.
            prompt_of: returns the prompt over some of the passages' text.
            options: arguments of `RapidEngine.stream` for the drafts: sampling, apply_chat_template,
                chat_template_kwargs, on_progress.

        Raises:
            PromptError: there is no passage with text, or one text is given in place of passages.
            ConfigurationError: an option is unknown, or is one that Speculative RAG sets itself.
            RapidError: see `RapidEngine.stream` and `scores`.
        """
        require_known(AnsweringEngine.stream, options, owner=SpeculativeRAG)
        if "speculation" in options:
            raise ConfigurationError(
                "Speculative RAG takes no speculation: its drafter writes each draft alone. Leave it out",
                code="unknown_name",
            )
        if isinstance(passages, str):
            raise PromptError(
                "Speculative RAG drafts from several passages, and one text was given: give a list of texts"
            )
        filled = [(position, text) for position, text in enumerate(passages) if text.strip()]
        if not filled:
            raise PromptError(
                f"Speculative RAG drafts from passages: {len(passages)} were given, and none holds any text. Give what "
                "was retrieved",
                code="empty_document",
            )
        places, texts = zip(*filled, strict=True)
        subsets = subsets_of(texts, self._config.drafts, self._config.passages)
        drafts = draft_all(self._drafting, self._config, texts, subsets, question, prompt_of, options)
        scored = self._scored(drafts, question, {name: options[name] for name in _OF_TEMPLATE if name in options})
        found = tuple(
            ScoredDraft(
                tuple(places[position] for position in draft.passages),
                draft.rationale or draft.evidence,
                draft.completion,
                *of_draft,
            )
            for draft, of_draft in zip(drafts, scored, strict=True)
        )
        return SpeculativeAnswer(found, max(range(len(found)), key=lambda number: found[number].score))

    async def aanswer(
        self, passages: Sequence[str], question: str, prompt_of: PromptOf, **options: Any
    ) -> SpeculativeAnswer:
        """Do what `answer` does without blocking the event loop."""
        return await in_thread(lambda: self.answer(passages, question, prompt_of, **options))

    def _scored(
        self, drafts: Sequence[Draft], question: str, template: dict[str, Any]
    ) -> list[tuple[float, float, float]]:
        encode = self._engine.vocabulary.encode
        yes, no = (sorted({ids[0] for word in words if (ids := encode(word))}) for words in (_YES, _NO))
        yes, no = (sorted({*one} - {*other}) for one, other in ((yes, no), (no, yes)))  # " " may be a token of its own
        alone = self._ids(_QUESTION.format(question=question), template)
        own, judged = [], []
        for draft in drafts:
            answer = draft.completion.text.strip()
            said = encode(draft.rationale), encode(answer)
            own.append(probability_of(draft.prompt_ids, said[1]))
            if draft.rationale:
                own.append(probability_of(draft.rationale_prompt_ids, said[0]))
            reflection = _REFLECTION.format(
                rationale=draft.rationale or draft.evidence, question=question, answer=answer
            )
            judged += [
                probability_of(alone, [*said[1], *said[0]]),
                preference_of(self._ids(reflection, template), yes, no),
            ]
        by_drafter, by_target = iter(scores(self._drafting, own)), iter(scores(self._engine, judged))
        return [
            (
                (next(by_drafter) + next(by_drafter)) / 2 if draft.rationale else next(by_drafter),
                next(by_target),
                next(by_target),
            )
            for draft in drafts
        ]

    def _ids(self, text: str, template: dict[str, Any]) -> list[int]:
        prompt = Prompt.without_context(text)
        return list(self._engine.explain(prompt, **template).target_ids)
