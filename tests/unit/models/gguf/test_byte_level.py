"""Tokenizers of GGUF files that are converted here are those of transformers' conversion, byte for byte."""

import inspect
import re

import gguf
import pytest

from rapid_integrations.models.gguf import tokenizer as of_files
from rapid_integrations.models.gguf.byte_level import AS_GPT_2, SINGLE_DIGITS, SPLITS, WHOLE_WORDS, byte_level
from rapid_integrations.models.gguf.header import read_header
from rapid_integrations.models.gguf.tokenizer import tokenizer_of
from tests.toys.models import CHATML, SPECIAL_TOKENS, byte_tokenizer

MERGES = ("t h", "Ġ th", "1 2")
TOKENS = [*sorted(byte_tokenizer().get_vocab(), key=byte_tokenizer().get_vocab().get), "th", "Ġth", "12", "<think>"]
ENDOFTEXT = "<|endoftext|>"
TEXTS = ("the 12345 them\n\n  I'LL go", "<think>x <|im_start|>é 1 23", "e\u0301 \u0301!\u0301", "")
NORMAL, CONTROL, USER_DEFINED = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED


def write(folder, pre="qwen2", tokens=TOKENS, merges=MERGES, kinds=True, model="gpt2", template=CHATML, **said):
    """Write a file with a tokenizer and nothing else; return its header."""
    path = folder / "a.gguf"
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    if kinds:
        special = {**dict.fromkeys((*SPECIAL_TOKENS, ENDOFTEXT), CONTROL), "<think>": USER_DEFINED}
        writer.add_token_types([special.get(token, NORMAL) for token in tokens])
    if merges is not None:
        writer.add_token_merges(merges)
    if template:
        writer.add_chat_template(template)
    for key, value in said.items():
        (writer.add_bool if isinstance(value, bool) else writer.add_uint32)(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_header(path)


def saved(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return {path.name: path.read_text() for path in folder.iterdir()}


def require_equal(header, folder, monkeypatch):
    """Compare the tokenizer of a file with the one that transformers converts."""
    assert byte_level(header) is not None
    ours = tokenizer_of(header)
    with monkeypatch.context() as patch:
        patch.setattr(of_files, "byte_level", lambda header: None)
        theirs = tokenizer_of(header)
    assert saved(ours, folder / "ours") == saved(theirs, folder / "theirs")
    assert type(ours) is type(theirs) and ours.special_tokens_map == theirs.special_tokens_map
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]


@pytest.mark.parametrize("pre", sorted({*SPLITS, *SINGLE_DIGITS, *AS_GPT_2} - {None}) + [None])
def test_each_way_of_splitting(tmp_path, monkeypatch, pre):
    require_equal(write(tmp_path, pre, bos_token_id=256, eos_token_id=257), tmp_path, monkeypatch)


@pytest.mark.parametrize("pre", ["llama-bpe", "tekken", "glm4", "falcon-h1", "qwen2", "gpt-2"])
@pytest.mark.parametrize("by_transformers", [False, True])
def test_a_word_that_merges_do_not_make_is_a_token_where_the_model_has_it_so(
    tmp_path, monkeypatch, pre, by_transformers
):
    tokens = [*TOKENS, "bc", "ab", "abc"]
    header = write(tmp_path, pre, tokens, ("b c", "a b", "ab c"), bos_token_id=256, eos_token_id=257)
    if by_transformers:
        monkeypatch.setattr(of_files, "byte_level", lambda header: None)
    found = tokenizer_of(header).tokenize("abc", add_special_tokens=False)
    assert found == (["abc"] if pre in WHOLE_WORDS else ["a", "bc"])


def test_expressions_are_those_of_transformers():
    from transformers import tokenization_utils_tokenizers as of_transformers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
    from transformers.models.qwen3_5.tokenization_qwen3_5 import PRETOKENIZE_REGEX as WITH_MARKS

    assert SPLITS["qwen2"] == SPLITS["hunyuan"] == PRETOKENIZE_REGEX and SPLITS["qwen35"] == WITH_MARKS
    assert f'r"{SPLITS["tekken"]}"' in inspect.getsource(of_transformers)


def test_the_expression_of_llama_4_and_gpt_oss_is_that_of_tiktoken():
    public = pytest.importorskip("tiktoken_ext.openai_public")
    source = inspect.getsource(public.o200k_base)
    assert "|".join(re.findall(r'r"""(.+)"""', source)) == SPLITS["gpt-4o"] == SPLITS["llama4"]


@pytest.mark.parametrize(
    "options",
    [
        {"add_bos_token": True, "bos_token_id": 256},
        {"add_bos_token": True},
        {"add_bos_token": False, "add_eos_token": True, "bos_token_id": 256, "eos_token_id": 257},
        {"padding_token_id": 258, "unknown_token_id": 259, "eos_token_id": 257},
        {"kinds": False, "bos_token_id": 256},
        {"tokens": [*TOKENS, ENDOFTEXT], "eos_token_id": len(TOKENS)},
        {"template": None, "bos_token_id": 256, "eos_token_id": 258},
        {"template": "{{ bos_token }}{{ messages[0]['content'] }}", "bos_token_id": 256},
    ],
    ids=str,
)
def test_what_else_a_file_says(tmp_path, monkeypatch, options):
    require_equal(write(tmp_path, **options), tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "options",
    [
        {"pre": "superbpe"},
        {"pre": "a-new-one"},
        {"model": "llama"},
        {"merges": None},
        {"merges": ["t h", "th"]},
        {"merges": ["t h", "h t"]},
        {"tokens": [*TOKENS, "th"]},
        {"tokens": [*TOKENS, "<｜begin▁of▁sentence｜>"]},
        {"padding_token_id": len(TOKENS)},
        {"tokens": list(range(300)), "kinds": False},
        {"merges": [1, 2]},
    ],
    ids=str,
)
def test_what_is_left_to_transformers(tmp_path, options):
    assert byte_level(write(tmp_path)) is not None
    assert byte_level(write(tmp_path, **options)) is None


def test_a_tokenizer_beside_the_file_is_taken_as_before(tmp_path):
    header = write(tmp_path, eos_token_id=257)
    beside = byte_tokenizer()
    beside.save_pretrained(tmp_path)
    assert len(tokenizer_of(header)) == len(beside) < len(TOKENS)
