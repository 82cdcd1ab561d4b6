"""Slides, sheets, OpenDocument, e-books, RTF, notebooks and mails: facts of each, and the bounds that they share."""

import datetime
import io
import json
from email.message import EmailMessage

import openpyxl
import pytest
from openpyxl.comments import Comment

from rapid_integrations.documents import ReadLimits
from rapid_integrations.documents.reading import read_bytes
from rapid_integrations.errors import DocumentError
from tests.toys.document_files import docx, paragraph
from tests.toys.office_files import epub, line, odf, packed, pptx, shape


def read(data, name="file"):
    return read_bytes(data if isinstance(data, bytes) else data.encode(), name, None, ReadLimits())


# --- slides ---------------------------------------------------------------------------------------------------------


def test_slides_with_tables_notes_and_raised_characters():
    table = (
        "<p:graphicFrame><a:tbl>"
        '<a:tr><a:tc gridSpan="2"><a:txBody>' + line("2024") + '</a:txBody></a:tc><a:tc hMerge="1"/></a:tr>'
        "<a:tr><a:tc><a:txBody>"
        + line("Q1")
        + "</a:txBody></a:tc><a:tc><a:txBody>"
        + line("7")
        + "</a:txBody></a:tc></a:tr>"
        "</a:tbl></p:graphicFrame>"
    )
    first = shape(line("Results"), "title") + shape(line("revenue") + line("of May", level=1)) + table
    power = "<a:p><a:r><a:t>10</a:t></a:r><a:r><a:rPr baseline='30000'/><a:t>6</a:t></a:r></a:p>"
    document = read(pptx(first, shape(power) + shape(line("3"), "sldNum"), notes="Say it slowly", hidden=(1,)))
    assert document.format == "pptx"
    assert document.text == (
        "# Results\nrevenue\n  - of May\n\n| 2024 | 2024 |\n| --- | --- |\n| Q1 | 7 |\n\n[Notes: Say it slowly]\n\n10^6"
    )
    assert document.page_at(0) == 1 and document.page_at(len(document.text) - 1) == 2
    assert document.remarks == ("slide 2 hidden in the show, read all the same",)


def test_numbers_of_lists_on_slides():
    def item(words, kind, level=0):
        return f'<a:p><a:pPr lvl="{level}"><a:buAutoNum type="{kind}"/></a:pPr><a:r><a:t>{words}</a:t></a:r></a:p>'

    text = item("one", "arabicPeriod") + item("in", "alphaLcParenBoth", 1) + item("two", "arabicPeriod")
    assert read(pptx(shape(text))).text == "1. one\n  (a) in\n2. two"


def test_pictures_on_slides_are_described_or_counted():
    described = '<p:pic><p:nvPicPr><p:cNvPr descr="a map"/></p:nvPicPr></p:pic>'
    document = read(pptx(described + described.replace(' descr="a map"', "")))
    assert document.text == "[image: a map]" and document.remarks == ("1 picture without a description left out",)


# --- sheets ---------------------------------------------------------------------------------------------------------


def workbook(fill):
    book = openpyxl.Workbook()
    fill(book)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def test_sheets_with_dates_percentages_merged_cells_formulas_and_comments():
    def fill(book):
        sheet = book.active
        sheet.title = "Rents"
        sheet.append(["Flat", "2024", None])
        sheet.merge_cells("B1:C1")
        sheet.append(["No.", "from", "share"])
        sheet.append([12, datetime.datetime(2024, 5, 1), 0.125])
        sheet["C3"].number_format = "0.0%"
        sheet["D3"] = "=A3*2"
        sheet["A3"].comment = Comment("ground floor", "Eve")
        hidden = book.create_sheet("Notes")
        hidden.sheet_state = "hidden"
        hidden["A1"] = "kept quiet"

    document = read(workbook(fill))
    assert document.text == (
        "# Rents\n\n| Flat | 2024 | 2024 |  |\n| --- | --- | --- | --- |\n| No. | from | share |  |\n"
        "| 12 [Comment: ground floor] | 2024-05-01 | 12.5% | =A3*2 |\n\n# Notes\n\n| kept quiet |\n| --- |"
    )
    assert document.remarks == (
        "1 formula without a saved value, read as written",
        "hidden in the workbook, read all the same: Notes",
    )
    assert [document.text[a:b][:5] for a, b in document.pages] == ["# Ren", "# Not"]


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        (501, "00000", "00501"),
        (9500, '#,##0.00 "€"', "9500€"),
        (9500, "[$CHF-807] #,##0", "CHF9500"),
        (12.5, '0.0" kg"', "12.5 kg"),
        (0.1, "0%", "10%"),
        (1_500_000, '0.0,," M"', "1.5 M"),
        (12_000, '#,##0,"k"', "12k"),
        (1e-7, "General", "1e-07"),
        (datetime.time(9, 30), "hh:mm", "09:30:00"),
        (True, "General", "TRUE"),
    ],
)
def test_values_are_shown_with_what_their_format_adds(value, form, expected):
    def fill(book):
        book.active["A1"] = value
        book.active["A1"].number_format = form

    assert read(workbook(fill)).text.split("\n")[2] == f"| {expected} |"


