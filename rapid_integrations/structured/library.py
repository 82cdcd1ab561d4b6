"""Import llguidance, an optional package, when a request needs it."""

from __future__ import annotations

import threading
from functools import cache, lru_cache
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from rapid_integrations.errors import ConfigurationError, MissingExtraError
from rapid_integrations.models.vocabulary import Vocabulary

_tokenizers: WeakKeyDictionary[Vocabulary, object] = WeakKeyDictionary()
_lock = threading.Lock()


def load_llguidance(feature: str) -> ModuleType:
    """Return the package.

    Raises:
        MissingExtraError: it is not installed. The message begins with `feature`.
    """
    try:
        import llguidance
    except ImportError:
        raise MissingExtraError(feature=feature, extra="structured") from None
    return llguidance


def llguidance_tokenizer(vocabulary: Vocabulary, feature: str) -> object:
    """Return llguidance's view of a vocabulary: a trie of its tokens' bytes, built once (about a second).

    Raises:
        MissingExtraError: llguidance is not installed.
        ConfigurationError: the vocabulary has no eos token, so an answer could not end.
    """
    llguidance = load_llguidance(feature)
    with _lock:
        if vocabulary not in _tokenizers:
            if not vocabulary.eos_token_ids:
                raise ConfigurationError(
                    f"{feature} needs a model with an end-of-sequence token, and this one's tokenizer has none: "
                    "set its eos_token"
                )
            _tokenizers[vocabulary] = llguidance.LLTokenizer(
                vocabulary.serialized(), eos_token=sorted(vocabulary.eos_token_ids)
            )
        return _tokenizers[vocabulary]


def whole_tokens(vocabulary: Vocabulary, feature: str) -> dict[str, int]:
    """Return the tokens that llguidance never matches as text, by their string ("<|im_end|>", "<tool_call>").

    A grammar must name them; strings in it do not match them.

    Raises:
        MissingExtraError: llguidance is not installed.
    """
    tokenizer: Any = llguidance_tokenizer(vocabulary, feature)
    return {text: index for text, index in vocabulary.added_tokens.items() if tokenizer.is_special_token(index)}


@cache
def limits(feature: str) -> object:
    """Return the limits for compiling a grammar and for each step of following it.

    They are the library's own, with two exceptions. An object of 500 optional properties needs a row of 2,007 items.
    A long draft may use up the lexer's fuel of a step, and what follows would be forbidden. With the fuel that the
    library gives the first step, a step takes at most about 70 ms.
    """
    return load_llguidance(feature).LLParserLimits(
        max_items_in_row=20_000, step_max_items=200_000, step_lexer_fuel=1_000_000, verbose_errors=False
    )


def json_schema_error(schema: dict[str, Any]) -> str:
    """Return the library's error about a schema, "" if there is none."""
    matcher = load_llguidance("structured output").LLMatcher
    try:
        grammar = matcher.grammar_from_json_schema(schema)
    except (TypeError, ValueError) as error:
        return str(error)
    return str(matcher.validate_grammar(grammar, None, limits=limits("structured output")))


_PROBE = b"ab cd-12 "  # words, which make repeats of words in patterns ambiguous
_PROBED = 24  # characters


@lru_cache(maxsize=1024)
def is_followed(schema: str, opening: bytes) -> bool:
    r"""Whether the library follows the rules of a string, or of an object's names, over its first characters.

    The states of a pattern and of a length multiply: `^(\S+ ){0,99}\S+$` with a maxLength of 5,000 exceeds the
    library's limits at the second character, and with higher limits a step takes more than a second.

    Args:
        schema: a schema of strings or objects, as JSON.
        opening: what stands before the characters: a quotation mark, or the beginning of an object.
    """
    llguidance = load_llguidance("structured output")
    tokenizer = _byte_tokenizer()
    grammar = llguidance.LLMatcher.grammar_from_json_schema(schema)
    matcher: Any = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits("structured output"))
    matcher.compute_logit_bias()
    for step in range(_PROBED):
        # Without a mask before each, as drafts are followed: fuel comes with masks only.
        wanted = [_PROBE[(step + at) % len(_PROBE)] for at in range(len(_PROBE))]
        if step < len(opening):
            wanted = [opening[step]]
        if not any(matcher.try_consume_tokens([each]) for each in wanted):
            allowed = matcher.compute_logit_bias()
            if matcher.is_error():
                return False
            other = next((at for at in range(256) if allowed[at] and at != ord('"')), None)
            if other is None or not matcher.try_consume_tokens([other]):
                break
    matcher.compute_logit_bias()
    return not matcher.is_error()


@cache
def _byte_tokenizer() -> object:
    return load_llguidance("structured output").LLTokenizer("byte")


def lark_grammar(lark: str, feature: str) -> str:
    """Return a Lark grammar in llguidance's notation.

    Raises:
        MissingExtraError: llguidance is not installed.
    """
    return str(load_llguidance(feature).LLMatcher.grammar_from_lark(lark))
