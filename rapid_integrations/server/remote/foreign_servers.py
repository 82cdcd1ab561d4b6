"""What servers of other engines have in common as drafters: they keep no texts, and give log-probabilities."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from typing import Any

from rapid_integrations.errors import RapidError, RemoteError, VocabularyMismatchError
from rapid_integrations.models.vocabulary import Vocabulary
from rapid_integrations.server.remote.best_rows import row_of
from rapid_integrations.server.remote.link import Link

_PROBES = (
    "The quick brown fox jumps over 13 lazy dogs, didn't it?\n\n\tTab  and   spaces.\nWhat the other thing is called "
    "in the long run depends on how often each of these words was written together with them; nothing else matters.",
    'def f(x): return {"a": [1, 2.5e-3], "b": None}  # 1234567890 https://example.org/?q=1&r=%20\nimport sys, os.path',
    "Größe naïve façade où l'été; el niño también. Привет, мир! 東京は晴れ。 — “quotes” …",
)

Best = list[tuple[int, float]]
"""The best tokens of a distribution: id and log-probability."""


def get(link: Link, path: str) -> Any:
    """Return the JSON that a path answers with. Waits.

    Raises:
        RemoteError: there is none.
    """
    return read(link.start(link.exchange(path)).result(), link.url + path)


def read(body: bytes, url: str) -> Any:
    """Return the JSON of a body.

    Raises:
        RemoteError: it is none.
    """
    try:
        return json.loads(body)
    except ValueError:
        raise RemoteError(f"{url} answered with something that is no JSON: {body[:80]!r}", code="answer") from None


def require_vocabulary(link: Link, model: str | None, vocabulary: Vocabulary, target: str) -> None:
    """Have the server tokenize some texts, and compare the ids. Warns if it has no path for that.

    Raises:
        VocabularyMismatchError: the ids differ.
    """
    for text in _PROBES:
        # vLLM and SGLang read "prompt", llama.cpp "content"; each ignores the other's fields.
        asked = {"model": model, "prompt": text, "content": text, "add_special_tokens": False, "add_special": False}
        try:
            found = read(link.start(link.exchange("/tokenize", json=asked)).result(), link.url + "/tokenize")
            theirs = [int(index) for index in found["tokens"]]
        except (RapidError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, RemoteError) and error.code in ("remote.unreachable", "remote.timeout"):
                raise
            warnings.warn(
                f"{link.url} does not tokenize a text, so its tokenizer was not compared with that of {target}: they "
                "have to be the same",
                RuntimeWarning,
                stacklevel=2,
            )
            return
        if theirs != vocabulary.encode(text):
            raise VocabularyMismatchError(
                f"the model at {link.url} cannot draft for {target}: their tokenizers split {text[:40]!r} differently. "
                "Both models must come from one family with one tokenizer"
            )


def rows_of(positions: Sequence[Best], best: int, vocab_size: int, url: str) -> tuple[list[Any], list[float]]:
    """Return rows (V,) of the best tokens at each position, and the probability of the others.

    Args:
        positions: what the server says. The token that it drew may stand beside the best ones; it is left out.
        best: how many tokens count.
        vocab_size: V. Tokens beyond it are padding, and are left out.
        url: for messages.

    Raises:
        RemoteError: a position has no token.
    """
    rows, outside = [], []
    for found in positions:
        kept = sorted((each for each in found if each[0] < vocab_size), key=lambda each: -each[1])[:best]
        if not kept:
            raise RemoteError(
                f"{url} gives no log-probabilities of tokens by id. It has to offer logprobs={best} on completions, "
                "with return_tokens_as_token_ids as vLLM has it, or ids as llama.cpp does",
                code="answer",
            )
        rows.append(row_of([index for index, _ in kept], [value for _, value in kept], vocab_size))
        outside.append(max(0.0, 1.0 - math.fsum(math.exp(value) for _, value in kept)))
    return rows, outside
