"""Passive capture: what filled a prompt template is remembered until the model reads the prompt.

A chain renders its template before it calls the model, which gets text only. LangChain tells callback handlers of each
rendering; the one here notes where the context stands in the text and what was asked. It is part of every run in the
process once a model was built, so there is a switch: `capture_templates(False)`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers.context import register_configure_hook

from rapid_integrations.segmentation import Span
from rapid_integrations.verbatim import verbatim_spans

CONTEXT_NAMES = ("context", "documents", "context_str")
QUERY_NAMES = ("question", "input", "query", "query_str")

_TEXTS = 4096  # prompts remembered; a forgotten one is segmented like any other text
_RUNS_OF_ONE_TEXT = 8
_SHORTEST_UNNAMED = 400  # characters: a shorter value is no context unless it is called one


@dataclass(frozen=True)
class Captured:
    """Where the context stands in a rendered text, and the question (None: none of the variables is one)."""

    context_spans: tuple[Span, ...]
    query: str | None


class TemplateCapture(BaseCallbackHandler):
    """Remembers renderings by the text they gave: bounded, without the text itself, safe from several threads.

    Two chains may render the same text from other variables; then the run that both rendering and model call belong
    to tells them apart.
    """

    # Not `run_inline`: LangChain's async `on_llm_start` tells the inline handlers and, where there is one, no others.

    def __init__(self, texts: int = _TEXTS) -> None:
        self.enabled = True
        self._texts = texts
        self._lock = threading.Lock()
        self._pending: OrderedDict[UUID, tuple[Mapping[str, str], UUID | None]] = OrderedDict()
        self._by_text: OrderedDict[bytes, OrderedDict[UUID | None, Captured]] = OrderedDict()

    @property
    def ignore_chain(self) -> bool:
        """Whether LangChain leaves this handler out."""
        return not self.enabled

    @property
    def ignore_llm(self) -> bool:
        """Only chains are of interest; a prompt template counts as one."""
        return True

    ignore_chat_model = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = ignore_llm

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep a template's variables until it is rendered."""
        if kwargs.get("run_type") != "prompt" or not isinstance(inputs, Mapping):
            return
        with self._lock:
            # As the template prints them: a list of documents is printed as Python writes it.
            self._pending[run_id] = ({name: str(value) for name, value in inputs.items()}, parent_run_id)
            while len(self._pending) > self._texts:
                self._pending.popitem(last=False)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note where the values stand in what was rendered."""
        with self._lock:
            variables, parent = self._pending.pop(run_id, ({}, None))
        if variables and isinstance(outputs, PromptValue):
            self._remember(outputs, variables, parent)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a rendering that failed."""
        with self._lock:
            self._pending.pop(run_id, None)

    def of(self, text: str, run: UUID | None) -> Captured | None:
        """Return what was captured of a prompt or of one message of it.

        Args:
            text: as the model got it.
            run: what the model call is part of, where that is known.
        """
        with self._lock:
            runs = self._by_text.get(_key(text))
            if not runs:
                return None
            return runs.get(run) or next(reversed(runs.values()))

    def _remember(self, rendered: PromptValue, variables: Mapping[str, str], run: UUID | None) -> None:
        whole = rendered.to_string()
        context = _context_of(variables)
        if context is None or context not in whole:
            return
        query = _query_of(variables, context, whole)
        # A chat model gets messages, one by one; a plain LLM gets all of them as one text.
        contents = (message.content for message in rendered.to_messages())
        for text in {whole, *(content for content in contents if isinstance(content, str))}:
            if spans := verbatim_spans(text, [context]):
                with self._lock:
                    key = _key(text)
                    runs = self._by_text.setdefault(key, OrderedDict())
                    runs.pop(run, None)
                    runs[run] = Captured(spans, query)
                    while len(runs) > _RUNS_OF_ONE_TEXT:
                        runs.popitem(last=False)
                    self._by_text.move_to_end(key)
                    while len(self._by_text) > self._texts:
                        self._by_text.popitem(last=False)


TEMPLATES = TemplateCapture()

_hook: ContextVar[BaseCallbackHandler | None] = ContextVar("rapid_template_capture", default=TEMPLATES)
_hooking = threading.Lock()
_hooked = False


def listen_to_templates() -> None:
    """Have LangChain tell `TEMPLATES` of every rendering from now on; calling it again changes nothing."""
    global _hooked
    with _hooking:
        if not _hooked:
            register_configure_hook(_hook, inheritable=True)
            _hooked = True


def capture_templates(enabled: bool) -> None:
    """Switch passive capture on or off for the whole process; see also the field `use_templates` of the models."""
    TEMPLATES.enabled = enabled


def current_run(run_id: UUID | None) -> UUID | None:
    """Return the run that a model call is part of: `run_id`, else what the current context says."""
    if run_id is not None:
        return run_id
    callbacks = ensure_config().get("callbacks")  # streaming calls are given no run manager
    parent: UUID | None = getattr(callbacks, "parent_run_id", None)
    return parent


def _context_of(variables: Mapping[str, str]) -> str | None:
    for name in CONTEXT_NAMES:
        if variables.get(name, "").strip():
            return variables[name].strip()
    longest = max(variables.values(), key=len, default="").strip()
    return longest if len(longest) >= _SHORTEST_UNNAMED else None


def _query_of(variables: Mapping[str, str], context: str, whole: str) -> str | None:
    others = {name: value.strip() for name, value in variables.items() if value.strip() and value.strip() != context}
    for name in QUERY_NAMES:
        if name in others and others[name] in whole:
            return others[name]
    rest = [value for value in others.values() if value in whole]
    return rest[0] if len(rest) == 1 else None


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
