"""Passive capture of the values that fill prompt templates, until the model reads the prompt.

A chain renders its template before it calls the model, which receives only text. LangChain tells callback handlers of
each rendering. The handler here records where the context is in the text, and the question. LLMChain and the nodes of a
graph render without a callback. For them, the inputs of the enclosing runs are searched. Once a model has been built,
the handler is part of every run in the process; `capture_templates(False)` switches it off.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers.context import register_configure_hook

from langchain_rapid.messages import text_of, with_texts
from langchain_rapid.template_variables import Roles, is_context, roles_of
from rapid_integrations.adapters.verbatim import verbatim_spans
from rapid_integrations.errors import PromptError
from rapid_integrations.prompt.segmentation import MIN_CONTEXT_CHARACTERS, Span

_TEXTS = 4096  # prompts that are remembered; a forgotten one is segmented like any other text
_RUNS_OF_ONE_TEXT = 8
_LEVELS = 6  # levels of enclosing runs whose inputs are searched for the context


@dataclass(frozen=True)
class Captured:
    """The context spans of a rendered text, and the question.

    Attributes:
        context_spans: empty if the template has a variable for context, but nothing was retrieved.
        query: the question; None if no variable is a question.
        named: whether the contexts' names or types say that they are contexts.
        asked: whether the question's name says that it is one.
        segmentation: how the spans were found, "template" or "chain".
    """

    context_spans: tuple[Span, ...]
    query: str | None
    named: bool = True
    asked: bool = False
    segmentation: str = "template"

    def around(self, text: str) -> str:
        """Return what stands in `text` around the contexts."""
        edges = [0, *(edge for span in self.context_spans for edge in span), len(text)]
        return "\n".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))


@dataclass(frozen=True)
class Call:
    """The texts of a model call, as far as they tell whether it is the one that a template was rendered for.

    Attributes:
        texts: those of all messages, of which any may contain the question.
        instructions: those of the messages that instruct.
    """

    texts: tuple[str, ...]
    instructions: tuple[str, ...] = ()

    @cached_property
    def keys(self) -> frozenset[bytes]:
        """The keys of its texts."""
        return frozenset(_key(text) for text in self.texts if text.strip())

    @cached_property
    def instructing(self) -> frozenset[bytes]:
        """The keys of its instructions."""
        return frozenset(_key(text) for text in self.instructions if text.strip())

    @property
    def whole(self) -> str:
        """All texts as one."""
        return "\n".join(self.texts)


@dataclass(frozen=True)
class _Rendering:
    """What was captured for a text, and the keys of all messages that were rendered with it."""

    captured: Captured
    messages: frozenset[bytes]
    complete: bool  # whether the text itself holds the question

    def fits(self, call: Call, same_run: bool) -> bool:
        """Whether a call is about this rendering, rather than about another one with the same text in it.

        Without the question, a text says only together with the others what it is for. A chain may leave out messages
        or add some, but if a call has other instructions, it is another one.
        """
        if self.complete:
            return True
        missing, foreign = bool(self.messages - call.keys), bool(call.instructing - self.messages)
        return not (missing and foreign) if same_run else not (missing or foreign)


_Key = tuple[UUID | None, frozenset[bytes]]  # the run of a rendering, and its messages


@dataclass(frozen=True)
class _Run:
    parent: UUID | None
    inputs: Mapping[str, Any] | None  # None if none of them is a context


class TemplateCapture(BaseCallbackHandler):
    """Remembers renderings by a hash of their text. It is bounded in size and thread-safe.

    Two chains may render the same text from different variables. The run to which both the rendering and the model call
    belong then tells them apart.
    """

    # Not `run_inline`: if there is an inline handler, LangChain's async `on_llm_start` calls no others.

    def __init__(self, texts: int = _TEXTS) -> None:
        self.enabled = True
        self._texts = texts
        self._lock = threading.Lock()
        self._pending: OrderedDict[UUID, tuple[Mapping[str, Any], UUID | None]] = OrderedDict()
        self._running: OrderedDict[UUID, _Run] = OrderedDict()
        self._by_text: OrderedDict[bytes, OrderedDict[_Key, _Rendering]] = OrderedDict()

    @property
    def ignore_chain(self) -> bool:
        """Whether LangChain skips this handler."""
        return not self.enabled

    @property
    def ignore_llm(self) -> bool:
        """True: the handler only follows chains, and a prompt template counts as one."""
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
        """Record where the values are in the rendered text."""
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

    def of(self, text: str, run: UUID | None, call: Call | None = None) -> Captured | None:
        """Return what was captured for a prompt or for one of its messages.

        Args:
            text: the text as the model receives it.
            run: the run that the model call is part of; None if unknown.
            call: the call that the text is a message of. With None, `text` is the whole.
        """
        call = call or Call((text,))
        with self._lock:
            known = self._by_text.get(_key(text))
            fitting = [(of, each) for (of, _), each in (known or {}).items() if each.fits(call, of == run)]
            if fitting:
                return next((each for of, each in reversed(fitting) if of == run), fitting[-1][1]).captured
            around = list(self._around(run))
        for inputs in around:
            roles = roles_of(inputs, call.whole, by_name_only=True)
            if roles is not None and (spans := verbatim_spans(text, roles.contexts, repeated=True)):
                return Captured(spans, roles.query, roles.named, roles.asked, "chain")
        return None

    def _around(self, run: UUID | None) -> Iterator[Mapping[str, Any]]:
        """Yield the inputs of the enclosing runs that contain a context, innermost first."""
        for _ in range(_LEVELS):
            found = None if run is None else self._running.get(run)
            if found is None:
                return
            if found.inputs is not None:
                yield from _each(found.inputs)
            run = found.parent

    def _remember(self, rendered: PromptValue, variables: Mapping[str, Any], run: UUID | None) -> None:
        try:
            whole = with_texts(rendered).to_string()
        except PromptError:  # a message with an image, which the model will refuse
            return
        roles = roles_of(variables, whole)
        if roles is None:
            return
        # A chat model receives separate messages, a plain LLM receives all of them as one text.
        contents = {text for text in map(text_of, rendered.to_messages()) if text.strip()}
        messages = frozenset(_key(text) for text in contents)
        for text in {whole, *contents}:
            if (captured := _captured(text, roles)) is not None:
                of = messages if text in contents else frozenset((_key(text),))
                kept = _Rendering(captured, of, captured.query is not None and captured.query in captured.around(text))
                with self._lock:
                    renderings = self._by_text.setdefault(_key(text), OrderedDict())
                    _put(renderings, (run, of), kept, _RUNS_OF_ONE_TEXT)
                    _put(self._by_text, _key(text), renderings, self._texts)


TEMPLATES = TemplateCapture()

_hook: ContextVar[BaseCallbackHandler | None] = ContextVar("rapid_template_capture", default=TEMPLATES)
_hooking = threading.Lock()
_hooked = False


def listen_to_templates() -> None:
    """Register `TEMPLATES` with LangChain, which then reports every rendering. Calling it again changes nothing."""
    global _hooked
    with _hooking:
        if not _hooked:
            register_configure_hook(_hook, inheritable=True)
            _hooked = True


def capture_templates(enabled: bool) -> None:
    """Switch passive capture on or off for the whole process. A model's field `use_templates` does so for one model."""
    TEMPLATES.enabled = enabled


