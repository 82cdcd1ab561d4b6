"""Bytes to text: marks, UTF-8, damaged UTF-8, other encodings, and what is no text."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapid_integrations.documents.text_file import decode
from rapid_integrations.errors import ConfigurationError, DocumentError, MissingExtraError

GERMAN = "Über die Größe: das Gerät wiegt 12 kg – nicht mehr. Straße, Fuß, Äpfel und Öl."
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю."
JAPANESE = "これは日本語の文書です。東京は今日も晴れています。"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", [GERMAN, RUSSIAN, JAPANESE, "plain", "🙂\u202eabc"])
def test_unicode_is_read_exactly(text, encoding):
    assert decode(text.encode(encoding), "a.txt") == (text, ())


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_every_utf8_text_comes_back(text):
    assert decode(text.encode(), "a.txt") == (text.removeprefix("\ufeff"), ())


@pytest.mark.parametrize(("text", "encoding"), [(GERMAN, "cp1252"), (RUSSIAN, "cp1251"), (JAPANESE, "shift_jis")])
def test_other_encodings_are_guessed_and_the_guess_is_said(text, encoding):
    read, (remark,) = decode(text.encode(encoding), "a.txt")
    assert read == text
    assert "a guess" in remark and "--encoding" in remark


def test_an_encoding_that_is_named_is_obeyed():
    data = "£5".encode("cp1252")
    assert decode(data, "a.txt", encoding="cp1252") == ("£5", ())
    with pytest.raises(DocumentError, match=r"a.txt is not in the encoding utf-8 \(byte 0\)"):
        decode(data, "a.txt", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="encoding='utf-9' is unknown"):
        decode(data, "a.txt", encoding="utf-9")


def test_what_a_file_declares_counts_where_it_holds():
    assert decode("Größe".encode("cp1252"), "a.html", "iso-8859-1")[0] == "Größe"
    assert decode("日本語".encode(), "a.html", "ascii") == ("日本語", ())
    assert decode(b"abc", "a.html", "no-such-thing") == ("abc", ())


@pytest.mark.parametrize("name", ["latin-1", "iso8859_1", "iso-latin-1-unix", "Latin-1-dos", "L1"])
def test_names_of_editors_and_of_python_count_too(name):
    assert decode("# Größe, naïveté\n".encode("latin-1"), "a.py", name) == ("# Größe, naïveté\n", ())


def test_an_encoding_that_no_browser_knows_is_read_as_it_is_declared():
    assert decode("Größe".encode("cp850"), "a.py", "cp850") == ("Größe", ())
    assert decode("Größe".encode("cp1252"), "a.py", "rot13")[0] == "Größe"  # it is no encoding of characters


def test_damaged_utf8_keeps_the_rest():
    data = (GERMAN * 3).encode().replace("ß".encode(), b"\xff", 1)
    text, (remark,) = decode(data, "a.txt")
    assert text == (GERMAN * 3).replace("ß", "\ufffd", 1)
    assert "1 broken character," in remark


def test_line_breaks_are_one_character():
    assert decode(b"a\r\nb\rc\nd", "a.txt")[0] == "a\nb\nc\nd"


@pytest.mark.parametrize(
    "data", [b"\0\0\1\2", b"text\0text", bytes(range(32)) * 4, b"ab\xff\xfe\x00", bytes(range(256))]
)
def test_binary_files_are_refused(data):
    with pytest.raises(DocumentError, match=r"^a.bin is a binary file"):
        decode(data, "a.bin")


def test_a_mark_that_lies_is_damage():
    with pytest.raises(DocumentError, match="is marked as utf-16, but byte 2 is not"):
        decode(b"\xff\xfe\x00", "a.txt")


def test_without_the_detector_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "chardet", None)
    assert decode(GERMAN.encode(), "a.txt")[0] == GERMAN  # UTF-8 needs nothing
    with pytest.raises(MissingExtraError, check=lambda error: error.extra == "documents"):
        decode(GERMAN.encode("cp1252"), "a.txt")


@pytest.mark.parametrize("text", [GERMAN, RUSSIAN, "«Ça coûte 5 €», dit-il à la gérante."])
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_utf8_that_was_encoded_twice_is_named(text, encoding):
    try:
        twice = text.encode().decode(encoding)
    except UnicodeDecodeError:  # cp1252 leaves five bytes open
        twice = text.encode().decode("latin-1")
    read, (remark,) = decode(twice.encode(), "a.txt")
    assert read == twice.replace("\r", "\n") and "encoded a second time" in remark


def test_texts_about_that_and_foreign_letters_are_no_such_case():
    for text in (f"It reads Ã¤ and Ã¶ in place of ä. {GERMAN}", "ÃO, ÂNGULO “à” — não: «É»", "Ã¤ Ã¶"):
        assert decode(text.encode(), "a.txt") == (text, ())
