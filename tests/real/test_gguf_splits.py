"""Texts are split as llama.cpp splits them, by every name that files have for it: `pip install xllamacpp`."""

import json
import urllib.request

import pytest
from tokenizers import pre_tokenizers

from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.splits import SPLITS
from rapid_integrations.models.gguf.tokenizer import tokenizer_of
from tests.toys.gguf_file import write_gguf
from tests.toys.models import byte_tokenizer, tiny_model

pytestmark = pytest.mark.slow
TEXTS = (
    "DON'T pay I'll'VE we're  12345.67 x1 22",
    "camelCase HTTPServer aB Ab ABc a/b//c \n\n next\r\nline  \n end ",
    "1.\n\n2.  3    4        5                 6 a \t\t b",
    "-- (a) [b]{c} ... !!?? a_b $x+y=z a.b,c;d 'quoted' \"it's\"",
    "\u4e2d\u6587 \u3042\u3044 \u043f\u0440\u0438\u0432\u0435\u0442 caf\u00e9 na\u00efve",
)
# llama.cpp splits some of these texts otherwise than the published tokenizers: several blanks before a number, bytes of
# a letter, capitals within a word, and numbers whose digits have no merges in DeepSeek's vocabulary.
OTHERWISE = {"afmoe", "tiny_aya", "cohere2moe", "falcon", "kimi-k2", "youtu", "deepseek-llm"}
LETTERS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


WHOLE = (("b", "c"), ("a", "b"), ("ab", "c"))  # "abc" is a token, and merges make "a" and "bc" of it


def pairs():
    """Return a merge for each two bytes that are neighbours in the texts; splits keep some of them apart."""
    written = ["".join(piece for piece, _ in LETTERS.pre_tokenize_str(text)) for text in TEXTS]
    return tuple(dict.fromkeys(each for text in written for each in zip(text, text[1:], strict=False)))


@pytest.mark.parametrize("name", sorted(SPLITS.keys() - OTHERWISE))
def test_a_text_has_the_tokens_that_llama_cpp_gives_it(tmp_path, name):
    xllamacpp = pytest.importorskip("xllamacpp")
    merges = (*WHOLE, *pairs())
    tokenizer = byte_tokenizer(merges=merges)
    model = tiny_model("llama", 1, vocab_size=len(tokenizer))
    (path,) = write_gguf(tmp_path / "tiny.gguf", model, tokenizer, merges, tokenizer__ggml__pre=name)
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.port = str(path), 0
    settings.n_parallel, settings.n_ctx, settings.fit_params = 1, 64, False
    settings.warmup, settings.cache_ram_mib, settings.verbosity = False, 0, 0
    server, ours = xllamacpp.Server(settings), tokenizer_of(read_header(path))
    for text in ("abc", *TEXTS):
        asked = json.dumps({"content": text, "add_special": False}).encode()
        request = urllib.request.Request(
            f"{server.listening_address}/tokenize", asked, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            theirs = json.load(answer)["tokens"]
        assert ours(text, add_special_tokens=False)["input_ids"] == theirs
