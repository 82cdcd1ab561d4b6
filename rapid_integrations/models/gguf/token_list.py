"""The tokens of a GGUF file: their texts, their kinds, and those that have a role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.end_tokens import KNOWN_ENDS
from rapid_integrations.models.gguf.header import GgufHeader

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer


class Kind(IntEnum):
    """Kinds of tokens in GGUF (`tokenizer.ggml.token_type`)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# As transformers and as files call them.
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# What a SentencePiece vocabulary has if the file does not say it.
_ROLES_OF_SENTENCEPIECE = {"bos": 1, "eos": 2, "unk": 0}
# Some converters write these as ordinary tokens. "</s>" is a tag of HTML in Gemma's vocabulary.
_ALWAYS_CONTROL = (KNOWN_ENDS - {"</s>"}) | {
    *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<PRE>", "\u2581<PRE>", "<|code_prefix|>", "<|prefix|>"),
    *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<SUF>", "\u2581<SUF>", "<|code_suffix|>", "<|suffix|>"),
    *("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<MID>", "\u2581<MID>", "<|code_middle|>", "<|middle|>"),
    *("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
}
_KEPT_WITH_SPACE = frozenset({"<unk>", "<s>", "<|endoftext|>"})
_LONGEST = 1024  # characters of a token; the work of finding its merges grows with the square
_AGAIN = "Take another GGUF file of the model, or convert it again with llama.cpp"


@dataclass(frozen=True)
class TokenList:
    """The tokens of a file.

    Attributes:
        texts: by id, as the file writes them. All differ.
        kinds: by id; 0 or another number than those of `Kind` is an ordinary token.
        roles: the ids of the tokens "bos", "eos", "unk" and "pad", of those that the file has.
        strips: whether control tokens take the blanks behind them along.
    """

    texts: list[str]
    kinds: list[int]
    roles: Mapping[str, int]
    strips: bool

    def add_to(self, tokenizer: Tokenizer) -> None:
        """Let a tokenizer take control tokens and the user's own whole, before it splits or changes a text."""
        tokenizer.add_special_tokens([self.added(index) for index in self._of(Kind.CONTROL, Kind.UNKNOWN)])
        tokenizer.add_tokens([self.added(index) for index in self._of(Kind.USER_DEFINED)])

    def added(self, index: int) -> AddedToken:
        """Return a token that is taken whole."""
        from tokenizers import AddedToken

        text = self.texts[index]
        special = self.kinds[index] != Kind.USER_DEFINED
        strips = self.strips and text not in _KEPT_WITH_SPACE
        return AddedToken(text, normalized=False, special=special, rstrip=strips)

    def whole(self) -> Iterator[int]:
        """Return the ids of the tokens that are taken whole."""
        return self._of(Kind.CONTROL, Kind.UNKNOWN, Kind.USER_DEFINED)

    def _of(self, *kinds: Kind) -> Iterator[int]:
        return (index for index, kind in enumerate(self.kinds) if kind in kinds)


def token_list(header: GgufHeader) -> TokenList:
    """Return the tokens of a file.

    Raises:
        ModelLoadError: they are damaged, or two have one text.
    """
    texts = _array(header, "tokens", str)
    texts = [text or f"[EMPTY_{index}]" for index, text in enumerate(texts)]
    if (longest := max(map(len, texts))) > _LONGEST:
        raise refused(header, f"it has a token of {longest:,} characters ({_LONGEST:,} at most)")
    if len(by_text := {text: index for index, text in enumerate(texts)}) < len(texts):
        second = next(index for index, text in enumerate(texts) if by_text[text] != index)
        raise refused(
            header, f"its tokens {second:,} and {by_text[texts[second]]:,} have one text ({texts[second]!r:.80})"
        )
    kinds = _array(header, "token_type", int) if "tokenizer.ggml.token_type" in header.metadata else [0] * len(texts)
    if len(kinds) < len(texts):
        raise refused(header, f"it has {len(texts):,} tokens, and says of {len(kinds):,} what they are")
    for text in _ALWAYS_CONTROL & by_text.keys():
        kinds[by_text[text]] = Kind.CONTROL
    sentencepiece = header.metadata.get("tokenizer.ggml.model") == "llama"
    strips = sentencepiece and header.architecture == "phi3"  # no file says so; Phi-4 has another tokenizer
    return TokenList(texts, kinds[: len(texts)], _roles(header, len(texts), sentencepiece), strips)


def merges_of(header: GgufHeader) -> list[tuple[str, str]]:
    """Return the pairs that are merged, the first one first.

    Raises:
        ModelLoadError: they are missing or damaged.
    """
    pairs = []
    for merge in _array(header, "merges", str):
        at = merge.find(" ", 1)
        if at < 0 or at == len(merge) - 1:
            raise refused(header, f"its merge {merge!r:.80} is no pair")
        pairs.append((merge[:at], merge[at + 1 :]))
    return pairs


def scores_of(header: GgufHeader, count: int) -> list[float]:
    """Return the scores of the tokens; a pair with a higher one is merged first.

    Raises:
        ModelLoadError: there are less than tokens.
    """
    scores = _array(header, "scores", float) if "tokenizer.ggml.scores" in header.metadata else [0.0] * count
    if len(scores) < count:
        raise refused(header, f"it has {count:,} tokens and {len(scores):,} scores")
    return scores


def refused(header: GgufHeader, why: str) -> ModelLoadError:
    """Return the error for a damaged tokenizer."""
    return ModelLoadError(f"{header.path} could not be loaded: {why}. {_AGAIN}")


def _array(header: GgufHeader, name: str, of: type) -> list[Any]:
    try:
        found = header.array(f"tokenizer.ggml.{name}")
    except UnicodeDecodeError as error:
        raise refused(header, f"an element of tokenizer.ggml.{name} is not UTF-8 ({error})") from error
    except KeyError:
        raise refused(header, f"its tokenizer has no {name} (tokenizer.ggml.{name})") from None
    # All elements of an array are of one type. Scores may be whole numbers.
    if not found or not isinstance(found[0], (int, float) if of is float else of):
        raise refused(header, f"tokenizer.ggml.{name} does not hold a {of.__name__} for each token")
    return found


def _roles(header: GgufHeader, count: int, sentencepiece: bool) -> dict[str, int]:
    usual = _ROLES_OF_SENTENCEPIECE if sentencepiece else {}
    said = {
        role: header.metadata.get(f"tokenizer.ggml.{key}_token_id", usual.get(role)) for role, key in _ROLES.items()
    }
    # Ids of padding that no token has are common in files. Those of bos and eos are refused (`check_tokens`).
    return {role: index for role, index in said.items() if type(index) is int and 0 <= index < count}
