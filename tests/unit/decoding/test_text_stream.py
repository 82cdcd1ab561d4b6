import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.decoding.stopping import Stopping
from rapid_integrations.decoding.text_stream import TextStream


def decode_bytes(ids):
    """One token is one byte: every character beyond ASCII spans several tokens. 0 is a control token."""
    return bytes(i for i in ids if i).decode("utf-8", errors="replace")


def stream(data: bytes, stop=()):
    text = TextStream(decode_bytes, stop)
    pieces = []
    for byte in data:
        pieces.append(text.push(byte))
        if text.stopped:
            break
    return [*pieces, text.finish()], text


@given(st.text(alphabet=st.characters(exclude_characters="\x00\ufffd"), max_size=40))
def test_pieces_joined_are_the_whole_text_and_never_half_a_character(text):
    pieces, _ = stream(text.encode("utf-8", errors="ignore"))
    assert "".join(pieces) == text.encode("utf-8", errors="ignore").decode()
    assert not any("\ufffd" in piece for piece in pieces)


@given(st.text(alphabet="ab€\U0001f600", max_size=40), st.lists(st.integers(0, 6), max_size=40))
def test_tokens_that_come_together_show_every_whole_character(text, sizes):
    data, shown, at = text.encode(), "", 0
    together = TextStream(decode_bytes)
    for size in sizes:
        shown += together.push(*data[at : at + size])
        at = min(len(data), at + size)
        assert shown == data[:at].decode("utf-8", errors="ignore")
    shown += together.push(*data[at:]) + together.finish()
    assert shown == text


@given(st.text(alphabet="abc€", max_size=30), st.lists(st.text(alphabet="abc€", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string_to_appear(text, stop):
    pieces, state = stream(text.encode(), stop)
    ends = [at + len(s) for s in stop if (at := text.find(s)) >= 0]
    if not ends:
        assert "".join(pieces) == text and not state.stopped
        return
    seen = text[: min(ends)]  # the text when the first stop string is complete
    assert "".join(pieces) == seen[: min(seen.find(s) for s in stop if s in seen)]
    assert state.stopped


def test_what_may_become_a_stop_string_is_held_back():
    text = TextStream(decode_bytes, ("STOP",))
    assert [text.push(b) for b in b"xSTO"] == ["x", "", "", ""]
    assert text.push(ord("!")) == "STO!"


def test_bytes_that_are_no_character_come_out_at_the_end():
    pieces, _ = stream(b"ok\xe2\x82")
    assert "".join(pieces) == decode_bytes(b"ok\xe2\x82")


@given(st.binary(max_size=300), st.integers(0, 80))
def test_broken_bytes_are_shown_as_decoding_all_of_them_shows_them(data, repeats):
    data = data.replace(b"\0", b"") + b"\xef\xbf\xbd\xe2\x82" * repeats
    pieces, _ = stream(data)
    assert "".join(pieces) == decode_bytes(data)


def test_a_long_run_of_broken_bytes_is_shown_as_it_comes_and_costs_linear_time():
    decoded = 0

    def counting(ids):
        nonlocal decoded
        decoded += len(ids)
        return decode_bytes(ids)

    text = TextStream(counting)
    shown = "".join(text.push(byte) for byte in b"\xef\xbf\xbd\xff" * 1000)
    assert len(shown) > 1900
    assert shown + text.finish() == "\ufffd" * 2000
    assert decoded < 4000 * 300


@pytest.mark.parametrize(
    ("tokens", "limit", "taken", "reason", "text"),
    [
        (b"ab\x01cd", 10, b"ab\x01", "eos", "ab\x01"),
        (b"abcd", 3, b"abc", "length", "abc"),
        (b"abXYcd", 10, b"abXY", "stop", "ab"),
        (b"ab", 10, b"ab", None, "ab"),
        (b"abX", 3, b"abX", "length", "abX"),
        (b"ab\x01", 3, b"ab\x01", "eos", "ab\x01"),
    ],
)
@pytest.mark.parametrize("stop", [("XY",), ()])
def test_a_round_is_cut_where_the_answer_ends(tokens, limit, taken, reason, text, stop):
    stopping = Stopping(frozenset({1}), limit, TextStream(decode_bytes, stop))
    if reason == "stop" and not stop:
        taken, reason, text = tokens, None, ""
    result = stopping.take(list(tokens))
    assert (bytes(result.token_ids), result.finish_reason) == (taken, reason)
    if reason is not None:
        assert result.text == text
