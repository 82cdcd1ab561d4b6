"""Builds the tokenizer of a GGUF file whose tokens are written in characters, as SentencePiece's.

A blank is written as "\u2581", and a character without a token in bytes ("<0xE2>"). A file of SentencePiece's own kind
has scores in place of merges: of two neighbours that make a token, those with the highest score are merged first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.models.gguf.header import GgufHeader
from rapid_integrations.models.gguf.token_list import Kind, TokenList, merges_of, refused, scores_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BLANK = "\u2581"


def by_scores(header: GgufHeader, tokens: TokenList) -> Tokenizer:
    """Return the tokenizer of a file of the kind "llama" without what is put around a text.

    Raises:
        ModelLoadError: scores are missing.
        UnsupportedModelError: all are the same, so the order of merges is lost.
    """
    said = header.metadata.get("tokenizer.ggml.add_space_prefix")
    # Each stretch between tokens that are taken whole begins with a blank. Early files of Gemma do not say otherwise.
    begins_with_blank = bool(said) if isinstance(said, int) else not header.architecture.startswith("gemma")
    scores = scores_of(header, len(tokens.texts))
    merged = [index for index, text in enumerate(tokens.texts) if len(text) > 1 and _is_made(tokens.kinds[index])]
    if len(merged) < 2 or len({scores[index] for index in merged}) > 1:
        merges = merges_by(scores, merged, tokens.texts)
    elif "tokenizer.ggml.merges" in header.metadata:
        merges = merges_of(header)
    else:
        raise UnsupportedModelError(
            f"{header.path} gives all tokens of its vocabulary one score and has no merges, so the order in which "
            "characters are merged is lost. Put the model's tokenizer.json beside the file, or take its safetensors"
        )
    return _of_characters(header, tokens, merges, begins_with_blank)


def by_merges(header: GgufHeader, tokens: TokenList) -> Tokenizer:
    """Return the tokenizer of a file that merges characters and is not split (Gemma 4), as `by_scores` does.

    Raises:
        ModelLoadError: the merges are damaged.
    """
    return _of_characters(header, tokens, merges_of(header), False)


def merges_by(scores: Sequence[float], merged: Sequence[int], texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of tokens that make another token, the highest score of that first.

    Pairs that make the same token are in the order of their ids, as in published tokenizers.

    Args:
        scores: by id.
        merged: the ids of tokens that merges may make.
        texts: by id.
    """
    ids = {text: index for index, text in enumerate(texts)}
    merges: list[tuple[str, str]] = []
    for index in sorted(merged, key=lambda index: (-scores[index], index)):
        text = texts[index]
        cuts = ((text[:at], text[at:]) for at in range(1, len(text)))
        pairs = [(left, right) for left, right in cuts if left in ids and right in ids]
        merges += sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]])) if len(pairs) > 1 else pairs
    return merges


def _is_made(kind: int) -> bool:
    return kind not in (Kind.CONTROL, Kind.UNKNOWN, Kind.USER_DEFINED, Kind.BYTE)


def _of_characters(
    header: GgufHeader, tokens: TokenList, merges: list[tuple[str, str]], begins_with_blank: bool
) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers

    unknown = tokens.texts[tokens.roles["unk"]] if "unk" in tokens.roles else None
    vocabulary = {text: index for index, text in enumerate(tokens.texts)}
    try:
        model = models.BPE(
            vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True, dropout=None
        )
    except Exception as error:  # the library raises nothing more precise
        raise refused(header, f"its merges do not make its tokens ({error})") from error
    tokenizer = Tokenizer(model)
    blanks: Any = normalizers.Replace(" ", _BLANK)
    parts = [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if begins_with_blank:
        blanks = normalizers.Sequence([normalizers.Prepend(_BLANK), blanks])
        parts.append(decoders.Strip(content=" ", left=1))
    tokenizer.normalizer, tokenizer.decoder = blanks, decoders.Sequence(parts)
    tokens.add_to(tokenizer)
    return tokenizer
