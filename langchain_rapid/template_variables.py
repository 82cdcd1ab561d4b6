"""Which of the variables that fill a prompt are retrieved context, and which is the question: by kind and by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage

from langchain_rapid.messages import text_of
from rapid_integrations.adapters.variable_names import INSTRUCTIONS, words_of

_CONTEXT = frozenset(
    "context contexts document documents doc docs passage passages chunk chunks snippet snippets excerpt excerpts "
    "sources summaries evidence retrieved retrieval knowledge articles references".split()
)
_HISTORY = frozenset(
    "history messages message conversation memory chat dialogue dialog turns scratchpad steps thoughts".split()
)
_QUERY = ("question", "input", "query", "query_str", "user_question", "user_input", "user_query")
# What is said about a context rather than the context itself: "document_title", "context_length".
_ABOUT = frozenset("name names title titles type kind id ids count number length size language format".split())
# An answer that a chain goes on with (refine) is neither context nor question.
_ANSWER = frozenset("answer answers existing previous draft".split())

_SHORTEST_UNNAMED = 400  # characters: a shorter value is no context unless it is called one
_COMPARABLE = 4  # values of that share of the longest unnamed one are contexts beside it
_LONGEST_QUERY = 2000  # characters kept of a question; embedders read less

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Roles:
    """What the variables are.

    Attributes:
        contexts: texts to look for in the prompt; empty although there is a variable for them: nothing was found.
        query: the question; None where none of the variables is one.
    """

    contexts: tuple[str, ...]
    query: str | None


def roles_of(values: Values, prompt: str, *, by_name_only: bool = False) -> Roles | None:
    """Return which of `values` are contexts and which is the question, as far as they stand in `prompt`.

    Args:
        values: by the variables' names.
        prompt: the text that was made of them.
        by_name_only: whether a long value of any other name is no context.

    Returns:
        None where no variable is a context.
    """
    named = [name for name, value in values.items() if is_context(name, value)]
    contexts = [text for name in named for text in _texts(values[name], prompt)]
    if not any(text.strip() for text in contexts):
        contexts = []
        if not named:
            named = [] if by_name_only else _long_ones(values)
            contexts = [_printed(values[name]) for name in named]
            if not contexts:
                return None
    elif not any(text.strip() and text.strip() in prompt for text in contexts):
        return None  # reworked on the way: where it stands is not known
    return Roles(tuple(contexts), _query(values, {*named}, prompt))


def is_context(name: str, value: Any) -> bool:
    """Whether a variable holds retrieved texts, by its kind (documents) or its name."""
    words = words_of(name)
    if words & _HISTORY and not (_CONTEXT & words and _are_messages(value)):
        return False
    if _are_documents(value):
        return True
    return bool(words & _CONTEXT) and not words & (_ABOUT | _ANSWER) and not isinstance(value, (bool, int, float))


def _long_ones(values: Values) -> list[str]:
    """Return the variables that hold by far the most text, if it is much."""
    others = {name: len(_printed(value).strip()) for name, value in values.items() if _may_be_long_context(name, value)}
    longest = max(others.values(), default=0)
    if longest < _SHORTEST_UNNAMED:
        return []
    return [name for name, length in others.items() if length >= max(_SHORTEST_UNNAMED, longest // _COMPARABLE)]


def _may_be_long_context(name: str, value: Any) -> bool:
    words = words_of(name)
    return not (words & (_HISTORY | INSTRUCTIONS | _ANSWER) or name.lower() in _QUERY or _are_messages(value))


def _query(values: Values, contexts: set[str], prompt: str) -> str | None:
    asked = {
        name: value.strip()
        for name, value in values.items()
        if isinstance(value, str) and name not in contexts and not words_of(name) & (_HISTORY | _ANSWER)
    }
    standing = {name: value for name, value in asked.items() if value and value in prompt}
    for name in _QUERY:
        for given, value in standing.items():
            if given.lower() == name:
                return value[:_LONGEST_QUERY]
    rest = [value for name, value in standing.items() if not words_of(name) & INSTRUCTIONS]
    return rest[0][:_LONGEST_QUERY] if len(rest) == 1 else None


def _texts(value: Any, prompt: str) -> list[str]:
    """Return a context's texts as they may stand in the prompt: printed in one piece, or item by item."""
    if value is None or isinstance(value, str):
        return [value or ""]
    if isinstance(value, Document) or not isinstance(value, Iterable):
        items = [value]
    elif isinstance(value, Mapping):
        return [str(value)] if value else []
    else:
        items = list(value)
    texts = [_text(item) for item in items if item is not None]
    if any(text.strip() for text in texts) and repr(items[0]) in prompt and (printed := str(value)) in prompt:
        return [printed]  # a list as Python writes it
    return texts


def _text(item: Any) -> str:
    if isinstance(item, Document):
        return item.page_content
    if isinstance(item, BaseMessage):
        return text_of(item)
    return str(item)


def _printed(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _are_documents(value: Any) -> bool:
    if isinstance(value, Document):
        return True
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Document) for item in value)


def _are_messages(value: Any) -> bool:
    """Whether a value fills a placeholder for messages: message objects, or (role, content) pairs."""
    if isinstance(value, BaseMessage):
        return True
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(
        isinstance(item, BaseMessage)
        or (isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str))
        or (isinstance(item, Mapping) and "role" in item and "content" in item)
        for item in value
    )