def test_raised_characters_within_a_cell():
    from openpyxl.cell.rich_text import CellRichText, TextBlock
    from openpyxl.cell.text import InlineFont

    def fill(book):
        book.active["A1"] = CellRichText("10", TextBlock(InlineFont(vertAlign="superscript"), "6"), " cells")

    assert "| 10^6 cells |" in read(workbook(fill)).text


# --- OpenDocument ---------------------------------------------------------------------------------------------------


def test_opendocument_text():
    styles = (
        '<style:style style:name="T1"><style:text-properties style:text-position="super 58%"/></style:style>'
        '<text:list-style style:name="L1"><text:list-level-style-number text:level="1" style:num-format="1" '
        'style:num-suffix="."/><text:list-level-style-number text:level="2" style:num-format="a" style:num-suffix=")" '
        "/></text:list-style>"
    )
    body = (
        "<text:tracked-changes><text:changed-region><text:deletion><text:p>gone</text:p></text:deletion>"
        '</text:changed-region></text:tracked-changes><text:h text:outline-level="2">Lease</text:h>'
        '<text:list text:style-name="L1"><text:list-item><text:p>Rent</text:p><text:list><text:list-item><text:p>due'
        "</text:p></text:list-item></text:list></text:list-item><text:list-item><text:p>Term</text:p></text:list-item>"
        '</text:list><text:p>10<text:span text:style-name="T1">6</text:span> cells<text:note><text:note-citation>1'
        "</text:note-citation><text:note-body><text:p>counted</text:p></text:note-body></text:note>"
        "<office:annotation><text:p>check</text:p></office:annotation></text:p>"
    )
    document = read(odf(body, styles=styles))
    assert document.format == "odf"
    assert document.text == (
        "## Lease\n\n1. Rent\n  a) due\n2. Term\n\n10^6 cells[^1] [Comment: check]\n\n[^1]: counted"
    )
    assert document.remarks == ("1 tracked deletion left out",)


def test_opendocument_sheets_keep_their_columns():
    body = (
        '<table:table table:name="S"><table:table-row><table:table-cell table:number-columns-spanned="2"><text:p>2024'
        "</text:p></table:table-cell><table:covered-table-cell/></table:table-row><table:table-row><table:table-cell "
        'table:number-columns-repeated="2"/><table:table-cell><text:p>9</text:p></table:table-cell></table:table-row>'
        '<table:table-row table:number-rows-repeated="1048570"><table:table-cell table:number-columns-repeated="9999"/>'
        "</table:table-row></table:table>"
    )
    assert read(odf(body, "spreadsheet")).text == "# S\n\n| 2024 | 2024 |  |\n| --- | --- | --- |\n|  |  | 9 |"


def test_opendocument_headings_formulas_and_forms():
    outline = (
        '<text:outline-style style:name="Outline"><text:outline-level-style text:level="1" style:num-format="1"/>'
        '<text:outline-level-style text:level="2" style:num-format="1" text:display-levels="2"/></text:outline-style>'
    )
    headings = "".join(
        f'<text:h text:outline-level="{level}">{words}</text:h>'
        for level, words in ((1, "Lease"), (2, "Rent"), (2, "Term"), (1, "End"))
    )
    forms = (
        '<office:forms><form:form><form:text form:id="c1" form:current-value="Anna"/>'
        '<form:checkbox form:id="c2" form:label="paid" form:current-state="checked"/></form:form></office:forms>'
    )
    body = (
        f'{forms}{headings}<text:p>Name: <draw:control draw:control="c1"/></text:p>'
        '<text:p><draw:control draw:control="c2"/></text:p><text:p>Area <draw:frame><draw:object '
        'xlink:href="./Object 1" xmlns:xlink="http://www.w3.org/1999/xlink"/></draw:frame></text:p>'
    )
    math = '<math xmlns="http://www.w3.org/1998/Math/MathML"><msup><mi>a</mi><mn>2</mn></msup></math>'
    document = read(odf(body, styles=outline, more={"Object 1/content.xml": math}))
    lines = [" ".join(line.split()) for line in document.text.split("\n") if line.strip()]
    assert lines == ["# 1 Lease", "## 1.1 Rent", "## 1.2 Term", "# 2 End", "Name: Anna", "☒ paid", "Area a^2"]
    assert document.remarks == ()


