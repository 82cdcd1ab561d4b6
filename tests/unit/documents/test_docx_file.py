"""DOCX: one fact in each place where Word files keep facts."""

import pytest

from rapid_integrations.documents import ReadLimits
from rapid_integrations.documents.docx_file import read_docx
from rapid_integrations.documents.list_numbers import written
from tests.toys.document_files import docx, paragraph
from tests.toys.docx_facts import FACTS, GONE, PARTS, facts_docx, field, numbered, par, run


def read(data):
    return read_docx(data, "a.docx", ReadLimits())


@pytest.fixture(scope="module")
def facts():
    return read(facts_docx())


@pytest.mark.parametrize("place", FACTS)
def test_every_fact_is_found(facts, place):
    assert FACTS[place] in facts.text


@pytest.mark.parametrize("words", GONE)
def test_what_word_does_not_show_is_left_out(facts, words):
    assert words not in facts.text


def test_what_is_left_out_is_said(facts):
    assert facts.remarks == (
        "1 tracked deletion left out",
        "hidden text left out (1 passage)",
        "1 field without a value",
    )


def test_lists_count_through_text_between_them_and_restart_below():
    body = "".join(
        (
            numbered(0, "A"),
            numbered(1, "a"),
            numbered(2, "x"),
            paragraph("between"),
            numbered(2, "y"),
            numbered(1, "b"),
            numbered(2, "z"),
            numbered(0, "B"),
        )
    )
    text = read(docx(body, PARTS)).text
    for line in ("3. A", "3.1 a", "(a) x", "(b) y", "3.2 b", "(a) z", "4. B"):
        assert f"{line}\n" in text.replace("  ", "") + "\n"


def test_numbers_that_paragraphs_have_by_their_style():
    style = (
        '<w:style w:styleId="Clause"><w:name w:val="Clause"/><w:pPr><w:numPr><w:ilvl w:val="1"/><w:numId w:val="1"/>'
        "</w:numPr></w:pPr></w:style></w:styles>"
    )
    parts = {**PARTS, "word/styles.xml": PARTS["word/styles.xml"].replace("</w:styles>", style)}
    assert read(docx(par(run("Rent"), '<w:pStyle w:val="Clause"/>'), parts)).text.strip() == "3.1 Rent"


@pytest.mark.parametrize(
    ("number", "form", "expected"),
    [
        (4, "decimal", "4"),
        (4, "lowerRoman", "iv"),
        (1994, "upperRoman", "MCMXCIV"),
        (27, "lowerLetter", "aa"),
        (3, "upperLetter", "C"),
        (7, "decimalZero", "07"),
        (22, "ordinal", "22nd"),
        (13, "ordinal", "13th"),
        (21, "chineseCounting", "二十一"),
        (5, "none", ""),
        (5, "something else", "5"),
    ],
)
def test_numbers_are_written_as_the_list_says(number, form, expected):
    assert written(number, form) == expected


def test_a_field_in_a_field_and_one_over_two_paragraphs():
    inner = field("IF " + "x", "yes")
    assert read(docx(par(run("Answer: ") + inner))).text == "Answer: yes"
    begin, end = field("QUOTE", "part one").rsplit("<w:r><w:fldChar", 1)
    two = par(begin) + par(run("part two") + "<w:r><w:fldChar" + end)
    assert read(docx(two)).text == "part one\n\npart two"


def test_the_strict_form_of_the_format():
    usual, strict = (
        b"http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        b"http://purl.oclc.org/ooxml/wordprocessingml/main",
    )
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(facts_docx())) as before, zipfile.ZipFile(out, "w") as after:
        for name in before.namelist():
            after.writestr(name, before.read(name).replace(usual, strict))
    assert read(out.getvalue()).text == read(facts_docx()).text


def test_pictures_and_embedded_files_are_counted():
    blip = '<w:r><w:drawing><a:blip xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"/></w:drawing></w:r>'
    ole = '<w:r><w:object><o:OLEObject xmlns:o="urn:o" ProgID="Excel.Sheet.12"/></w:object></w:r>'
    old = ole.replace("Excel.Sheet.12", "Equation.3")
    document = read(docx(par(run("words") + blip + blip + ole + old)))
    assert document.remarks == (
        "2 pictures without a description left out",
        "1 embedded file left out",
        "1 equation as a picture left out",
    )


