"""Finds labels of passages in a context: "Source 3:", "[1]", "Title: ... Content:", <document index="2">. Pure.

Templates and retrievers write labels before each passage, and answers cite them. A chunk from the middle of a passage
lacks its label. A model that reads only that chunk then cites a wrong source or none, so the label is added unchanged.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

_LONGEST_LABEL = 400  # characters, of all its lines together
_WORD = r"[^\W\d_][^\W\d]{0,20}"
_BRACKETED = re.compile(
    rf"[ \t]*[*_#>]{{0,4}}[ \t]*[\[【](?:({_WORD})[ \t]*)?[#№]?(\d{{1,5}})(?:[^\]】\n]{{0,120}})?[\]】]:?[*_]{{0,2}}"
)
_NUMBERED = re.compile(
    rf"[ \t]*[#*=\-~>\[(]{{0,8}}[ \t]*({_WORD})[ \t]*(?:no\.?|nr\.?|n°|#|№)?[ "
    rf"\t]*([\[(]?)(\d{{1,5}})[\])]?(?![\d.,]\d)",
    re.IGNORECASE,
)
_KEY = re.compile(
    rf"[ \t]*[-*_]{{0,2}}[ \t]?({_WORD}(?:[ _-]{_WORD})?)[*_]{{0,2}}[ \t]*[:：][*_]{{0,2}}(?:[ \t]|(?=\r?\n|$|"
    rf"[^\x00-\x7f]))"
)
_OPEN = re.compile(r"[ \t]*<([^\W\d][\w.:-]{0,40})((?:[ \t][^<>\n]{0,300})?)>")
_WHOLE_TAG = re.compile(r"[ \t]*<([^\W\d][\w.:-]{0,40})(?:[ \t][^<>\n]{0,300})?>[^<>\n]{0,300}</\1>[ \t]*\r?\n")
_OPEN_LINE = re.compile(r"[ \t]*<([^\W\d][\w.:-]{0,40})(?:[ \t][^<>\n]{0,300})?>[ \t]*\r?\n")
_CLOSINGS = re.compile(r"(?:\s*</[^<>\n]{1,42}>)+\s*$")
_KEYS = frozenset(
    (
        "source sources title url uri link file filepath filename file_path file_name file path page page_label "
        "page_number "
        "author authors date document doc document_id doc_id id chunk chunk_id section name metadata category score "
        "created "
        "quelle titel datei seite autor datum dokument titre fichier auteur fuente título titulo archivo página "
        "pagina autor "
        "fecha documento fonte titolo autore data bron titel bestand источник название файл страница документ 来源 "
        "标题 文件 "
        "文件名 作者 日期 页码 出典 タイトル ファイル 著者 출처 제목 파일 페이지"
    ).split()
)
_CONTENT_KEYS = frozenset(
    (
        "content contents text passage excerpt abstract snippet body context chunk_text page_content inhalt text "
        "textstelle "
        "auszug contenu texte extrait contenido texto fragmento contenuto testo conteúdo trecho inhoud tekst "
        "содержание текст "
        "фрагмент 内容 正文 原文 片段 本文 内容 抜粋 내용 본문"
    ).split()
)


@dataclass(frozen=True, slots=True)
class LabelledPassage:
    """A passage `text[start:end]`. Its label ends at `body`, and its closing text begins at `tail`."""

    start: int
    body: int
    tail: int
    end: int


def labelled_passages(text: str) -> list[LabelledPassage]:
    """Return the passages of `text` that have labels of one kind, in order, without text before the first.

    A kind of label counts if it occurs twice, or once at the beginning. The cost is linear in the text's length.
    """
    kinds: dict[tuple[str, str], list[tuple[int, int]]] = {}
    position, blank = 0, True
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        if end > position:
            line = text[position : min(end, position + _LONGEST_LABEL)]
            if not line.strip():
                blank = True
            else:
                if kind := _kind_of(line, blank):
                    kinds.setdefault(kind, []).append((position, position + len(line)))
                blank = bool(re.fullmatch(r"[\s\-=*_~]*", line))
        elif end == position:
            blank = True
        position = end + 1
    lead = len(text) - len(text.lstrip())
    counted = {kind: at for kind, at in kinds.items() if len(at) > 1 or at[0][0] <= lead}
    if not counted:
        return []
    starts = [start for start, _ in min(counted.values(), key=lambda at: (at[0][0], -len(at)))]
    ends = [*starts[1:], len(text)]
    return [_passage(text, start, end) for start, end in zip(starts, ends, strict=True)]


def _kind_of(line: str, blank_before: bool) -> tuple[str, str] | None:
    """Return the kind of label that a line begins with, or None."""
    if match := _BRACKETED.match(line):
        return ("bracketed", (match[1] or "").casefold())
    if match := _OPEN.match(line):
        return ("tag", match[1].casefold()) if _names_context(match[1].replace("_", " ").split()[0]) else None
    if (match := _NUMBERED.match(line)) and _names_context(match[1]):
        rest = line[match.end() :].strip()
        if match[2] or rest[:1] in (":", "：", "(", "（", "-", "–", "—", "]", ")", "|", "#", "*", "=") or not rest:
            return ("numbered", match[1].casefold())
    if blank_before and (match := _KEY.match(line)) and _is_key(match[1]):
        return ("key", match[1].casefold())
    return None


def _names_context(word: str) -> bool:
    # Not above: its patterns take a tenth of a second to compile, and most lines have no such word.
    from rapid_integrations.prompt.segmentation.role_words import ROLES

    return ROLES["context"].fullmatch(word) is not None


def _is_key(name: str) -> bool:
    lower = name.casefold()
    return lower in _KEYS or lower in _CONTENT_KEYS or lower.replace(" ", "_") in _KEYS


def _passage(text: str, start: int, end: int) -> LabelledPassage:
    body = _label_end(text, start, end)
    tail = end - len(text[max(body, end - 2000) : end]) + len(text[max(body, end - 2000) : end].rstrip())
    if closings := _CLOSINGS.search(text, max(body, end - 500), end):
        tail = closings.start() + (len(closings[0]) - len(closings[0].lstrip(" \t")))
    else:
        line_at = text.rfind("\n", max(body, tail - _LONGEST_LABEL), tail) + 1
        key = _KEY.match(text, line_at) if line_at > body else None
        if key and key[1].casefold() in _KEYS and _content_labelled(text[start:body]):
            tail = line_at  # "Content: ...\nSource: ..."
    return LabelledPassage(start, body, max(body, tail), end)


def _content_labelled(label: str) -> bool:
    match = _KEY.match(label)
    return bool(match) and match[1].casefold() in _CONTENT_KEYS if match else False


def _label_end(text: str, start: int, end: int) -> int:
    """Return the position at which a passage's own text begins."""
    limit = min(end, start + _LONGEST_LABEL)
    position, keyed = start, False
    if match := _BRACKETED.match(text, start, limit):
        position = match.end()
    elif _OPEN.match(text, start, limit):
        tag = _OPEN.match(text, start, limit)
        assert tag is not None
        position = tag.end()
        while line := (
            _WHOLE_TAG.match(text, _next_line(text, position, limit), limit)
            or _OPEN_LINE.match(text, _next_line(text, position, limit), limit)
        ):
            position = line.end()
    elif match := _NUMBERED.match(text, start, limit):
        line_end = text.find("\n", match.end(), limit)
        line_end = limit if line_end < 0 else line_end
        rest = text[match.end() : line_end]
        colon = min((at for at in (rest.find(":"), rest.find("：")) if at >= 0), default=-1)
        close = max(rest.find(")"), rest.find("）")) if rest.lstrip()[:1] in ("(", "（") else -1
        if (
            len(rest.strip()) <= 120
            and not re.search(r"[.!?。！？]\s*$", rest)
            and rest.strip()[-1:] in (":", "：", "", ")", "-", "=", "*", "#", "]", "）")
        ):
            position = line_end
        elif close >= 0:
            position = match.end() + close + 1
        elif colon >= 0 and _is_title(rest[colon + 1 :], text[line_end:end]):
            position = line_end
        elif colon >= 0:
            position = match.end() + colon + 1
        else:
            position = match.end()
    position = min(limit, position)
    while True:  # label lines such as "Title: ..." may follow
        at = _next_line(text, position, limit)
        key = _KEY.match(text, at if at != start else start, limit)
        if key is None or not _is_key(key[1]):
            break
        if key[1].casefold() in _CONTENT_KEYS:
            return _next_line(text, key.end(), limit)
        line_end = text.find("\n", key.end(), limit)
        if line_end < 0:
            break
        position, keyed = line_end, True
    blank = re.compile(r"(?:[ \t]*\r?\n)+" if keyed else r"[ \t]*(?:\r?\n)?").match(text, position, end)
    return blank.end() if blank else position


