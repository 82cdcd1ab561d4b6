"""Guess the encoding of a text that declares none and is not UTF-8."""

from __future__ import annotations

import re
import unicodedata

# Signs that all Windows code pages share, and most texts' only characters beyond ASCII: dashes, quotes, dots, degrees.
_SIGNS = bytes([0x80, 0x82, 0x84, 0x85, 0x8B, *range(0x91, 0x98), 0x99, 0x9B, 0xA0, 0xA7, 0xA9, 0xAB, 0xAE])
_SIGNS += bytes([0xB0, 0xB1, 0xB7, 0xBB])
# Obsolete code pages that short texts are mistaken for.
_UNUSED = (
    *("cp437", "cp720", "cp737", "cp775", "cp856", "cp857", "cp858", "cp860", "cp861", "cp862", "cp863", "cp864"),
    *("cp865", "cp869", "cp855", "cp1125", "cp1006", "johab", "utf_7"),
)
_LATIN = re.compile(r"(?:windows-?|cp)125[01478]|iso-?8859-?(?:2|3|4|9|10|13|14|16)|cp85[02]", re.IGNORECASE)
# Share of the best confidence; cp1252 is far more frequent than the others.
_OF_THE_BEST, _OF_THE_BEST_SHORT = 0.8, 0.6
_SHORT = 60  # bytes beyond ASCII; the more there are, the less such a prior counts
_VERY_SHORT = 24  # bytes
_SIGN_LETTERS = "µºª"  # letters for Unicode, signs of units and ordinals for people
_IDEOGRAPHIC = re.compile(r"[\u2e80-\ud7ff\uf900-\ufaff]")
_OTHERS = ("cp1252", "cp1250", "cp850", "mac_roman", "mac_cyrillic")
_MISPLACED = 0.3  # share of words with characters beyond ASCII in which one is misplaced
_WITHIN_WORDS = (
    "\u2019\u2018\u2013\u2014\u2026\u00b7\u00ad\u2010\u2011\u00a0\u00b4\u2022\u2122\u00ae\u00b0\u20ac\u200c\u200d\ufffd"
)
_SUPERSETS = {"shift_jis": "cp932", "euc_kr": "cp949", "gb2312": "gb18030", "big5": "big5hkscs"}
_LOOKED_AT = 100_000  # characters
_ENOUGH = 10  # letters in words with letters beyond ASCII
_HEAD = 1 << 18  # bytes that are examined
_DECLARATION = re.compile(rb"charset|encoding|coding[:=]", re.IGNORECASE)
_ESCAPES = (
    (re.compile(rb"\x1b\$[@B]|\x1b\$\([DOPQ]|\x1b\([JI]"), ("iso2022_jp_2004", "iso2022_jp_ext")),
    (re.compile(rb"\x1b\$\)C"), ("iso2022_kr",)),
    (re.compile(rb"~\{(?:[\x21-\x77][\x21-\x7e])+~\}"), ("hz",)),
)
_SEVERAL = 3  # characters of which one says what they are
_NEXT_BYTE = "[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"  # Windows-1252 has letters at 80 to 9F
_BYTES_AS_LETTERS = re.compile(rf"[Â-ß]{_NEXT_BYTE}|[à-ï]{_NEXT_BYTE}{{2}}|[ð-ô]{_NEXT_BYTE}{{3}}")


def guessed(data: bytes) -> str | None:
    """Return Python's name of the likeliest encoding of bytes that are not UTF-8, or None if none fits.

    Raises:
        ImportError: the detector (chardet) is not installed.
    """
    import chardet
    from chardet import EncodingEra

    head = _DECLARATION.sub(b"", data[:_HEAD])  # the detector would believe the declaration
    high = head.translate(None, bytes(range(128)))
    if high and not high.translate(None, _SIGNS):
        return "cp1252"
    found = chardet.detect_all(
        head,
        ignore_threshold=True,
        encoding_era=EncodingEra.MODERN_WEB | EncodingEra.LEGACY_ISO | EncodingEra.DOS,
        exclude_encodings=_UNUSED,
    )
    names = [(each["encoding"], each["confidence"]) for each in found if each["encoding"]]
    names = [each for each in names if not is_mojibake(head.decode(_codec(each[0] or ""), "ignore"))] or names
    share = _OF_THE_BEST if len(head) >= _VERY_SHORT else _OF_THE_BEST_SHORT
    if names and len(high) < _SHORT and _LATIN.fullmatch(names[0][0] or ""):
        for name, confidence in names[1:]:
            if name == "Windows-1252" and confidence > share * names[0][1]:
                names.insert(0, (name, confidence))
                break
    for name, _ in names:
        codec = _codec(name or "")
        try:
            text = data.decode(codec)
        except (LookupError, UnicodeError):
            continue
        return _better(data, text[:_LOOKED_AT]) or codec
    return None