def current_run(run_id: UUID | None) -> UUID | None:
    """Return the run that a model call is part of: `run_id`, or the run of the current context."""
    if run_id is not None:
        return run_id
    callbacks = ensure_config().get("callbacks")  # streaming calls get no run manager
    parent: UUID | None = getattr(callbacks, "parent_run_id", None)
    return parent


def _variables(serialized: Mapping[str, Any], inputs: Any) -> dict[str, Any]:
    """Return the variables that fill a template: its partial variables and those of the call that it uses."""
    described = serialized.get("kwargs") or {}
    wanted = described.get("input_variables")
    if not isinstance(inputs, Mapping):  # a template with one variable accepts its bare value
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
                # The result of a function is unknown, and so is whether it found anything.
                known = ((key, item) for key, item in value.items() if not _is_function(item))
                yield from ((key, _given(item)) for key, item in known)
            elif name in ("kwargs", "messages", "prompt"):
                yield from _partial_variables(value)


def _given(value: Any) -> Any:
    """Return a partial variable's value. Documents are serialised as calls of their constructor."""
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
    """Yield the inputs. An LLMChain may have a list of them."""
    several = inputs.get("input_list")
    if isinstance(several, list):
        yield from (each for each in several if isinstance(each, Mapping))
    else:
        yield inputs


def _captured(text: str, roles: Roles) -> Captured | None:
    if spans := verbatim_spans(text, roles.contexts, repeated=True):
        return Captured(spans, roles.query, roles.named, roles.asked)
    if roles.contexts or len(text) < MIN_CONTEXT_CHARACTERS:
        return None
    return Captured((), roles.query)  # nothing was retrieved; a long instruction must not be taken for context


def _put(bounded: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    bounded[key] = value
    bounded.move_to_end(key)
    while len(bounded) > most:
        bounded.popitem(last=False)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
