"""What a GGUF file says of its tokens."""

import pytest

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.gguf.token_list import merges_of, scores_of, token_list
from tests.toys.gguf_vocabulary import BYTES, KINDS, write_vocabulary


def test_two_tokens_with_one_text_are_refused(tmp_path):
    """The first would have no text, and llama.cpp does not start with it."""
    header = write_vocabulary(tmp_path, [*BYTES, "th", "he", "th"], merges=["t h"])
    with pytest.raises(ModelLoadError, match=r"its tokens 256 and 258 have one text \('th'\)"):
        token_list(header)


def test_tokens_without_a_text_get_one(tmp_path):
    assert token_list(write_vocabulary(tmp_path, ["a", "", "b", ""])).texts == ["a", "[EMPTY_1]", "b", "[EMPTY_3]"]


def test_a_token_that_is_not_utf_8_is_refused(tmp_path):
    with pytest.raises(ModelLoadError, match=r"an element of tokenizer\.ggml\.tokens is not UTF-8"):
        token_list(write_vocabulary(tmp_path, [*(str(each).encode() for each in range(300)), b"\xff"], kinds=()))


def test_a_token_of_a_thousand_letters_is_refused(tmp_path):
    """To look for the merges of a token of megabytes would take hours."""
    assert token_list(write_vocabulary(tmp_path, ["a", "b" * 1024])).texts[1] == "b" * 1024
    with pytest.raises(ModelLoadError, match=r"it has a token of 1,025 characters \(1,024 at most\)"):
        token_list(write_vocabulary(tmp_path, ["a", "b" * 1025]))


def test_tokens_that_are_no_texts_are_refused(tmp_path):
    with pytest.raises(ModelLoadError, match=r"tokenizer\.ggml\.tokens does not hold a str for each token"):
        token_list(write_vocabulary(tmp_path, [1, 2], kinds=()))


def test_kinds_and_scores_for_some_tokens_only_are_refused(tmp_path):
    header = write_vocabulary(tmp_path, ["a", "b", "c"], scores=[0.0, 1.0])
    assert token_list(header).kinds == [KINDS.NORMAL] * 3
    with pytest.raises(ModelLoadError, match="it has 3 tokens and 2 scores"):
        scores_of(header, 3)


@pytest.mark.parametrize("kinds", [(), {"<|im_end|>": KINDS.USER_DEFINED}, {}])
def test_ends_of_turns_are_control_tokens_whatever_the_file_calls_them(tmp_path, kinds):
    found = token_list(write_vocabulary(tmp_path, ["a", "<|im_end|>", "<|fim_middle|>", "</s>"], kinds=kinds))
    ordinary = 0 if kinds == () else KINDS.NORMAL
    assert found.kinds == [ordinary, KINDS.CONTROL, KINDS.CONTROL, ordinary]


def test_roles(tmp_path):
    said = {"bos_token_id": 1, "padding_token_id": 3}  # three tokens: there is no fourth
    assert token_list(write_vocabulary(tmp_path, ["a", "b", "c"], **said)).roles == {"bos": 1}
    as_sentencepiece = write_vocabulary(tmp_path, ["a", "b", "c"], model="llama", **said)
    assert token_list(as_sentencepiece).roles == {"bos": 1, "eos": 2, "unk": 0}


def test_merges_are_cut_at_the_first_blank_behind_a_letter(tmp_path):
    header = write_vocabulary(tmp_path, ["a"], merges=["a b", "  c", "a b c"])
    assert merges_of(header) == [("a", "b"), (" ", "c"), ("a", "b c")]
    with pytest.raises(ModelLoadError, match=r"its tokenizer has no merges \(tokenizer\.ggml\.merges\)"):
        merges_of(write_vocabulary(tmp_path, ["a"]))
