"""Passive capture: what filled a prompt template is remembered until the model reads the prompt.

A chain renders its template before it calls the model, which gets text only. LangChain tells callback handlers of each
rendering; the one here notes where the context stands in the text and what was asked. LLMChain and nodes of a graph
render without a word; there, the inputs of the runs that the model call is part of are looked at. The handler is part
of every run in the process once a model was built, so there is a switch: `capture_templates(False)`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers.context import register_configure_hook

from langchain_rapid.messages import text_of
from langchain_rapid.template_variables import Roles, is_context, roles_of
from rapid_integrations.adapters.verbatim import verbatim_spans
from rapid_integrations.errors import PromptError
from rapid_integrations.prompt.segmentation import MIN_CONTEXT_CHARACTERS, Span

_TEXTS = 4096  # prompts remembered; a forgotten one is segmented like any other text
_RUNS_OF_ONE_TEXT = 8
_LEVELS = 6  # of runs within runs whose inputs may hold the context


@dataclass(frozen=True)
class Captured:
    """Where the context stands in a rendered text, and the question.

    Attributes:
        context_spans: empty: the template has a place for a context, and nothing was there.
        query: None: none of the variables is one.
        segmentation: how it came to be known.
    """

    context_spans: tuple[Span, ...]
    query: str | None
    segmentation: str = "template"


@dataclass(frozen=True)
class _Run:
    parent: UUID | None
    inputs: Mapping[str, Any] | None  # where any of them is a context


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
        self._pending: OrderedDict[UUID, tuple[Mapping[str, Any], UUID | None]] = OrderedDict()
        self._running: OrderedDict[UUID, _Run] = OrderedDict()
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
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep a template's variables until it is rendered, and a chain's inputs while it runs."""
        if kwargs.get("run_type") == "prompt":
            if variables := _variables(serialized or {}, inputs):
                with self._lock:
                    _put(self._pending, run_id, (variables, parent_run_id), self._texts)
            return
        with self._lock:
            _put(self._running, run_id, _Run(parent_run_id, _with_context(inputs)), self._texts)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Note where the values stand in what was rendered."""
        with self._lock:
            self._running.pop(run_id, None)
            variables, parent = self._pending.pop(run_id, ({}, None))
        if variables and isinstance(outputs, PromptValue):
            self._remember(outputs, variables, parent)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a rendering that failed."""
        with self._lock:
            self._running.pop(run_id, None)
            self._pending.pop(run_id, None)

    def of(self, text: str, run: UUID | None, whole: str | None = None) -> Captured | None:
        """Return what was captured of a prompt or of one message of it.

        Args:
            text: as the model got it.
            run: what the model call is part of, where that is known.
            whole: all messages' texts, in any of which the question may stand; None: `text` is all.
        """
        with self._lock:
            if runs := self._by_text.get(_key(text)):
                return runs.get(run) or next(reversed(runs.values()))
            around = list(self._around(run))
        for inputs in around:
            roles = roles_of(inputs, whole or text, by_name_only=True)
            if roles is not None and (spans := verbatim_spans(text, roles.contexts, repeated=True)):
                return Captured(spans, roles.query, "chain")
        return None

    def _around(self, run: UUID | None) -> Iterator[Mapping[str, Any]]:
        """Yield the inputs of the runs that `run` is part of, from the inside out, where they hold a context."""
        for _ in range(_LEVELS):
            found = None if run is None else self._running.get(run)
            if found is None:
                return
            if found.inputs is not None:
                yield from _each(found.inputs)
            run = found.parent

    def _remember(self, rendered: PromptValue, variables: Mapping[str, Any], run: UUID | None) -> None:
        whole = rendered.to_string()
        roles = roles_of(variables, whole)
        if roles is None:
            return
        # A chat model gets messages, one by one; a plain LLM gets all of them as one text.
        for text in {whole, *_contents(rendered)}:
            if (captured := _captured(text, roles)) is not None:
                with self._lock:
                    runs = self._by_text.setdefault(_key(text), OrderedDict())
                    _put(runs, run, captured, _RUNS_OF_ONE_TEXT)
                    _put(self._by_text, _key(text), runs, self._texts)


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


def _variables(serialized: Mapping[str, Any], inputs: Any) -> dict[str, Any]:
    """Return what fills a template: its partial variables and a call's, as far as the template uses them."""
    described = serialized.get("kwargs") or {}
    wanted = described.get("input_variables")
    if not isinstance(inputs, Mapping):  # a template with one variable takes its value as it is
        if not isinstance(wanted, list) or len(wanted) != 1:
            return {}
        inputs = {wanted[0]: inputs}
    partial = dict(_partial_variables(described))
    if not isinstance(wanted, list):  # a template that LangChain does not describe
        return {**partial, **inputs}
    used = {*wanted, *(described.get("optional_variables") or ())}
    return {**partial, **{name: value for name, value in inputs.items() if name in used or name in partial}}


def _partial_variables(described: Any) -> Iterator[tuple[str, Any]]:
    """Yield the partial variables of a serialised template and of the templates in it."""
    if isinstance(described, list):
        for item in described:
            yield from _partial_variables(item)
    elif isinstance(described, Mapping):
        for name, value in described.items():
            if name == "partial_variables" and isinstance(value, Mapping):
                # What a function returned is not known, so whether it found anything is not, either.
                known = ((key, item) for key, item in value.items() if not _is_function(item))
                yield from ((key, _given(item)) for key, item in known)
            elif name in ("kwargs", "messages", "prompt"):
                yield from _partial_variables(value)


def _given(value: Any) -> Any:
    """Return a partial variable as it was given; documents are serialised as their constructor's call."""
    if isinstance(value, list):
        return [_given(item) for item in value]
    if isinstance(value, Mapping) and value.get("type") == "constructor":
        return (value.get("kwargs") or {}).get("page_content", "")
    return value


def _is_function(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get("type") == "not_implemented"


def _with_context(inputs: Any) -> Mapping[str, Any] | None:
    if not isinstance(inputs, Mapping):
        return None
    return (
        inputs if any(is_context(str(name), value) for each in _each(inputs) for name, value in each.items()) else None
    )


def _each(inputs: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the inputs, or each of those that an LLMChain was given at once."""
    several = inputs.get("input_list")
    if isinstance(several, list):
        yield from (each for each in several if isinstance(each, Mapping))
    else:
        yield inputs


def _contents(rendered: PromptValue) -> Iterator[str]:
    for message in rendered.to_messages():
        try:
            yield text_of(message)
        except PromptError:  # pictures, which the model refuses by itself
            continue


def _captured(text: str, roles: Roles) -> Captured | None:
    if spans := verbatim_spans(text, roles.contexts, repeated=True):
        return Captured(spans, roles.query)
    if roles.contexts or len(text) < MIN_CONTEXT_CHARACTERS:
        return None
    return Captured((), roles.query)  # nothing was retrieved: a long instruction must not pass for it


def _put(bounded: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    bounded[key] = value
    bounded.move_to_end(key)
    while len(bounded) > most:
        bounded.popitem(last=False)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
