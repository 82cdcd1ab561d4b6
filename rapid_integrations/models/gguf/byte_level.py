"""Builds the tokenizer of a GGUF file whose tokens are written in GPT-2's alphabet of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rapid_integrations.models.gguf.header import GgufHeader
from rapid_integrations.models.gguf.splits import WHOLE_WORDS, splitting
from rapid_integrations.models.gguf.token_list import TokenList, merges_of, refused

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def byte_level(header: GgufHeader, tokens: TokenList, split: str) -> Tokenizer:
    """Return the tokenizer of a file without what is put around a text.

    Control tokens and the user's own may have letters outside of the alphabet (DeepSeek's have), and stand for
    themselves.

    Args:
        header: of the file.
        tokens: its tokens.
        split: a name of `SPLITS`.

    Raises:
        ModelLoadError: the merges are damaged.
    """
    from tokenizers import Tokenizer, models

    vocabulary = {text: index for index, text in enumerate(tokens.texts)}
    merges = merges_of(header)
    try:
        model = models.BPE(
            vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False
        )
    except Exception as error:  # the library raises nothing more precise
        raise refused(header, f"its merges do not make its tokens ({error})") from error
    tokenizer = Tokenizer(model)
    tokenizer.model.ignore_merges = split in WHOLE_WORDS
    tokenizer.pre_tokenizer, tokenizer.decoder = splitting(split), _decoder(tokens)
    tokens.add_to(tokenizer)
    return tokenizer


def _decoder(tokens: TokenList) -> Any:
    """Return what puts tokens together.

    Tokens that are taken whole stand for themselves, also those that could be letters of the alphabet: DeepSeek's
    vocabularies have "\u00f6", which as a letter is a byte that occurs in no text.
    """
    from tokenizers import decoders, pre_tokenizers

    of_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet, written = set(of_bytes.alphabet()), "\n".join(tokens.texts)
    single = {text for index in tokens.whole() if len(text := tokens.texts[index]) == 1 and not text.isascii()}
    letters = sorted(text for text in single & alphabet if written.count(text) == 1)
    spelt = [decoders.Replace(text, of_bytes.pre_tokenize_str(text)[0][0]) for text in letters]
    return decoders.Sequence([*spelt, decoders.ByteLevel()]) if spelt else decoders.ByteLevel()
