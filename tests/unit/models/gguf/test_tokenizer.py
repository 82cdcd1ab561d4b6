"""Which tokenizer a GGUF file has, and which are refused."""

import pytest

from rapid_integrations.engine.loaded_models import require_one_vocabulary
from rapid_integrations.errors import UnsupportedModelError
from rapid_integrations.models.gguf.tokenizer import require_known, tokenizer_of
from rapid_integrations.models.loader import load
from tests.toys.gguf_file import write_gguf
from tests.toys.gguf_vocabulary import BYTES, FALLBACKS, pieces, write_vocabulary
from tests.toys.models import CHATML, SPECIAL_TOKENS, byte_tokenizer, tiny_model

TOKENS = (*BYTES, *SPECIAL_TOKENS, "th")


def write(folder, pre="qwen2", tokens=TOKENS, **said):
    return write_vocabulary(folder, tokens, pre=pre, merges=["t h"], **said)


@pytest.mark.parametrize("pre", ["unheard-of", "jina-v2-code", "bert-bge"])
def test_a_way_to_split_texts_that_is_not_known_is_refused(tmp_path, pre):
    header = write(tmp_path, pre)
    with pytest.raises(
        UnsupportedModelError, match=rf"tokenizer\.ggml\.pre is {pre!r}.*Put the model's tokenizer\.json"
    ):
        tokenizer_of(header)


@pytest.mark.parametrize("kind", ["t5", "rwkv", "plamo2", "bert", "none", "hybriddna", "whitespace", None])
def test_a_kind_of_tokenizer_that_is_not_known_is_refused(tmp_path, kind):
    header = write(tmp_path, model=kind)
    with pytest.raises(
        UnsupportedModelError, match=rf"a tokenizer of the kind {kind!r} .*'gpt2', 'llama' and 'gemma4'"
    ):
        tokenizer_of(header)
    with pytest.raises(UnsupportedModelError):
        require_known(header)


@pytest.mark.parametrize("pre", ["qwen2", "unheard-of"])
def test_a_tokenizer_beside_the_file_is_taken_in_its_place(tmp_path, pre):
    header = write(tmp_path, pre, eos_token_id=257)
    beside = byte_tokenizer()
    beside.save_pretrained(tmp_path)
    require_known(header)
    assert len(tokenizer_of(header)) == len(beside) < len(TOKENS)


@pytest.mark.parametrize("pre", [None, "default", ""])
def test_a_file_that_does_not_say_how_texts_are_split_is_warned_of_unless_its_family_has_one_way(tmp_path, pre):
    with pytest.warns(UserWarning, match=r"does not say how the model splits a text"):
        assert pieces(tokenizer_of(write(tmp_path, pre)), "I'LL 12") == [*"I'", *"LL", "\u0120", *"12"]
    family = write(tmp_path, pre, architecture="qwen2")
    assert split(tokenizer_of(family)) == split(tokenizer_of(write(tmp_path, "qwen2"))) == ["I", "'LL", "\u0120", *"12"]


def split(tokenizer):
    return [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("I'LL 12")]


@pytest.mark.parametrize(
    ("pre", "model", "said", "begins", "ends"),
    [
        ("qwen2", "gpt2", {}, False, False),
        ("llama-bpe", "gpt2", {}, True, False),
        ("tekken", "gpt2", {"add_bos_token": False, "add_eos_token": True}, False, True),
        ("qwen2", "gpt2", {"add_bos_token": True}, True, False),
        ("default", "llama", {}, True, False),
        ("default", "llama", {"add_bos_token": False}, False, False),
        (None, "gemma4", {}, True, False),
        ("gemma4", "gpt2", {"add_bos_token": 0}, False, False),
    ],
)
def test_what_is_put_around_a_text(tmp_path, pre, model, said, begins, ends):
    scores = [0.0] * len(TOKENS)
    header = write(tmp_path, pre, model=model, scores=scores, bos_token_id=256, eos_token_id=257, **said)
    found = tokenizer_of(header)("x")["input_ids"]
    assert (found[0] == 256) == begins and (found[-1] == 257) == ends


def test_a_template_beside_a_file_that_has_none(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "second"}')
    assert tokenizer_of(write(tmp_path)).chat_template == "second"
    (tmp_path / "chat_template.jinja").write_text("first")
    assert tokenizer_of(write(tmp_path)).chat_template == "first"
    assert tokenizer_of(write(tmp_path, template=CHATML)).chat_template == CHATML


def test_characters_and_bytes_in_one_file(tmp_path):
    """The kind "gpt2" with the name of a tokenizer that merges characters."""
    tokens = ("<unk>", "\u2581", "a", "\u2581a", *FALLBACKS)
    tokenizer = tokenizer_of(write_vocabulary(tmp_path, tokens, pre="gemma4", merges=["\u2581 a"], unknown_token_id=0))
    assert pieces(tokenizer, "a a\u00e9") == ["a", "\u2581a", "<0xC3>", "<0xA9>"]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_with_a_row_for_each_token_and_no_more_runs(tmp_path, dtype):
    """As Llama 3's. With "<|endoftext|>", which transformers adds to every such tokenizer, it would lack a row."""
    tokenizer = byte_tokenizer(merges=[("t", "h")])
    model = tiny_model("llama", 1, vocab_size=len(tokenizer))
    (path,) = write_gguf(tmp_path / "a.gguf", model, tokenizer, [("t", "h")], tokenizer__ggml__pre="llama-bpe")
    loaded = load(path, dtype=dtype)
    require_one_vocabulary(loaded)
    assert loaded.lm.vocab_size == len(tokenizer) == loaded.vocabulary.highest_token_id + 1
