"""How texts are split, by the names that GGUF files have for it."""

import inspect
import re

import pytest

from rapid_integrations.models.gguf.splits import SPLITS, UNSPLIT, WHOLE_WORDS, split_of, splitting

TEXT = (
    "I'LL don't 'S  12345.67 x1y \u00bd\u00b2 (camelCase HTTPServer's) a/b//\n\n\r\n e\u0301t \u0928\u092e\u0938\u094d"
    "\u0924\u0947 \u4e2d\u6587\u304b\u306a\ud55c\uad6d!?\u2026\u3002 \t  end  "
)
# Pieces by names, with "\u00a6" between them. Falcon splits letters that are written in bytes, so two may share one.
EXPECTED = {
    "gpt-2 phi-2 mpt olmo exaone4 jais trillion granite-docling gigachat a.x-4.0 mellum": (
        "I\xa6'\xa6LL\xa6 don\xa6't\xa6 '\xa6S\xa6 \xa6 12345\xa6.\xa667\xa6 x\xa61\xa6y\xa6 \xbd\xb2\xa6 ("
        "\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/\xa6b\xa6//\xa6\n\n\r\n\xa6 e\xa6\u0301\xa6t\xa6 "
        "\u0928\u092e\u0938\xa6\u094d\xa6\u0924\xa6\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?"
        "\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2": (
        "I\xa6'\xa6LL\xa6 don\xa6't\xa6 '\xa6S\xa6  \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y"
        "\xa6 \xa6\xbd\xa6\xb2\xa6 (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/\xa6b\xa6//\xa6\n\n\r\n"
        "\xa6 e\xa6\u0301\xa6t\xa6 \u0928\u092e\u0938\xa6\u094d\xa6\u0924\xa6\u0947\xa6 \u4e2d\u6587\u304b"
        "\u306a\ud55c\uad6d\xa6!?\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "llama-bpe llama3 llama-v3 smaug-bpe dbrx falcon3 falcon-h1 pixtral midm-2.0 lfm2 chatglm-bpe glm4 glm5": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6 \xa6 \xa6123\xa645\xa6.\xa667\xa6 x\xa61\xa6y\xa6 \xa6\xbd\xb2"
        "\xa6 (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e\xa6\u0301t\xa6 \u0928"
        "\u092e\u0938\xa6\u094d\u0924\xa6\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?\u2026\u3002"
        "\xa6 \t \xa6 end\xa6  "
    ),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6 \xa6 \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y"
        "\xa6 \xa6\xbd\xa6\xb2\xa6 (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e"
        "\xa6\u0301t\xa6 \u0928\u092e\u0938\xa6\u094d\u0924\xa6\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c"
        "\uad6d\xa6!?\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "qwen35": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6 \xa6 \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y"
        "\xa6 \xa6\xbd\xa6\xb2\xa6 (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e"
        "\u0301t\xa6 \u0928\u092e\u0938\u094d\u0924\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?"
        "\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "ufakzeka": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6 \xa6 \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y"
        "\xa6 \xa6\xbd\xa6\xb2\xa6 (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e"
        "\xa6\u0301t\xa6 \u0928\u092e\u0938\xa6\u094d\u0924\xa6\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c"
        "\uad6d\xa6!?\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "minicpm5": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6  \xa6123\xa645\xa6.\xa667\xa6 x\xa61\xa6y\xa6 \xa6\xbd\xb2\xa6"
        " (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e\xa6\u0301t\xa6 \u0928"
        "\u092e\u0938\xa6\u094d\u0924\xa6\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?\u2026\u3002"
        "\xa6 \t \xa6 end\xa6  "
    ),
    "laguna": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6 \xa6 \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y"
        "\xa6 \xa6\xbd\xa6\xb2\xa6 (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\xa6\n\n\xa6\r"
        "\xa6\n\xa6 e\xa6\u0301t\xa6 \u0928\u092e\u0938\xa6\u094d\u0924\xa6\u0947\xa6 \u4e2d\u6587\u304b"
        "\u306a\ud55c\uad6d\xa6!?\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "seed-coder": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6 \xa6 \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y"
        "\xa6 \xa6\xbd\xa6\xb2\xa6 (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\xa6\n\n\r\n\xa6"
        " e\xa6\u0301t\xa6 \u0928\u092e\u0938\xa6\u094d\u0924\xa6\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c"
        "\uad6d\xa6!?\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "bailingmoe bailingmoe2 llada-moe": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6 \xa6 \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y"
        "\xa6 \xa6\xbd\xa6\xb2\xa6 (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e"
        "\xa6\u0301t\xa6 \u0928\u092e\u0938\xa6\u094d\u0924\xa6\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c"
        "\uad6d\xa6!?\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "jais-2": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6 \xa6 \xa6123\xa645\xa6.\xa667\xa6 x\xa61\xa6y\xa6 \xa6\xbd\xb2"
        "\xa6 (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e\xa6\u0301t\xa6 \u0928"
        "\u092e\u0938\xa6\u094d\u0924\xa6\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?\u2026\u3002"
        "\xa6 \t\xa6 \xa6 end\xa6  "
    ),
    "exaone-moe": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6 \xa6 \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y"
        "\xa6 \xa6\xbd\xa6\xb2\xa6 (\xa6camelCase HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\n\xa6\n\r\n\xa6 e"
        "\u0301t \u0928\u092e\u0938\u094d\u0924\u0947 \u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?\u2026\u3002"
        "\xa6 \t \xa6 end\xa6  "
    ),
    "tekken": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6 \xa6 \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y"
        "\xa6 \xa6\xbd\xa6\xb2\xa6 (\xa6camel\xa6Case\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6"
        " e\u0301t\xa6 \u0928\u092e\u0938\u094d\u0924\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?"
        "\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "gpt-4o llama4 minimax-m2 kanana2 talkie": (
        "I'LL\xa6 don't\xa6 '\xa6S\xa6 \xa6 \xa6123\xa645\xa6.\xa667\xa6 x\xa61\xa6y\xa6 \xa6\xbd\xb2\xa6 ("
        "\xa6camel\xa6Case\xa6 HTTPServer's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e\u0301t\xa6 \u0928\u092e"
        "\u0938\u094d\u0924\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?\u2026\u3002\xa6 \t \xa6 end"
        "\xa6  "
    ),
    "tiny_aya cohere2moe": (
        "I'LL\xa6 don't\xa6 '\xa6S\xa6  \xa612\xa6345\xa6.\xa667\xa6 x\xa61\xa6y\xa6 \xa6\xbd\xb2\xa6 (\xa6ca"
        "mel\xa6Case\xa6 HTTPServer's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e\u0301t\xa6 \u0928\u092e\u0938"
        "\u094d\u0924\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "kimi-k2": (
        "I'LL\xa6 don't\xa6 '\xa6S\xa6 \xa6 \xa6123\xa645\xa6.\xa667\xa6 x\xa61\xa6y\xa6 \xa6\xbd\xb2\xa6 ("
        "\xa6camel\xa6Case\xa6 HTTPServer's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e\u0301t\xa6 \u0928\u092e"
        "\u0938\u094d\u0924\u0947\xa6 \xa6\u4e2d\u6587\xa6\u304b\u306a\ud55c\uad6d\xa6!?\u2026\u3002\xa6 \t "
        "\xa6 end\xa6  "
    ),
    "youtu": (
        "I'LL\xa6 don't\xa6 '\xa6S\xa6 \xa6 \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y\xa6 \xa6"
        "\xbd\xa6\xb2\xa6 (\xa6camel\xa6Case\xa6 HTTPServer's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e\u0301t\xa6"
        " \u0928\u092e\u0938\u094d\u0924\u0947\xa6 \xa6\u4e2d\u6587\u304b\u306a\xa6\ud55c\uad6d\xa6!?\xa6"
        "\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6  \xa6123\xa645\xa6.\xa667\xa6 x\xa61\xa6y\xa6 \xa6\xbd\xb2\xa6"
        " (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e\u0301t\xa6 \u0928\u092e"
        "\u0938\u094d\u0924\u0947\xa6 \xa6\u4e2d\u6587\u304b\u306a\xa6\ud55c\uad6d\xa6!?\u2026\u3002\xa6 \t "
        "\xa6 end\xa6  "
    ),
    "deepseek-llm": (
        "I\xa6'\xa6LL\xa6 don\xa6'\xa6t\xa6 '\xa6S\xa6  \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61"
        "\xa6y\xa6 \xa6\xbd\xa6\xb2\xa6 (\xa6camelCase\xa6 HTTPServer\xa6'\xa6s\xa6)\xa6 a\xa6/\xa6b\xa6//"
        "\xa6\n\xa6\n\xa6\r\xa6\n\xa6 e\xa6\u0301\xa6t\xa6 \xa6\u0928\u092e\u0938\u094d\u0924\u0947\xa6 \xa6"
        "\u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?\xa6\u2026\xa6\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "deepseek-coder": (
        "I\xa6'\xa6LL\xa6 don\xa6'\xa6t\xa6 '\xa6S\xa6  \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61"
        "\xa6y\xa6 \xa6\xbd\xa6\xb2\xa6 (\xa6camelCase\xa6 HTTPServer\xa6'\xa6s\xa6)\xa6 a\xa6/\xa6b\xa6//"
        "\xa6\n\xa6\n\xa6\r\xa6\n\xa6 e\xa6\u0301\xa6t\xa6 \xa6\u0928\u092e\u0938\xa6\u094d\xa6\u0924\xa6"
        "\u0947\xa6 \xa6\u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?\xa6\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "spark2_5": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6  \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y\xa6 "
        "\xa6\xbd\xa6\xb2\xa6 (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\xa6\n\xa6\n\xa6\r"
        "\xa6\n\xa6 e\u0301t\xa6 \u0928\u092e\u0938\u094d\u0924\u0947\xa6 \xa6\u4e2d\u6587\u304b\u306a\xa6"
        "\ud55c\uad6d\xa6!?\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "afmoe": (
        "I\xa6'LL\xa6 don\xa6't\xa6 '\xa6S\xa6  \xa612\xa6345\xa6.\xa667\xa6 x\xa61\xa6y\xa6 \xa6\xbd\xb2\xa6"
        " (\xa6camelCase\xa6 HTTPServer\xa6's\xa6)\xa6 a\xa6/b\xa6//\n\n\r\n\xa6 e\u0301t\xa6 \u0928\u092e"
        "\u0938\u094d\u0924\u0947\xa6 \xa6\u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?\u2026\u3002\xa6 \t \xa6 "
        "end\xa6  "
    ),
    "superbpe": (
        "I'LL don't 'S  \xa612\xa6345\xa6.\xa667\xa6 x\xa61\xa6y \xa6\xbd\xb2\xa6 (camelCase HTTPServer's) a/"
        "b//\n\n\r\n e\u0301t \u0928\u092e\u0938\u094d\u0924\u0947 \u4e2d\u6587\u304b\u306a\ud55c\uad6d!?"
        "\u2026\u3002 \t  end  "
    ),
    "falcon": (
        "I\xa6'\xa6LL\xa6 don\xa6'\xa6t\xa6 \xa6'\xa6S\xa6 \xa6 \xa6123\xa645\xa6.\xa667\xa6 x\xa61\xa6y\xa6 "
        "\xbd\xa6\xbd\xa6\xb2\xa6\xb2\xa6 \xa6(\xa6camelCase\xa6 HTTPServer\xa6'\xa6s\xa6)\xa6 a\xa6/\xa6b"
        "\xa6//\xa6\n\n\r\n\xa6 e\xa6\u0301\xa6t\xa6 \u0928\u092e\u0938\xa6\u094d\xa6\u0924\xa6\u0947\xa6 "
        "\u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?\u2026\u3002\xa6 \t \xa6 end\xa6  "
    ),
    "bloom gpt3-finnish poro-chat": (
        "I'LL\xa6 don't\xa6 'S\xa6 \xa6 12345\xa6.\xa667\xa6 x1y\xa6 \xbd\xb2\xa6 (\xa6camelCase\xa6 HTTPServ"
        "er's\xa6)\xa6 a/b//\xa6\n\n\r\n\xa6 e\u0301t\xa6 \u0928\u092e\u0938\u094d\u0924\u0947\xa6 \u4e2d"
        "\u6587\u304b\u306a\ud55c\uad6d\xa6!?\u2026\u3002 \t \xa6 end\xa6  "
    ),
    "viking": (
        "I'LL\xa6 don't\xa6 'S\xa6 \xa6 \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x\xa61\xa6y\xa6 \xa6\xbd"
        "\xa6\xb2\xa6 (\xa6camelCase\xa6 HTTPServer's\xa6)\xa6 a/b//\xa6\n\n\r\n\xa6 e\u0301t\xa6 \u0928"
        "\u092e\u0938\u094d\u0924\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!?\u2026\u3002 \t \xa6 en"
        "d\xa6  "
    ),
    "chameleon": (
        "I\xa6'\xa6LL\xa6 don\xa6'\xa6t\xa6 \xa6'\xa6S\xa6  \xa61\xa62\xa63\xa64\xa65\xa6.\xa66\xa67\xa6 x"
        "\xa61\xa6y\xa6 \xa6\xbd\xa6\xb2\xa6 \xa6(\xa6camelCase\xa6 HTTPServer\xa6'\xa6s\xa6)\xa6 a\xa6/\xa6b"
        "\xa6/\xa6/\xa6\n\xa6\n\xa6\r\xa6\n\xa6 e\xa6\u0301\xa6t\xa6 \u0928\u092e\u0938\xa6\u094d\xa6\u0924"
        "\xa6\u0947\xa6 \u4e2d\u6587\u304b\u306a\ud55c\uad6d\xa6!\xa6?\xa6\u2026\xa6\u3002\xa6 \xa6\t\xa6  "
        "\xa6end\xa6  "
    ),
}


