"""Builds the tokenizer of a GGUF file whose tokens are written in GPT-2's alphabet of bytes.

The result is that of transformers' conversion, byte for byte, which tests compare. What is not known here, or seems odd
in a file, is left to transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rapid_integrations.models.gguf.header import GgufHeader

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LLAMA_3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN_3_5_SPLIT = (  # marks belong to the letters before them
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SEED = LLAMA_3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}").replace(
    r"]+[\r\n]*", r"\r\n]+"
)  # marks without what ends a line
_DEEPSEEK_3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",  # Chinese, Hiragana and Katakana
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_WORDS = (  # capitals before small letters
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_BEHIND_NUMBERS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = "|".join(_WORDS) + r"|\p{N}" + _BEHIND_NUMBERS
_GPT_4O = "|".join(f"{word}(?i:'s|'t|'re|'ve|'m|'ll|'d)?" for word in _WORDS) + r"|\p{N}{1,3}" + _BEHIND_NUMBERS
_K_EXAONE = (  # a space between words belongs to them
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_JAIS_2 = LLAMA_3_SPLIT.removesuffix(r"\s+(?!\S)|\s+") + (  # long runs of spaces are divided
    "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4, "1,2")) + r"|\s{1}"
)
# Of GLM-4 and its successors, LFM2, OLMo 2, Granite 4, Falcon 3 and H1; transformers splits them as GPT-2.
AS_LLAMA_3 = frozenset({"chatglm-bpe", "glm4", "lfm2", "dbrx", "falcon3", "falcon-h1", "pixtral", "midm-2.0"})
WHOLE_WORDS = frozenset(
    {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "glm4", "tekken"}
)
"""Names of tokenizers that take a piece whole if it is a token, whatever merges would make of it."""
# Of Granite, StarCoder2, Cohere, SmolLM2 and EXAONE 3; the same.
SINGLE_DIGITS = frozenset({"refact", "starcoder", "command-r", "smollm", "exaone"})
UNKNOWN_TO_TRANSFORMERS: dict[str | None, str | tuple[str, ...]] = {
    "seed-coder": _SEED,
    "deepseek-v3": _DEEPSEEK_3,
    "hunyuan-dense": _DEEPSEEK_3,
    **dict.fromkeys(("hunyuan", "stablelm2"), LLAMA_3_SPLIT.replace("{1,3}", "")),
    "jais-2": _JAIS_2,
    "tekken": _TEKKEN,
    "exaone-moe": _K_EXAONE,
    **dict.fromkeys(("gpt-4o", "llama4", "minimax-m2"), _GPT_4O),
}
SPLITS: dict[str | None, str | tuple[str, ...]] = {
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "smaug-bpe", *AS_LLAMA_3), LLAMA_3_SPLIT),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), LLAMA_3_SPLIT.replace("{1,3}", "")),
    "qwen35": _QWEN_3_5_SPLIT,
    **UNKNOWN_TO_TRANSFORMERS,
}
"""How a text is split, by names that files have for it: by one expression, or by several, one behind the other."""

AS_GPT_2 = frozenset({None, "default", "gpt-2", "phi-2", "mpt", "olmo", "exaone4"})
_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens in GGUF
_OF_GPT_2 = "<|endoftext|>"  # which transformers gives every such tokenizer
_KINDS = "tokenizer.ggml.token_type"
_SAID = {"chat_template": "chat_template", "add_bos_token": "ggml.add_bos_token", "add_eos_token": "ggml.add_eos_token"}
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # as transformers and as files call them


def byte_level(header: GgufHeader) -> tuple[Tokenizer, dict[str, Any]] | None:
    """Return the tokenizer of a file without what is put around a text, and what else the file says of it.

    The latter are arguments of transformers' tokenizers. None is returned if transformers has to convert the file.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models

    name = header.metadata.get("tokenizer.ggml.pre")
    known = (name is None or isinstance(name, str)) and name in {*AS_GPT_2, *SINGLE_DIGITS, *SPLITS}
    if not known or header.metadata.get("tokenizer.ggml.model") != "gpt2":
        return None
    try:
        tokens, pairs = header.array("tokenizer.ggml.tokens"), header.array("tokenizer.ggml.merges")
        kinds = header.array(_KINDS) if _KINDS in header.metadata else [0] * len(tokens)
    except (KeyError, UnicodeDecodeError):
        return None
    if not all(strings and isinstance(strings[0], str) for strings in (tokens, pairs)):  # all others are of its kind
        return None
    settings = _settings_of(header, tokens)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(pair.split(" ")) for pair in pairs]
    if (
        settings is None
        or not len(vocabulary) == len(tokens) == len(kinds)
        or not set().union(*tokens) <= _alphabet()
        or set(map(len, merges)) != {2}
    ):
        return None
    try:
        model = models.BPE(
            vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False
        )
    except Exception:  # a merge makes no token; transformers says so
        return None
    tokenizer = Tokenizer(model)
    tokenizer.model.ignore_merges = name in WHOLE_WORDS
    tokenizer.pre_tokenizer, tokenizer.decoder = splitting(name), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(_OF_GPT_2, special=True)])
    of_kind: dict[int, list[str]] = {_CONTROL: [], _USER_DEFINED: []}
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in of_kind:
            of_kind[kind].append(token)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in of_kind[_CONTROL]])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in of_kind[_USER_DEFINED]])
    return tokenizer, settings


def splitting(name: str | None) -> Any:
    """Return how a text is split into pieces of bytes, by a name that is known here."""
    from tokenizers import Regex, pre_tokenizers

    bytes_of_pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name not in SPLITS)
    if name in SPLITS:
        whole = SPLITS[name]
        splits = [whole] if isinstance(whole, str) else whole
        pieces = [pre_tokenizers.Split(Regex(each), behavior="isolated") for each in splits]
        return pre_tokenizers.Sequence([*pieces, bytes_of_pieces])
    if name in SINGLE_DIGITS:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_of_pieces])
    return bytes_of_pieces


def _settings_of(header: GgufHeader, tokens: Sequence[str]) -> dict[str, Any] | None:
    """Return what a file says beside the tokens; None if a token with a role is none of them."""
    said = {name: header.metadata.get(f"tokenizer.{key}") for name, key in _SAID.items()}
    settings: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    for role, key in _ROLES.items():
        index = header.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None and not (type(index) is int and 0 <= index < len(tokens)):
            return None
        settings[f"{role}_token"] = None if index is None else tokens[index]
    return settings


@lru_cache(maxsize=1)
def _alphabet() -> frozenset[str]:
    from tokenizers import pre_tokenizers

    return frozenset(pre_tokenizers.ByteLevel.alphabet())