def _better(data: bytes, text: str) -> str | None:
    """Return an encoding of Windows, DOS or an old Macintosh that misplaces nothing, if `text` misplaces much."""
    if _IDEOGRAPHIC.search(text):
        return None
    words = len(re.findall(r"[^\W\d_]*[^\s\x00-\x7f][^\W\d_]*", text))
    if _misplaced(text) < _MISPLACED * max(1, words):
        return None
    for codec in _OTHERS:
        try:
            other = data[: 4 * _LOOKED_AT].decode(codec)
        except UnicodeError:
            continue
        if not _misplaced(other) and not is_mojibake(other):
            return codec
    return None


def _misplaced(text: str) -> int:
    """Count signs beyond ASCII within words, letters beside digits, and capitals after small letters.

    Box-drawing characters and controls count, too.
    """
    return sum(
        here > "\x7f"
        and (
            (here.isupper() and before.islower())
            or "\u2500" <= here <= "\u259f"
            or here < "\xa0"
            or (here.isalpha() and here not in _SIGN_LETTERS and (before.isdecimal() or after.isdecimal()))
            or (
                before.isalpha()
                and after.isalpha()
                and not here.isalpha()
                and here not in _WITHIN_WORDS
                and unicodedata.category(here)[0] != "M"
            )
        )
        for before, here, after in zip(text, text[1:], text[2:] + " ", strict=False)
    )


def escaped(data: bytes) -> str | None:
    """Return the encoding of ASCII bytes that switch to other characters by escape sequences, as in mails."""
    for pattern, codecs in _ESCAPES:
        if pattern.search(data):
            for codec in codecs:
                try:
                    data.decode(codec)
                except UnicodeError:
                    continue
                return codec
    return None


def unmarked_utf16(data: bytes) -> str | None:
    """Return the variant of UTF-16 or UTF-32 of bytes without a byte order mark, or None.

    Line breaks, spaces and all Latin letters have a NUL, always on the same side.
    """
    head = data[: _HEAD & ~3]
    if len(data) % 4 == 0 and len(head) >= 16 and head.count(0) >= len(head) // 2:
        for codec in ("utf-32-le", "utf-32-be"):
            if _reads_well(head, codec):
                return codec
    if len(data) % 2 or not head:
        return None
    if not head.count(0):
        return next((codec for codec in ("utf-16-le", "utf-16-be") if _is_japanese(head, codec)), None)
    even, odd = head[::2].count(0), head[1::2].count(0)
    if min(even, odd) > 0.25 * max(even, odd):  # Korean and Chinese have some characters with a NUL on the other side
        return None
    codec = "utf-16-le" if odd > even else "utf-16-be"
    return codec if _reads_well(head, codec) else None


def _is_japanese(head: bytes, codec: str) -> bool:
    """Whether bytes without NUL decode to kana and ideographs. Other double-byte encodings do not give both."""
    try:
        text = head.decode(codec)
    except UnicodeError:
        return False
    kana = sum("\u3040" < each < "\u3100" for each in text)
    return kana > 0.1 * len(text) > 0.3 and all("\u3000" <= each <= "\u9fff" or "\uff00" <= each for each in text)


def _reads_well(head: bytes, codec: str) -> bool:
    try:
        text = head.decode(codec)
    except UnicodeError:
        return False
    odd = sum(unicodedata.category(each) in ("Cc", "Cn", "Co") and each not in "\t\r\n\f" for each in text)
    letters = sum(each.isalnum() or each.isspace() for each in text)
    return odd <= 0.01 * len(text) and letters >= 0.6 * len(text)


def is_mojibake(text: str) -> bool:
    """Whether letters beyond ASCII occur as in no language: nearly alone, or mixed with ASCII in one word.

    This happens if a Russian text is decoded as French, or the other way round.
    """
    letters = latin = mixed = words = 0
    for word in re.findall(r"[^\W\d_]{2,}", text[:_LOOKED_AT]):
        word = "".join(each for each in word if each.isalpha() and each not in _SIGN_LETTERS)  # without ² and the like
        high = [each for each in word if each > "\x7f"]
        if not high:
            continue
        words += 1
        letters += len(word)
        of_latin = sum(unicodedata.name(each, "").startswith("LATIN") for each in high)
        latin += of_latin
        mixed += of_latin < len(high) and len(high) < len(word)
    return (letters >= _ENOUGH and latin > 0.65 * letters) or (words > 0 and mixed > 0.3 * words)


def is_encoded_twice(text: str) -> bool:
    """Whether nearly all characters beyond ASCII are bytes of UTF-8 that were taken for Windows-1252 ("Ã¤" for "ä")."""
    head = text[:_LOOKED_AT]
    pairs = [each[0] for each in _BYTES_AS_LETTERS.finditer(head)]
    return len(pairs) >= _SEVERAL and sum(map(len, pairs)) >= 0.8 * sum(each > "\x7f" for each in head)


def _codec(name: str) -> str:
    codec = name.lower().replace("windows-", "cp").replace("-", "_")
    return _SUPERSETS.get(codec, codec)
