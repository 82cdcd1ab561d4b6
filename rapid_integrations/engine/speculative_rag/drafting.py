"""Drafts of Speculative RAG: each is written from a subset of the passages, all of them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from rapid_integrations.config import SamplingParams, SpeculationConfig
from rapid_integrations.engine.engine import RapidEngine
from rapid_integrations.engine.speculative_rag.settings import SpeculativeRAGConfig
from rapid_integrations.outputs import Completion
from rapid_integrations.prompt import Prompt, PromptLike

ALONE = SpeculationConfig(law="target", proposer="none")
PromptOf = Callable[[str], PromptLike]
"""Returns the prompt over a text: the host's template, filled with some of its passages."""

_BETWEEN = "\n\n"
_RATIONALE = (
    "{evidence}\n\nQuestion: {question}\n\nIn one or two sentences, say what the text above says about the question. "
    "Do not answer it yet."
)


@dataclass(frozen=True)
class Draft:
    """A draft.

    Attributes:
        passages: the positions of the passages that it is from.
        evidence: their text.
        rationale: the written rationale; "" without one.
        rationale_prompt_ids, prompt_ids: the tokens that were read before the rationale and before the answer.
        completion: the answer.
    """

    passages: tuple[int, ...]
    evidence: str
    rationale: str
    rationale_prompt_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    completion: Completion


def draft_all(
    engine: RapidEngine,
    config: SpeculativeRAGConfig,
    passages: Sequence[str],
    subsets: Sequence[tuple[int, ...]],
    question: str,
    prompt_of: PromptOf,
    options: dict[str, Any],
) -> list[Draft]:
    """Return the draft of each subset, written by the engine's target at once.

    Args:
        engine: its target drafts.
        config: settings.
        passages, subsets: the passages, and positions of them.
        question: what the rationale is about.
        prompt_of: returns the prompt of an answer.
        options: arguments of `RapidEngine.stream`.

    Raises:
        RapidError: see `RapidEngine.stream`. The first error is raised when all have ended.
    """
    draft = partial(_draft, engine, config, passages, question, prompt_of, options)
    if len(subsets) == 1:
        return [draft(subsets[0])]
    with ThreadPoolExecutor(len(subsets), thread_name_prefix="rapid draft") as pool:
        return [each.result() for each in [pool.submit(copy_context().run, draft, subset) for subset in subsets]]


def _draft(
    engine: RapidEngine,
    config: SpeculativeRAGConfig,
    passages: Sequence[str],
    question: str,
    prompt_of: PromptOf,
    options: dict[str, Any],
    subset: tuple[int, ...],
) -> Draft:
    evidence = _BETWEEN.join(passages[position].strip() for position in subset)
    rationale = ""
    before: tuple[int, ...] = ()
    if config.rationale == "written":
        asked = Prompt.without_context(_RATIONALE.format(evidence=evidence, question=question), question)
        sampling: SamplingParams = options.get("sampling") or engine.sampling
        free = {"max_new_tokens": config.rationale_tokens, "structured": None, "stop": ()}
        sampling = SamplingParams(**{**sampling.model_dump(), **free})
        said, before = _answered(engine, asked, {**options, "sampling": sampling})
        rationale = said.text.strip()
    text = f"{evidence}{_BETWEEN}{rationale}" if rationale else evidence
    completion, prompt_ids = _answered(engine, prompt_of(text), options)
    return Draft(subset, evidence, rationale, before, prompt_ids, completion)


def _answered(engine: RapidEngine, prompt: PromptLike, options: dict[str, Any]) -> tuple[Completion, tuple[int, ...]]:
    """Return the answer and the tokens of its prompt."""
    with engine.stream(prompt, **{**options, "speculation": ALONE}) as stream:
        completion = Completion.join(list(stream), stream.prepared.retrieved)
        return completion, tuple(stream.prepared.target_ids)
