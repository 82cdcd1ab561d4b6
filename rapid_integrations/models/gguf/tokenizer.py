"""The tokenizer of a GGUF file, converted with transformers' code.

A file names the way in which a text is split before bytes are merged. transformers splits as GPT-2 where it does not
know the name, which gives other tokens than the model was trained on.
"""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.gguf.header import GgufHeader

_AS_LLAMA_3 = frozenset({"chatglm-bpe", "glm4"})  # of GLM-4 and its successors
_SINGLE_DIGITS = frozenset({"refact", "starcoder", "command-r"})  # of Granite, StarCoder2 and Cohere 2
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_of(header: GgufHeader) -> Any:
    """Return the tokenizer of a file.

    AutoTokenizer would read the whole file with the gguf package first, which takes seconds.
    """
    from transformers import PreTrainedTokenizerFast

    path = header.path
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    return splitting_as_trained(tokenizer, header)


def splitting_as_trained(tokenizer: Any, header: GgufHeader) -> Any:
    """Let a tokenizer that transformers has converted split a text as the file says; return it."""
    from tokenizers import Regex, pre_tokenizers

    name = header.metadata.get("tokenizer.ggml.pre")
    split: pre_tokenizers.PreTokenizer
    if name in _AS_LLAMA_3:
        split = pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated")
    elif name in _SINGLE_DIGITS:
        split = pre_tokenizers.Digits(individual_digits=True)
    else:
        return tokenizer
    behind = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name in _SINGLE_DIGITS)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, behind])
    return tokenizer