# --- e-books, RTF, notebooks ----------------------------------------------------------------------------------------


def test_an_e_book_is_read_chapter_by_chapter():
    document = read(epub("<h1>One</h1><p>Größe", "<p>10<sup>6</sup>"))
    assert document.text == "A book\n\n# One\n\nGröße\n\n10^6"
    assert [document.text[a:b] for a, b in document.pages] == ["# One\n\nGröße", "10^6"]


def test_a_protected_e_book_says_so():
    protected = '<encryption><EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/></encryption>'
    with pytest.raises(DocumentError, match="is protected against copying"):
        read(epub("<p>x", more={"META-INF/encryption.xml": protected}))


def test_rtf():
    document = read(rb"{\rtf1\ansi\ansicpg1252 Gr\'f6\'dfe \b 12\b0\par next\u8364?{\pict 00}}")
    assert document.text == "Größe 12\nnext€" and document.format == "rtf"
    assert document.remarks == ("1 picture left out",)


def test_rtf_keeps_notes_numbers_boxes_and_raised_characters():
    document = read(
        rb"{\rtf1\ansi {\listtext\pard 3.2.1\tab}Clause\par 10{\super 6} cells of CO{\sub 2}, "
        rb"10\super 7\nosupersub  m\par "
        rb"Claim{\super\chftn}{\footnote\pard {\super\chftn}Foot fact} end\par "
        rb"{\field{\*\fldinst FORMCHECKBOX {\*\formfield{\fftype1\ffres1}}}{\fldrslt }} agreed\par "
        rb"kept{\*\annotation check}{\v hidden}{\deleted gone}\par {\header File 4711\par}"
        rb"{\shp{\*\shpinst{\sp{\sn x}{\sv 1}}{\shptxt In the box\par}}}}"
    )
    lines = [line.strip() for line in document.text.split("\n") if line.strip()]
    assert lines == [
        "3.2.1\tClause",
        "10^6 cells of CO₂, 10^7  m",
        "Claim [Footnote: Foot fact] end",
        "☒ agreed",
        "kept [Comment: check]",
        "[Page header: File 4711",
        "]",
        "In the box",
    ]
    assert document.remarks == ("1 passage of hidden text left out", "1 tracked deletion left out")


def test_a_notebook():
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {
            "cell_type": "code",
            "source": "print(6*7)",
            "outputs": [
                {"output_type": "stream", "text": ["42\n"]},
                {"output_type": "display_data", "data": {"image/png": "iVBOR" * 1000, "text/plain": "<Figure>"}},
                {"output_type": "display_data", "data": {"text/html": "<b>seven</b> rows"}},
                {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []},
            ],
        },
    ]
    document = read(json.dumps({"nbformat": 4, "cells": cells}), "a.ipynb")
    assert document.text == (
        "# Title\nwords\n\n```\nprint(6*7)\n```\n\nOutput:\n42\n\nOutput:\n**seven** rows\n\nOutput:\nValueError: no"
    )
    assert document.remarks == ("1 picture left out",)
    with pytest.raises(DocumentError, match="is a damaged notebook"):
        read('{"nbformat": 4, "cells": 3}', "a.ipynb")


# --- mails ----------------------------------------------------------------------------------------------------------


def mail():
    message = EmailMessage()
    message["From"], message["To"] = "Zoë <zoe@example.org>", "max@example.org"
    message["Subject"], message["Date"] = "Größe der Lieferung", "Fri, 01 May 2026 10:00:00 +0200"
    message["Message-ID"] = "<1@example.org>"
    message.set_content("Wir liefern 12 kg Käse.\n", cte="base64")
    message.add_alternative("<p>Wir liefern <b>12 kg</b> Käse.</p>", subtype="html", cte="base64")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="foto.png")
    return message


@pytest.mark.parametrize("name", ["a.eml", "no suffix"])
def test_a_mail_is_read_with_its_headers(name):
    document = read(mail().as_bytes(), name)
    assert document.text == (
        "From: Zoë <zoe@example.org>\nTo: max@example.org\nDate: Fri, 01 May 2026 10:00:00 +0200\n"
        "Subject: Größe der Lieferung\n\nWir liefern 12 kg Käse."
    )
    assert document.format == "mail"
    assert document.remarks == ("attachment foto.png left out: save it and name it",)


