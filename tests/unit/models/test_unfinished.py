"""An answer that ends inside a character: nothing of it is shown, whole or streamed; a real U+FFFD stays."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from rapid_integrations.decoding.text_stream import TextStream
from rapid_integrations.models.unfinished import unfinished_bytes
from rapid_integrations.models.vocabulary import Vocabulary
from tests.toys.models import byte_tokenizer

BYTE_LEVEL = Vocabulary(byte_tokenizer(merges=[("ðŁ", "ĺ"), ("ð", "Ł")][::-1]), ())


def byte_fallback():
    """A vocabulary with letters, a blank and a token for each byte, as Llama 2's and Gemma's have."""
    vocabulary = {"<unk>": 0, "</s>": 1, "\u2581": 2, "a": 3, "é": 4}
    vocabulary |= {f"<0x{byte:02X}>": 5 + byte for byte in range(256)}
    backend = Tokenizer(BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>"), ())


FALLBACK = byte_fallback()


def ids_of(vocabulary, data):
    """A token for each byte."""
    if vocabulary is FALLBACK:
        return [5 + byte for byte in data]
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    return vocabulary.tokenizer.convert_tokens_to_ids([letters[byte] for byte in data])


def streamed(vocabulary, ids, sizes=(1,)):
    stream = TextStream(vocabulary.decode, (), vocabulary.decode_finished)
    text, at, turn = "", 0, 0
    while at < len(ids):
        size = max(1, sizes[turn % len(sizes)])
        text, at, turn = text + stream.push(*ids[at : at + size]), at + size, turn + 1
    return text + stream.finish()


@given(st.binary(max_size=12))
def test_what_begins_a_character_is_told_from_what_never_can(data):
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    assert unfinished_bytes(data) == len(decoder.getstate()[0])


@pytest.mark.parametrize("vocabulary", [BYTE_LEVEL, FALLBACK], ids=["byte level", "byte fallback"])
@given(
    text=st.text(alphabet="aé€🙂\ufffd", max_size=8),
    cut=st.integers(0, 3),
    sizes=st.lists(st.integers(1, 5), min_size=1),
)
def test_an_answer_that_is_cut_ends_with_its_last_whole_character(vocabulary, text, cut, sizes):
    data = text.encode()
    data = data[: len(data) - cut]
    whole = codecs.getincrementaldecoder("utf-8")("replace").decode(data)
    ids = ids_of(vocabulary, data)
    assert vocabulary.decode_finished(ids) == whole
    assert streamed(vocabulary, ids, sizes) == whole


@pytest.mark.parametrize("vocabulary", [BYTE_LEVEL, FALLBACK], ids=["byte level", "byte fallback"])
@pytest.mark.parametrize("kept", [1, 2, 3])
def test_no_mark_is_left_of_an_emoji_that_is_cut(vocabulary, kept):
    data = "ok 🙂".encode()[: 3 + kept]
    assert vocabulary.decode_finished(ids_of(vocabulary, data)) == "ok "
    assert "\ufffd" in vocabulary.decode(ids_of(vocabulary, data))


@pytest.mark.parametrize("vocabulary", [BYTE_LEVEL, FALLBACK], ids=["byte level", "byte fallback"])
def test_a_mark_that_the_model_wrote_stays(vocabulary):
    for text in ("a\ufffd", "\ufffd", "a\ufffdb", "a\ufffd\ufffd"):
        assert vocabulary.decode_finished(ids_of(vocabulary, text.encode())) == text
        assert streamed(vocabulary, ids_of(vocabulary, text.encode())) == text


@pytest.mark.parametrize("vocabulary", [BYTE_LEVEL, FALLBACK], ids=["byte level", "byte fallback"])
@given(data=st.binary(max_size=12))
def test_the_bytes_of_tokens_are_those_of_the_text(vocabulary, data):
    assert b"".join(map(vocabulary.token_bytes, ids_of(vocabulary, data))) == data


def test_the_bytes_of_other_tokens():
    assert FALLBACK.token_bytes(2) == b" " and FALLBACK.token_bytes(4) == "é".encode()
    assert FALLBACK.token_bytes(1) == b"</s>" and FALLBACK.token_bytes(10_000) == b""


def test_bytes_that_can_begin_nothing_are_shown_as_what_they_are():
    assert BYTE_LEVEL.decode_finished(ids_of(BYTE_LEVEL, b"a\xff")) == "a\ufffd"
    assert BYTE_LEVEL.decode_finished(ids_of(BYTE_LEVEL, b"a\x80")) == "a\ufffd"


def test_ids_behind_the_vocabulary_write_nothing():
    ids = [*ids_of(BYTE_LEVEL, "ok 🙂".encode()[:5]), 9_999]
    assert BYTE_LEVEL.decode_finished(ids) == "ok "


def test_streams_grow_by_whole_characters():
    data = "é€🙂 done 🙂".encode()
    stream = TextStream(BYTE_LEVEL.decode, (), BYTE_LEVEL.decode_finished)
    shown = [stream.push(index) for index in ids_of(BYTE_LEVEL, data[:-1])]
    text = "".join(shown) + stream.finish()
    assert text == "é€🙂 done " and "\ufffd" not in "".join(shown)
