r"""How texts are split before letters are merged, by the names that GGUF files have for it (`tokenizer.ggml.pre`).

A name stands for one step, or for several, each of which splits what the one before has left. The expressions are those
of the published tokenizers, where they are known, and llama.cpp's otherwise. Groups of three digits that are counted
from the end (`\d{1,3}(?=(?:\d{3})*\b)` and the like) are written as two steps, and blanks at an end (`\s+$`) begin
behind another letter, because the published expressions take quadratic time for long numbers and blanks.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import pre_tokenizers


class Step(Enum):
    """A step that the tokenizers library has ready."""

    GPT_2 = "the words of GPT-2, with their letters written as bytes"
    DIGITS = "each digit alone"
    NUMBERS = "digits apart from what is beside them"
    PUNCTUATION = "runs of punctuation apart from what is beside them"


_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _SPACES
_QWEN_2 = _LLAMA_3.replace("{1,3}", "")
_QWEN_3_5 = (  # marks belong to the letters before them
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _SPACES
)
_SEED = _QWEN_2.replace(r"]+[\r\n]*", r"\r\n]+")  # punctuation without what ends a line
_BAILING = r"'(?i:[sdmt]|ll|ve|re)" + _QWEN_2.removeprefix(_CONTRACTIONS).replace(r"\s*[\r\n]+", r"\s*[\r\n]")
_JAIS_2 = _LLAMA_3.removesuffix(r"\s+(?!\S)|\s+") + (  # long runs of spaces are divided
    "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4, "1,2")) + r"|\s{1}"
)
_K_EXAONE = (  # a space between words belongs to them
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)

_CAPITALS, _SMALL = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def _words(behind: str = "", but: str = "") -> str:
    """Return words of capitals before small letters, without the letters `but`, with what may stand `behind` them."""
    before, capitals, small = r"[^\r\n\p{L}\p{N}]?", f"[{_CAPITALS}{but}]", f"[{_SMALL}{but}]"
    return f"{before}{capitals}*{small}+{behind}|{before}{capitals}+{small}*{behind}"


_MARKS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _SPACES
_TEKKEN = _words() + r"|\p{N}" + _MARKS
_GPT_4O = _words(f"{_CONTRACTIONS}?") + r"|\p{N}{1,3}" + _MARKS
_KIMI_K2 = (
    r"\p{Han}+|" + _words(f"{_CONTRACTIONS}?", r"&&[^\p{Han}]") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _SPACES
)
_CHINESE_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_YOUTU = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
    f"\ufe30-\ufe4f]+|[\u3105-\u312f]+|{_CHINESE_AND_KANA}",
    _words(f"{_CONTRACTIONS}?") + r"|\p{N}" + _MARKS,
)
_SYMBOLS_AND_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    + _SPACES
)
_DEEPSEEK_3 = (r"\p{N}{1,3}", _CHINESE_AND_KANA, _SYMBOLS_AND_WORDS)
_SPARK = (
    r"\p{N}",
    _CHINESE_AND_KANA,
    _SYMBOLS_AND_WORDS.replace(r"]+[\r\n]*", "]+").replace(r"|\s*[\r\n]+", r"|[\r\n]"),
)
_AFMOE = (
    r"\p{N}+",
    r"\A\p{N}{1,2}(?=(?:\p{N}{3})+\z)",
    r"\p{N}{3}",
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
    _SYMBOLS_AND_WORDS,
)
_TINY_AYA = (r"(?<!\d)(?>\d+)\b", r"\A\d{1,2}(?=(?:\d{3})+\z)", _GPT_4O)
_SUPERBPE = (r"\p{N}+", r"\A\d{1,2}(?=(?:\d{3})+\z)", r"\d{3}")
_HAN_AND_HANGUL = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_AND_HANGUL, Step.DIGITS)
_LETTERS_OF_DEEPSEEK = (  # Latin, Greek, Cyrillic and others that have capitals
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    "\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a"
    "\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_LETTERS_OF_DEEPSEEK}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"(?<!\s)\s+$",
    _HAN_AND_HANGUL,
    Step.DIGITS,
)
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_CHAMELEON = (
    "<sentinel:[0-9]+>",
    "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
    r"([\t\n]|    |  )",
    Step.DIGITS,
    r"[\p{P}!-/:-@\[-`{-~]",
    Step.GPT_2,
)
_FALCON = (Step.PUNCTUATION, Step.GPT_2, Step.NUMBERS, "[0-9][0-9][0-9]")

SPLITS: dict[str, tuple[str | Step, ...]] = {
    **dict.fromkeys(
        ("gpt-2", "phi-2", "mpt", "olmo", "exaone4", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0"),
        (Step.GPT_2,),
    ),
    "mellum": (Step.GPT_2,),
    **dict.fromkeys(
        ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"),
        (Step.DIGITS, Step.GPT_2),
    ),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "smaug-bpe", "dbrx", "falcon3", "falcon-h1"), (_LLAMA_3,)),
    **dict.fromkeys(("pixtral", "midm-2.0", "lfm2", "chatglm-bpe", "glm4", "glm5"), (_LLAMA_3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2"), (_QWEN_2,)),
    **dict.fromkeys(("hunyuan", "solar-open", "grok-2"), (_QWEN_2,)),
    "qwen35": (_QWEN_3_5,),
    "ufakzeka": (_QWEN_2.removeprefix(f"{_CONTRACTIONS}|"),),
    "minicpm5": (r"\p{N}{1,3}", _LLAMA_3.replace("{1,3}", "+")),
    "laguna": (r"[^\n]+|\n+", _QWEN_2),
    "seed-coder": (_SEED,),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), (_BAILING,)),
    "jais-2": (_JAIS_2,),
    "exaone-moe": (_K_EXAONE,),
    "tekken": (_TEKKEN,),
    **dict.fromkeys(("gpt-4o", "llama4", "minimax-m2", "kanana2", "talkie"), (_GPT_4O,)),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), _TINY_AYA),
    "kimi-k2": (_KIMI_K2,),
    "youtu": _YOUTU,
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"), _DEEPSEEK_3),
    "deepseek-llm": _DEEPSEEK_LLM,
    "deepseek-coder": _DEEPSEEK_CODER,
    "spark2_5": _SPARK,
    "afmoe": _AFMOE,
    "superbpe": _SUPERBPE,
    "falcon": _FALCON,
    **dict.fromkeys(("bloom", "gpt3-finnish", "poro-chat"), (_BLOOM,)),
    "viking": (_BLOOM, Step.DIGITS),
    "chameleon": _CHAMELEON,
}
"""The steps by the names that files have for them."""
UNSPLIT = frozenset({"gemma4", "sarvam-moe"})
"""Names of tokenizers that merge characters, not bytes, over whole texts."""
WHOLE_WORDS = frozenset(
    {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "glm4", "glm5"}
    | {"tekken", "youtu", "minicpm5"}
)
"""Names of tokenizers that take a piece whole if it is a token, whatever merges would make of it."""
BEGIN_WITH_BOS = frozenset(
    {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken", "chameleon"}
)
"""Names of tokenizers that begin a text with the bos token unless the file says otherwise."""
_UNNAMED = (None, "", "default")
# Files from before the names have none. These families have one tokenizer each.
_OF_FAMILIES = {
    **dict.fromkeys(("gpt2", "gptneox", "phi2", "olmo", "mpt"), "gpt-2"),
    **dict.fromkeys(("starcoder", "starcoder2", "refact", "command-r"), "starcoder"),
    **dict.fromkeys(("qwen", "qwen2", "qwen2moe"), "qwen2"),
    "falcon": "falcon",
    "bloom": "bloom",
}


def split_of(name: Any, architecture: str) -> str | None:
    """Return the name of a file's split; None if the file says none, and its family has several.

    Args:
        name: what the file says.
        architecture: of the model.
    """
    return _OF_FAMILIES.get(architecture) if name in _UNNAMED else name


def splitting(name: str) -> pre_tokenizers.PreTokenizer:
    """Return what splits a text into pieces of bytes, by a name of `SPLITS`."""
    from tokenizers import pre_tokenizers

    steps = [_step(each) for each in SPLITS[name]]
    if Step.GPT_2 not in SPLITS[name]:
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


def _step(step: str | Step) -> pre_tokenizers.PreTokenizer:
    from tokenizers import Regex, pre_tokenizers

    if step is Step.GPT_2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if step is Step.PUNCTUATION:
        return pre_tokenizers.Punctuation("contiguous")
    if isinstance(step, Step):
        return pre_tokenizers.Digits(individual_digits=step is Step.DIGITS)
    return pre_tokenizers.Split(Regex(step), behavior="isolated")