def test_a_mail_of_html_only_and_one_in_another_encoding():
    message = EmailMessage()
    message["From"], message["Subject"] = "a@example.org", "x"
    message.set_content("<p>10<sup>6</sup> Stück</p>", subtype="html", charset="iso-8859-1", cte="quoted-printable")
    assert read(message.as_bytes(), "a.eml").text.endswith("10^6 Stück")
    raw = "From: a@example.org\nContent-Type: text/plain; charset=undefined\n\nGröße".encode("cp1252")
    assert read(raw, "a.eml").text.endswith("Größe")


def test_a_forwarded_mail_is_read_within_the_other():
    outer = EmailMessage()
    outer["From"], outer["Subject"] = "b@example.org", "Fwd"
    outer.set_content("see below")
    outer.add_attachment(mail())
    text = read(outer.as_bytes(), "a.eml").text
    assert "see below" in text and "> Subject: Größe der Lieferung" in text and "> Wir liefern 12 kg Käse." in text


def test_a_mailbox():
    one = "From a@example.org Fri May  1 10:00:00 2026\nFrom: a@example.org\nSubject: one\n\n>From here on\n\n"
    document = read(one + one.replace("one", "two"), "a.mbox")
    assert document.text == (
        "From: a@example.org\nSubject: one\n\nFrom here on\n\n---\n\nFrom: a@example.org\nSubject: two\n\nFrom here on"
    )


def test_a_page_saved_as_one_file():
    data = (
        "From: <Saved by Blink>\nSubject: A page\nMIME-Version: 1.0\nContent-Type: multipart/related; boundary=B\n\n"
        "--B\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n"
        "<html><body><p>Gr=C3=B6=C3=9Fe 12</p></body></html>\n--B\nContent-Type: image/png\n"
        "Content-Transfer-Encoding: base64\nContent-Location: x.png\n\niVBORw0KGgo=\n--B--\n"
    )
    document = read(data, "a.mhtml")
    assert document.text.endswith("Größe 12") and "iVBOR" not in document.text and document.remarks == ()


# --- text that stays as it is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nHello."),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nHello."),
        ("a.csv", "name,rent\nFlat 3,900"),
        ("a.tsv", "name\trent\nFlat 3\t900"),
        ("a.json", '{"rent": 900}'),
        ("a.jsonl", '{"rent": 900}\n{"rent": 950}'),
        ("a.xml", "<?xml version='1.0'?><rent>900</rent>"),
        ("a.tex", "\\section{Rent} $10^6$"),
        ("a.py", "rent = 900  # From: the lease"),
    ],
)
def test_text_files_stay_as_they_are_written(name, text):
    document = read(text, name)
    assert (document.text, document.format, document.remarks) == (text, "text", ())


# --- bounds that all archives share ---------------------------------------------------------------------------------


@pytest.mark.in_a_hurry(2)
@pytest.mark.parametrize(
    "data",
    [
        lambda bomb: docx(paragraph("x"), {"word/footnotes.xml": bomb}),
        lambda bomb: packed({"ppt/presentation.xml": "<a/>", "ppt/slides/s.xml": bomb}),
        lambda bomb: packed({"xl/workbook.xml": "<a/>", "xl/sharedStrings.xml": bomb}),
        lambda bomb: packed({"content.xml": bomb}),
        lambda bomb: epub("x", more={"OEBPS/text/bomb.xhtml": bomb}),
    ],
    ids=["docx", "pptx", "xlsx", "odf", "epub"],
)
def test_archives_that_unpack_to_too_much_are_not_unpacked(data):
    data = data(b"0" * 50_000_000)
    assert len(data) < 100_000
    with pytest.raises(DocumentError, match="unpacks to 50,"):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        lambda xml: packed({"ppt/presentation.xml": xml}),
        lambda xml: packed({"xl/workbook.xml": xml, "[Content_Types].xml": xml}),
        lambda xml: packed({"content.xml": xml}),
        lambda xml: epub("x", more={"META-INF/container.xml": xml}),
    ],
    ids=["pptx", "xlsx", "odf", "epub"],
)
def test_entities_neither_explode_nor_open_files(data, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("geheim")
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    for xml in (
        f'<!DOCTYPE d [<!ENTITY e0 "aaaaaaaaaa">{lines}]><d>&e11;</d>',
        f'<!DOCTYPE d [<!ENTITY x SYSTEM "{secret.as_uri()}">]><d>&x;</d>',
    ):
        with pytest.raises(DocumentError, match="is a damaged"):
            read(data(xml))
