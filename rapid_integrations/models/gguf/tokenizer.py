"""The tokenizer of a GGUF file, converted with transformers' code."""

from __future__ import annotations

from typing import Any

from rapid_integrations.models.gguf.header import GgufHeader

# How GLM-4 and its successors split a text before they merge bytes, as Llama 3 does. transformers does not know these
# names and would split as GPT-2.
_OF_GLM = frozenset({"chatglm-bpe", "glm4"})
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_of(header: GgufHeader) -> Any:
    """Return the tokenizer of a file.

    AutoTokenizer would read the whole file with the gguf package first, which takes seconds.
    """
    from tokenizers import Regex, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    path = header.path
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    if header.metadata.get("tokenizer.ggml.pre") in _OF_GLM:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    return tokenizer
