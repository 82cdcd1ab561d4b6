"""Annotations that say which part of a prompt is context and which is the question.

They come from the call, from a message or from a template, in this order of precedence. Without any, the engine looks
for delimiters and long blocks itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage

from langchain_rapid.messages import TextOfMessages, to_engine_messages
from langchain_rapid.template_capture import TEMPLATES, Call, Captured
from rapid_integrations.adapters.verbatim import verbatim_spans
from rapid_integrations.errors import PromptError
from rapid_integrations.prompt import Prompt
from rapid_integrations.prompt.conversation import INSTRUCTING, segment_messages
from rapid_integrations.prompt.segmentation import MIN_CONTEXT_CHARACTERS
from rapid_integrations.prompt.tasks import ends_asking, question_in, wants_all_of_it

CONTEXT = "rapid_context"  # an argument of a call, and a key in a message's `additional_kwargs`
QUERY = "rapid_query"

_HUMAN_TURN = re.compile(r"(?:.*\n)?Human:\s*", re.DOTALL)  # what stands around a context that is all of the last turn


@dataclass(frozen=True)
class Parts:
    """Annotations of a prompt.

    Attributes:
        contexts: the retrieved texts. None means that they are unknown; empty, that nothing was retrieved.
        query: the question; None if unknown.
        whole: whether the whole message is context.
    """

    contexts: tuple[str, ...] | None = None
    query: str | None = None
    whole: bool = False

    @classmethod
    def take(cls, given: dict[str, Any]) -> Parts:
        """Remove `rapid_context` and `rapid_query` from a call's arguments and return them."""
        return cls.of({name: given.pop(name, None) for name in (CONTEXT, QUERY)})

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Parts:
        """Read `rapid_context` (a text, texts, or documents; in a message also True) and `rapid_query`.

        Blank texts and None are skipped, because retrieval may find nothing and the chain still continues.

        Raises:
            PromptError: one of them has another type.
        """
        context, query = given.get(CONTEXT), given.get(QUERY)
        if query is not None and not isinstance(query, str):
            raise PromptError(f"{QUERY} must be a text; given: {query!r:.200}")
        query = query if query is not None and query.strip() else None
        if context is None or isinstance(context, bool):
            return cls(None, query, whole=context is True)
        if isinstance(context, Mapping) or not isinstance(context, (str, Document, Iterable)):
            raise PromptError(f"{CONTEXT} must be a text, a Document, or a list of these; given: {context!r:.200}")
        items = [context] if isinstance(context, (str, Document)) else list(context)
        texts = (_text_of_item(item) for item in items if item is not None)
        return cls(tuple(text for text in texts if text.strip()), query)


def annotated_text(text: str, call: Parts, templates: bool, run: UUID | None) -> Prompt | str:
    """Return a plain LLM's prompt with its context spans, as far as they are known.

    Raises:
        PromptError: the call's context does not occur in the prompt.
    """
    if call.contexts is not None:
        if not call.contexts:
            return Prompt.without_context(text)
        return Prompt(text=text, context_spans=_required_spans(text, call.contexts), query=call.query)
    captured = TEMPLATES.of(text, run) if templates else None
    if captured is not None:
        own, query = captured.around(text), call.query or captured.query
        use = _use_of(captured, [own], call.query)
        if use == "context" and query is None and _HUMAN_TURN.fullmatch(own):
            # A chat template as one text. What the system says is a question, or nothing to search for.
            query = question_in(own) or None
            use = "context" if query else "nothing"
        match use:
            case "empty" | "nothing":
                return Prompt.without_context(text, call.query)
            case "context":
                spans, how = captured.context_spans, captured.segmentation
                return Prompt(text=text, context_spans=spans, query=query, segmentation=how)
    prompt = _of_written_messages(text) if isinstance(text, TextOfMessages) else text
    if call.query is None:
        return prompt
    if isinstance(prompt, str):
        return Prompt(text=prompt, query=call.query)
    return prompt.model_copy(update={"query": call.query})


def _of_written_messages(text: TextOfMessages) -> Prompt | str:
    """Return the text of messages with the spans and the question that a chat model would find in these.

    Otherwise the turns of a conversation look like any long text before a question.
    """
    starts = text.starts
    if starts is None:
        return str(text)
    given = to_engine_messages(text.messages)
    found = segment_messages(given, [message["content"] for message in given])
    spans = [(at + start, at + end) for at, of in zip(starts, found.spans, strict=True) for start, end in of]
    return Prompt.retrieved(str(text), spans, found.query, found.method)


def annotated_messages(
    messages: Sequence[BaseMessage], given: Sequence[dict[str, Any]], call: Parts, templates: bool, run: UUID | None
) -> list[dict[str, Any]]:
    """Return a chat model's messages with their context spans, as far as they are known.

    Args:
        messages: LangChain's.
        given: the same messages in the engine's form, with texts as contents.
        call: the annotations of the call.
        templates: whether to use what was captured from prompt templates.
        run: the run that the call is part of.

    Raises:
        PromptError: no message contains the call's context.
    """
    texts = [message["content"] for message in given]
    query = call.query or next((p.query for p in (Parts.of(m.additional_kwargs) for m in messages) if p.query), None)
    prompts = _of_call(texts, call) or _of_messages(messages, texts)
    results = sum(len(text) for text, message in zip(texts, given, strict=True) if message["role"] == "tool")
    if not prompts and templates and results < MIN_CONTEXT_CHARACTERS:  # the engine takes longer results as context
        prompts = _of_templates(given, texts, run, query)
    if query is not None:
        last = max(prompts, default=_last_human(given))
        prompts[last] = prompts.get(last, Prompt(text=texts[last])).model_copy(update={"query": query})
    return [{**message, "content": prompts.get(i, message["content"])} for i, message in enumerate(given)]


