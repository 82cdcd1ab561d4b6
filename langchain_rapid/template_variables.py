"""Classification of a prompt's variables as retrieved context or question, by their types and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage

from langchain_rapid.messages import text_of
from rapid_integrations.adapters.variable_names import INSTRUCTIONS, words_of
from rapid_integrations.prompt.tasks import ends_asking

_CONTEXT = frozenset(
    "context contexts document documents doc docs passage passages chunk chunks snippet snippets excerpt excerpts "
    "sources summaries evidence retrieved retrieval knowledge articles references".split()
)
_HISTORY = frozenset(
    "history messages message conversation memory chat dialogue dialog turns scratchpad steps thoughts".split()
)
_QUERY = ("question", "input", "query", "query_str", "user_question", "user_input", "user_query")
# Words for facts about a context, which are not the context itself: "document_title", "context_length".
_ABOUT = frozenset("name names title titles type kind id ids count number length size language format".split())
# How an answer is to be written. Nothing can be searched for with it.
_MANNER = frozenset("language lang locale tone format length size limit count number words level audience".split())
# An answer that a chain refines is neither context nor question.
_ANSWER = frozenset("answer answers existing previous draft".split())
# An answer that is to be judged. A document may be searched for it, but it is none.
_JUDGED = frozenset("generation prediction response completion submission".split())

_SHORTEST_UNNAMED = 400  # characters; a shorter value counts as context only if its name says so
_COMPARABLE = 4  # an unnamed value counts as context, too, if it has 1/4 of the longest one's characters
_LONGEST_QUERY = 2000  # maximum characters of a question; embedders read less

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Roles:
    """The roles of the variables.

    Attributes:
        contexts: texts to search for in the prompt. Empty if there is a variable for context, but it has no text.
        query: the question; None if no variable is a question.
        named: whether the contexts' names or types say so; if not, they are the longest values.
        asked: whether the question's name says so; if not, it is the only other value.
    """

    contexts: tuple[str, ...]
    query: str | None
    named: bool = True
    asked: bool = False


def roles_of(values: Values, prompt: str, *, by_name_only: bool = False) -> Roles | None:
    """Return which of `values` are contexts and which is the question, as far as they occur in `prompt`.

    Args:
        values: the values by variable name.
        prompt: the text rendered from them.
        by_name_only: whether a long value counts as context only by its name.

    Returns:
        The roles; None if no variable is a context.
    """
    named = [name for name, value in values.items() if is_context(name, value)]
    by_name = bool(named)
    contexts = [text for name in named for text in _texts(values[name], prompt)]
    if not any(text.strip() for text in contexts):
        contexts = []
        if not named:
            named = [] if by_name_only else _long_ones(values)
            contexts = [_printed(values[name]) for name in named]
            if not contexts:
                return Roles((), _query(values, set(), prompt)[0]) if _judges(values) else None
    elif not any(text.strip() and text.strip() in prompt for text in contexts):
        return None  # the chain changed the text, so its place is unknown
    query, asked = _query(values, {*named}, prompt)
    if query is not None and not (by_name or asked or _may_ask(query)):
        query = None
    return Roles(tuple(contexts), query, by_name, asked)


def is_context(name: str, value: Any) -> bool:
    """Whether a variable holds retrieved texts, judged by its type (documents) or its name."""
    words = words_of(name)
    if words & _HISTORY and not (_CONTEXT & words and _are_messages(value)):
        return False
    if _are_documents(value):
        return True
    return bool(words & _CONTEXT) and not words & (_ABOUT | _ANSWER) and not isinstance(value, (bool, int, float))


def _long_ones(values: Values) -> list[str]:
    """Return the variables with by far the longest texts, if they are long enough."""
    others = {name: len(_printed(value).strip()) for name, value in values.items() if _may_be_long_context(name, value)}
    longest = max(others.values(), default=0)
    if longest < _SHORTEST_UNNAMED:
        return []
    return [name for name, length in others.items() if length >= max(_SHORTEST_UNNAMED, longest // _COMPARABLE)]


def _may_be_long_context(name: str, value: Any) -> bool:
    words = words_of(name)
    return not (words & (_HISTORY | INSTRUCTIONS | _ANSWER | _JUDGED) or name.lower() in _QUERY or _are_messages(value))


def _judges(values: Values) -> bool:
    """Whether the longest value is an answer that is to be judged, which the text alone may show as a document."""
    longest = max(values, key=lambda name: len(_printed(values[name])), default="")
    return bool(words_of(longest) & (_ANSWER | _JUDGED)) and len(_printed(values[longest])) >= _SHORTEST_UNNAMED


def _query(values: Values, contexts: set[str], prompt: str) -> tuple[str | None, bool]:
    """Return the question, and whether its name says so."""
    asked = {
        name: value.strip()
        for name, value in values.items()
        if isinstance(value, str) and name not in contexts and not words_of(name) & (_HISTORY | _ANSWER)
    }
    standing = {name: value for name, value in asked.items() if value and value in prompt}
    for name in _QUERY:
        for given, value in standing.items():
            if given.lower() == name:
                return value[:_LONGEST_QUERY], True
    rest = [value for name, value in standing.items() if not words_of(name) & (INSTRUCTIONS | _MANNER)]
    return (rest[0][:_LONGEST_QUERY] if len(rest) == 1 else None), False


def _may_ask(value: str) -> bool:
    """Whether a value could be a question, which is longer than a name."""
    return len(value.split()) >= 3 or ends_asking(value)


def _texts(value: Any, prompt: str) -> list[str]:
    """Return a context's texts as they may occur in the prompt: printed as one list, or item by item."""
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
        return [printed]  # a list as Python prints it
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