def test_a_table_within_a_table_and_a_pipe_within_a_cell():
    inner = f"<w:tbl><w:tr><w:tc>{paragraph('x|y')}</w:tc></w:tr></w:tbl>"
    table = f"<w:tbl><w:tr><w:tc>{inner}</w:tc><w:tc>{paragraph('right')}</w:tc></w:tr></w:tbl>"
    lines = read(docx(table)).text.split("\n")
    assert len(lines) == 2 and "x\\" in lines[0] and lines[0].endswith("| right |")


def moved(text, half_points):
    return f'<w:r><w:rPr><w:position w:val="{half_points}"/></w:rPr><w:t>{text}</w:t></w:r>'


def styled(text, style):
    return f'<w:r><w:rPr><w:rStyle w:val="{style}"/></w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def test_characters_that_are_moved_are_raised_or_lowered():
    body = f"<w:p>{run('10')}{moved(6, 10)}{run(' of CO')}{moved(2, -6)}{moved(' in a raised line', 10)}</w:p>"
    assert read(docx(body)).text == "10^6 of CO₂ in a raised line"


def test_character_styles_raise_hide_and_strike():
    styles = "".join(
        f'<w:style w:type="character" w:styleId="{name}"><w:rPr>{inner}</w:rPr></w:style>'
        for name, inner in (
            ("Power", '<w:vertAlign w:val="superscript"/>'),
            ("Unseen", "<w:vanish/>"),
            ("Old", "<w:strike/>"),
        )
    )
    styles += '<w:style w:type="character" w:styleId="Power2"><w:basedOn w:val="Power"/></w:style></w:styles>'
    more = {**PARTS, "word/styles.xml": PARTS["word/styles.xml"].replace("</w:styles>", styles)}
    body = f"<w:p>{run('10')}{styled(6, 'Power2')}{styled('secret', 'Unseen')}{styled(' 950', 'Old')}</w:p>"
    document = read(docx(body, more))
    assert document.text == "10^6~~ 950~~" and document.remarks == ("hidden text left out (1 passage)",)


def test_the_prompt_of_an_empty_content_control_is_no_value():
    empty = "<w:sdtPr><w:showingPlcHdr/></w:sdtPr>"
    inline = f"<w:p>{run('Name: ')}<w:sdt>{empty}<w:sdtContent>{run('Jane Doe')}</w:sdtContent></w:sdt></w:p>"
    block = f"<w:sdt>{empty}<w:sdtContent>{paragraph('Choose an item.')}</w:sdtContent></w:sdt>"
    assert read(docx(inline + block)).text == "Name: [not filled in: Jane Doe]\n\n[not filled in: Choose an item.]"


def test_the_words_of_word_art_are_read():
    path = '<v:shape xmlns:v="urn:schemas-microsoft-com:vml"><v:textpath string="CONFIDENTIAL"/></v:shape>'
    assert read(docx(f"<w:p><w:r><w:pict>{path}</w:pict></w:r></w:p>")).text == "CONFIDENTIAL"


def test_a_date_control_without_content_gives_the_day_that_it_keeps():
    date = "<w:sdtPr><w:date w:fullDate='2024-05-31T00:00:00Z'/></w:sdtPr>"
    inline = f"<w:p>{run('Due: ')}<w:sdt>{date}<w:sdtContent/></w:sdt></w:p>"
    shown = f"<w:p><w:sdt>{date}<w:sdtContent>{run('31 May')}</w:sdtContent></w:sdt></w:p>"
    block = f"<w:sdt>{date}<w:sdtContent><w:p/></w:sdtContent></w:sdt>"
    assert read(docx(inline + shown + block)).text == "Due: 2024-05-31\n\n31 May\n\n2024-05-31"


def table(*rows):
    cells = ("".join(f"<w:tc>{cell}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def test_a_table_within_a_cell_keeps_its_rows_apart():
    inner = table([paragraph("May"), paragraph("900")], [paragraph("June"), paragraph("950")])
    outer = table([paragraph("Flat"), paragraph("Rents")], [paragraph("A"), inner + paragraph("in CHF")])
    assert read(docx(outer)).text == "| Flat | Rents |\n| --- | --- |\n| A | May, 900; June, 950 in CHF |"


def test_a_table_of_one_cell_around_a_table_is_a_frame():
    inner = table([paragraph("May"), paragraph("900")])
    assert read(docx(table([paragraph("Rents") + inner]))).text == "Rents\n\n| May | 900 |\n| --- | --- |"