def pieces(name, text):
    return [text[start:end] for _, (start, end) in splitting(name).pre_tokenize_str(text)]


@pytest.mark.parametrize("names", EXPECTED, ids=lambda names: names.split()[0])
def test_pieces_of_a_text(names):
    for name in names.split():
        assert "\u00a6".join(pieces(name, TEXT)) == EXPECTED[names]


def test_each_name_is_tested():
    assert sorted(name for names in EXPECTED for name in names.split()) == sorted(SPLITS)
    assert WHOLE_WORDS <= SPLITS.keys() and UNSPLIT.isdisjoint(SPLITS)


@pytest.mark.parametrize("name", ["afmoe", "tiny_aya", "superbpe"])
@pytest.mark.parametrize("digits", [*range(1, 8), 3000])
def test_digits_are_grouped_from_the_end(name, digits):
    number = "1234567890"[: digits % 10] + "0123456789" * (digits // 10)
    found = pieces(name, f"a {number}.")
    grouped = [number[: digits % 3]] * bool(digits % 3) + [number[at : at + 3] for at in range(digits % 3, digits, 3)]
    assert found[found.index(grouped[0]) :][: len(grouped)] == grouped


def test_groups_of_digits_before_letters():
    """Of Tiny Aya only numbers that end with a word are counted from the end."""
    assert pieces("tiny_aya", "1234 1234a") == ["1", "234", " ", "123", "4", "a"]
    assert pieces("afmoe", "1234 1234a") == ["1", "234", " ", "1", "234", "a"]


def test_expressions_are_those_of_transformers():
    from transformers import tokenization_utils_tokenizers as of_transformers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
    from transformers.models.qwen3_5.tokenization_qwen3_5 import PRETOKENIZE_REGEX as WITH_MARKS

    assert SPLITS["qwen2"] == SPLITS["hunyuan"] == (PRETOKENIZE_REGEX,) and SPLITS["qwen35"] == (WITH_MARKS,)
    assert f'r"{SPLITS["tekken"][0]}"' in inspect.getsource(of_transformers)
    shared = GGUF_PRE_TOKENIZER_SPLITS.keys() & SPLITS.keys()
    assert len(shared) > 20 and all(SPLITS[name] == (GGUF_PRE_TOKENIZER_SPLITS[name],) for name in shared)


def test_the_expression_of_llama_4_and_gpt_oss_is_that_of_tiktoken():
    public = pytest.importorskip("tiktoken_ext.openai_public")
    source = inspect.getsource(public.o200k_base)
    assert ("|".join(re.findall(r'r"""(.+)"""', source)),) == SPLITS["gpt-4o"] == SPLITS["llama4"]


@pytest.mark.parametrize(
    ("name", "architecture", "expected"),
    [
        ("qwen2", "llama", "qwen2"),
        ("unheard-of", "qwen2", "unheard-of"),
        ("default", "llama", None),
        (None, "llama", None),
        (None, "gpt2", "gpt-2"),
        (None, "starcoder2", "starcoder"),
        ("default", "falcon", "falcon"),
        ("", "bloom", "bloom"),
    ],
)
def test_the_way_of_a_family_without_a_name(name, architecture, expected):
    assert split_of(name, architecture) == expected