def _is_title(rest: str, below: str) -> bool:
    """Return whether the text behind a number and a colon is a title: short, not a sentence, with text below it."""
    following = below[:400].lstrip("\r\n").split("\n", 1)[0]
    return (
        0 < len(rest.strip()) <= 80
        and rest.rstrip()[-1:] not in ".!?。！？…"
        and len(following.strip()) > len(rest.strip())
    )


def _next_line(text: str, position: int, limit: int) -> int:
    """Return the start of the next line, if only white space follows `position` on this line."""
    match = re.compile(r"[ \t]*\r?\n").match(text, position, limit)
    return match.end() if match else position


class LabelsOf:
    """Looks up the labels of one context by position.

    Args:
        text: the context.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self.passages: Sequence[LabelledPassage] = labelled_passages(text)
        self._starts = [passage.start for passage in self.passages]

    def passage_at(self, position: int) -> LabelledPassage | None:
        """Return the passage that holds the character at `position`."""
        index = bisect_right(self._starts, position) - 1
        return self.passages[index] if index >= 0 else None

    def before(self, start: int) -> str:
        """Return the label that a piece from `start` on lacks, or "" at a passage's beginning or without labels."""
        passage = self.passage_at(start)
        return "" if passage is None else self._text[passage.start : min(start, passage.body)]

    def behind(self, end: int) -> str:
        """Return the closing text of the passage that holds a piece up to `end`, if the piece lacks it."""
        passage = self.passage_at(end - 1)
        if passage is None or end > passage.tail:
            return ""
        return self._text[passage.tail : passage.end].rstrip()
