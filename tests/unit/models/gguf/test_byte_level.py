"""Tokenizers of GGUF files in GPT-2's alphabet of bytes."""

import pytest

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.gguf.splits import WHOLE_WORDS
from rapid_integrations.models.gguf.tokenizer import tokenizer_of
from rapid_integrations.models.vocabulary import Vocabulary
from tests.toys.gguf_vocabulary import BYTES, KINDS, pieces, write_vocabulary

MERGES = (("t", "h"), ("\u0120", "th"), ("1", "2"))
MADE = ("th", "\u0120th", "12")
USER, ANSWER = "<\uff5cUser\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"  # as DeepSeek writes them
LETTER = "\u00f6"  # a byte that occurs in no text, if it is a letter of the alphabet
KEPT = dict.fromkeys(("  ", "\n\n", "<think>", LETTER), KINDS.USER_DEFINED)
CONTROL = {USER: KINDS.CONTROL, ANSWER: KINDS.CONTROL, "< EOT >": KINDS.CONTROL}
TOKENS = (*(letter for letter in BYTES if letter != LETTER), *MADE, *KEPT, *CONTROL)


def write(folder, tokens=TOKENS, pre="qwen2", merges=MERGES, kinds=KEPT | CONTROL, **said):
    return write_vocabulary(folder, tokens, pre=pre, merges=merges, kinds=kinds, **said)


@pytest.mark.parametrize("token", [*KEPT, *CONTROL])
def test_a_control_token_and_one_of_the_users_own_are_taken_whole_whatever_letters_they_have(tmp_path, token):
    tokenizer = tokenizer_of(write(tmp_path))
    found = tokenizer(f"the{token}a", add_special_tokens=False)["input_ids"]
    assert found == [TOKENS.index(each) for each in ("th", "e", token, "a")]
    assert tokenizer.decode(found) == f"the{token}a"


def test_only_the_files_own_tokens_are_there(tmp_path):
    """transformers gives each such file "<|endoftext|>" and the end token, beyond the model's rows if they are new."""
    tokenizer = tokenizer_of(write(tmp_path, bos_token_id=TOKENS.index(USER), eos_token_id=TOKENS.index(ANSWER)))
    assert tokenizer.get_vocab() == {token: index for index, token in enumerate(TOKENS)}
    assert tokenizer.eos_token_id == TOKENS.index(ANSWER) and tokenizer.bos_token == USER
    assert pieces(tokenizer, "<|endoftext|>") == list("<|endoftext|>")


def test_control_tokens_in_documents_are_text(tmp_path):
    vocabulary = Vocabulary(tokenizer_of(write(tmp_path)), ())
    text = f"the {USER} 12  a{ANSWER}"
    ids = vocabulary.encode(text)
    assert {TOKENS.index(each) for each in CONTROL}.isdisjoint(ids) and vocabulary.decode(ids) == text


@pytest.mark.parametrize(
    "pre", ["llama-bpe", "tekken", "glm4", "glm5", "falcon-h1", "youtu", "minicpm5", "qwen2", "gpt-2"]
)
def test_a_word_that_merges_do_not_make_is_a_token_where_the_model_has_it_so(tmp_path, pre):
    tokens = (*BYTES, "bc", "ab", "abc")
    found = pieces(tokenizer_of(write(tmp_path, tokens, pre, (("b", "c"), ("a", "b"), ("ab", "c")))), "abc")
    assert found == (["abc"] if pre in WHOLE_WORDS else ["a", "bc"])


@pytest.mark.parametrize(
    ("merges", "why"),
    [
        (["t h", "th"], "its merge 'th' is no pair"),
        (["t h", "th "], "its merge 'th ' is no pair"),
        (["t h", "h t"], "its merges do not make its tokens"),
    ],
)
def test_damaged_merges_are_refused(tmp_path, merges, why):
    with pytest.raises(ModelLoadError, match=why):
        tokenizer_of(write(tmp_path, merges=merges))