def _of_call(texts: Sequence[str], call: Parts) -> dict[int, Prompt]:
    if call.contexts is None:
        return {}
    if not call.contexts:
        return {i: Prompt.without_context(text) for i, text in enumerate(texts)}
    found = {i: verbatim_spans(text, call.contexts, repeated=True) for i, text in enumerate(texts)}
    if not any(found.values()):
        _required_spans("\n".join(texts), call.contexts)
    return {i: Prompt(text=texts[i], context_spans=spans) for i, spans in found.items() if spans}


def _of_messages(messages: Sequence[BaseMessage], texts: Sequence[str]) -> dict[int, Prompt]:
    """Return prompts from the messages' own annotations. Spans are searched anew, since a message may have been cut."""
    prompts = {}
    for i, (message, text) in enumerate(zip(messages, texts, strict=True)):
        parts = Parts.of(message.additional_kwargs)
        if parts.contexts == ():
            prompts[i] = Prompt.without_context(text)
        spans = verbatim_spans(text, (text,) if parts.whole else parts.contexts or (), repeated=True)
        if spans:
            prompts[i] = Prompt(text=text, context_spans=spans, segmentation="annotations")
    return prompts


def _of_templates(
    given: Sequence[dict[str, Any]], texts: Sequence[str], run: UUID | None, asked: str | None
) -> dict[int, Prompt]:
    told = [i for i, message in enumerate(given) if message["role"] in INSTRUCTING]
    call = Call(tuple(texts), tuple(texts[i] for i in told))
    found = {i: captured for i, text in enumerate(texts) if (captured := TEMPLATES.of(text, run, call)) is not None}
    own = [found[i].around(text) if i in found else text for i, text in enumerate(texts)]  # not from the contexts
    last = _last_human(given)
    turn = _turn(given, last)
    follows = any(message["role"] == "assistant" for message in given[: turn.start])
    prompts = {}
    for i, captured in found.items():
        # The question of an earlier turn must not be used. (LangChain's refine asks first, with the context last.)
        this_turn = captured.query is not None and (i >= last or captured.query in texts[last])
        # A later turn asks about the context of an earlier one, whatever it wants.
        heard = told if follows and i not in turn else [*told, *turn]
        use = _use_of(captured, [own[each] for each in {*heard, i}], asked)
        if use == "nothing":
            return {each: Prompt.without_context(text) for each, text in enumerate(texts)}
        if use == "empty":
            prompts[i] = Prompt.without_context(texts[i])
        elif use == "context":
            query = captured.query if this_turn else None
            spans, how = captured.context_spans, captured.segmentation
            prompts[i] = Prompt(text=texts[i], context_spans=spans, query=query, segmentation=how)
    return prompts


def _turn(given: Sequence[dict[str, Any]], last: int) -> range:
    """Return the indices of the human messages that end with the last one, without another one between them."""
    first = next((i for i in range(last, 0, -1) if given[i - 1]["role"] != "user"), 0)
    return range(first, last + 1)


def _use_of(
    captured: Captured, own: Sequence[str], asked: str | None
) -> Literal["context", "empty", "nothing", "detect"]:
    """Return what to do with what a template's variables say.

    Args:
        captured: the contexts and the question, as far as there is one.
        own: the texts that instruct and ask, without the contexts.
        asked: a question that was given with the call.

    Returns:
        "context": search the contexts. "empty": nothing was retrieved. "nothing": all of the contexts is needed, as for
        a translation. "detect": the variables say nothing certain, so the text is looked at like any other.
    """
    if not captured.context_spans:
        return "empty"
    if asked or captured.asked or (captured.query and ends_asking(captured.query)):
        return "context"
    if any(wants_all_of_it(text) for text in own):
        return "nothing"
    if captured.named:
        return "context" if captured.query or any(text.strip() for text in own) else "detect"
    # A long value without such a name may be what is asked: a chatbot's {msg}, a mail that is to be answered.
    return "context" if captured.query or any(question_in(text) for text in own) else "detect"


def _text_of_item(item: Any) -> str:
    if isinstance(item, Document):
        return item.page_content
    if isinstance(item, str):
        return item
    raise PromptError(f"{CONTEXT} holds something that is neither a text nor a Document: {item!r:.200}")


def _last_human(given: Sequence[dict[str, Any]]) -> int:
    humans = [i for i, message in enumerate(given) if message["role"] == "user"]
    return humans[-1] if humans else len(given) - 1


def _required_spans(text: str, contexts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    spans = verbatim_spans(text, contexts, repeated=True)
    if not spans:
        raise PromptError(
            f"{CONTEXT} does not occur in the prompt: {str(contexts)!r:.200}. Give it exactly as it is written in the "
            "prompt, or leave it out"
        )
    return spans
