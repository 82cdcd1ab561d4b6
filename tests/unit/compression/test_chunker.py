import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.compression import Chunk, chunk_text
from rapid_integrations.errors import ConfigurationError
from tests.toys.offsets import CharacterTokenizer, SpacedWordTokenizer, Utf8Tokenizer, WordTokenizer
from tests.toys.work import assert_linear

TOKENIZERS = [WordTokenizer(), SpacedWordTokenizer(), Utf8Tokenizer(), CharacterTokenizer()]
texts = st.text(st.one_of(st.sampled_from("ab .!?\n\r\t\0。🤗é\u2029\u200d\ud800"), st.characters()), max_size=200)


class ListedTokenizer:
    """Says what it is told, sensible or not."""

    def __init__(self, offsets):
        self._offsets = offsets

    def offsets(self, text):
        return self._offsets


def pieces(text, chunk_tokens, tokenizer=None):
    return [chunk.text for chunk in chunk_text(text, tokenizer or CharacterTokenizer(), chunk_tokens)]


@given(texts, st.sampled_from(TOKENIZERS), st.integers(1, 40))
def test_chunks_tile_the_text_and_keep_to_the_limit(text, tokenizer, limit):
    chunks = chunk_text(text, tokenizer, limit)
    assert "".join(chunk.text for chunk in chunks) == text
    assert all(chunk.text for chunk in chunks)
    position = 0
    starts = [start for start, _ in tokenizer.offsets(text)]
    for index, chunk in enumerate(chunks):
        assert (chunk.index, chunk.start) == (index, position)
        assert text[chunk.start : chunk.end] == chunk.text
        assert chunk.tokens == sum(chunk.start <= start < chunk.end for start in starts)
        assert chunk.tokens <= limit or len(chunk.text) == 1
        position = chunk.end
    assert sum(chunk.tokens for chunk in chunks) == len(starts)


@given(texts, st.lists(st.tuples(st.integers(-5, 250), st.integers(-5, 250)), max_size=100), st.integers(1, 9))
def test_no_character_is_lost_whatever_the_tokenizer_says(text, offsets, limit):
    chunks = chunk_text(text, ListedTokenizer(offsets), limit)
    assert "".join(chunk.text for chunk in chunks) == text
    assert all(chunk.text for chunk in chunks)
    assert all(chunk.tokens <= limit or len(chunk.text) == 1 for chunk in chunks)


@given(texts, st.integers(4, 40))
def test_chunks_are_no_shorter_than_three_quarters_of_the_limit(text, limit):
    *all_but_last, _ = chunk_text(text, CharacterTokenizer(), limit) or [None]
    assert all(chunk.tokens >= limit - limit // 4 for chunk in all_but_last)


def test_empty_text_has_no_chunks():
    assert chunk_text("", CharacterTokenizer()) == []


def test_text_without_tokens_is_one_chunk():
    assert chunk_text("\n \t", WordTokenizer(), 4) == [Chunk(0, 0, 3, "\n \t", 0)]


def test_a_text_that_just_fits_is_not_cut():
    assert pieces("aaaa bbb", 8) == ["aaaa bbb"]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_chunk_needs_room_for_a_token(limit):
    with pytest.raises(ConfigurationError, match=f"chunk_tokens={limit}"):
        chunk_text("text", CharacterTokenizer(), limit)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The last quarter of a 20-token chunk: characters 15 to 20. Two paragraph breaks: the last of them.
        ("aaaaaaaaaaaaaa\n\na\n\naa. bb ccc", ["aaaaaaaaaaaaaa\n\na\n\n", "aa. bb ccc"]),
        # A paragraph break before a later line break, sentence end and space.
        ("aaaaaaaaaaaaaa\n\nb\nc. d eeee", ["aaaaaaaaaaaaaa\n\n", "b\nc. d eeee"]),
        ("aaaaaaaaaaaaaa\r\n\r\nb. d eeee", ["aaaaaaaaaaaaaa\r\n\r\n", "b. d eeee"]),
        # A line break before a later sentence end.
        ("aaaaaaaaaaaaaaa\nb. c dddddd", ["aaaaaaaaaaaaaaa\n", "b. c dddddd"]),
        # A sentence end, its quotation mark included, before a later space.
        ('aaaaaaaaaaaaa b." c dddddd', ['aaaaaaaaaaaaa b."', " c dddddd"]),
        # No sentence ends within 3.14.
        ("aaaaaaaaaaaa 3.14159265358", ["aaaaaaaaaaaa 3.14159", "265358"]),
        ("aaaaaaaaaaaaaaa 3.14159265358", ["aaaaaaaaaaaaaaa", " 3.14159265358"]),
        ("文文文文文文文文文文文文文文文文。文文文文文文", ["文文文文文文文文文文文文文文文文。", "文文文文文文"]),
        # A space, but one in front of the last quarter is too early.
        ("aaaaaaaaaaaaaaaa b cccccc", ["aaaaaaaaaaaaaaaa b", " cccccc"]),
        ("aaaaa bbbbbbbbbbbbbbbbbbb", ["aaaaa bbbbbbbbbbbbbb", "bbbbb"]),
        # A break exactly at the end counts, one just behind it does not.
        ("aaaaaaaaaaaaaaaa b cccc.\n", ["aaaaaaaaaaaaaaaa b", " cccc.\n"]),
        ("aaaaaaaaaaaaaaaa bb\n\ncc", ["aaaaaaaaaaaaaaaa bb\n", "\ncc"]),
        ("aaaaaaaaaaaaaaaa bbb cc", ["aaaaaaaaaaaaaaaa bbb", " cc"]),
        ("aaaaaaaaaaaaaaa bbb\r\ncc", ["aaaaaaaaaaaaaaa bbb", "\r\ncc"]),  # not between the two
    ],
)
def test_cuts_fall_on_the_best_break_of_the_last_quarter(text, expected):
    assert pieces(text, 20) == expected


def test_words_are_not_torn_where_tokens_carry_their_space():
    text = "one two three four five six seven"
    for chunk in chunk_text(text, SpacedWordTokenizer(), 4)[1:]:
        assert chunk.text.startswith(" ")


def test_a_character_of_several_tokens_is_never_torn():
    assert pieces("🤗🤗🤗", 6, Utf8Tokenizer()) == ["🤗", "🤗", "🤗"]  # four bytes each


def test_a_character_over_the_limit_is_a_chunk_of_its_own():
    chunks = chunk_text("ab🤗cd", Utf8Tokenizer(), 3)
    assert [(chunk.text, chunk.tokens) for chunk in chunks] == [("ab", 2), ("🤗", 4), ("cd", 2)]


@pytest.mark.in_a_hurry(3)
@pytest.mark.parametrize("unit", ["a", " ", "\n", ".", "\0", "🤗", '."', " \n", "\r\n\t", "a. "])
def test_a_long_stretch_of_anything_takes_linear_time(unit):
    def cut(text):
        chunks = chunk_text(text, CharacterTokenizer(), 512)
        assert "".join(chunk.text for chunk in chunks) == text
        assert len(chunks) <= len(text) / 384 + 1

    assert_linear(cut, lambda size: unit * (size // len(unit)), 200_000)


@pytest.mark.in_a_hurry(1)
@pytest.mark.parametrize(("before", "unit"), [("", " "), ("", "."), ("", '."'), ("\n", " ")])
def test_one_huge_chunk_takes_linear_time(before, unit):
    def cut(text):
        assert "".join(chunk.text for chunk in chunk_text(text, CharacterTokenizer(), len(text) - 1000)) == text

    assert_linear(cut, lambda size: before + unit * (size // len(unit)) + "x", 300_000)
