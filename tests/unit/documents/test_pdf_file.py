"""PDF: facts that lie beside the text, texts that cannot be decoded, and pages."""

import pytest

from rapid_integrations.documents import ReadLimits
from rapid_integrations.documents.pdf_file import read_pdf
from rapid_integrations.errors import DocumentError
from tests.toys.document_files import DRAWING, PICTURE, pdf, pdf_page
from tests.toys.pdf_forms import form, words


def read(data):
    return read_pdf(data, "a.pdf", ReadLimits())


# --- forms (B10) ----------------------------------------------------------------------------------------------------


def test_values_of_form_fields_stand_beside_their_labels():
    data = form(
        "/FT /Tx /T (applicant) /V (Anna Schmidt) /Rect [150 695 300 715]",
        "/FT /Tx /T (born) /V (1 May 1990) /Rect [150 665 300 685]",
        "/FT /Tx /T (unlabelled) /TU (Case number) /V (77-A) /Rect [400 100 500 120]",
        drawn="\n".join(
            (words("Name of applicant:", 40, 700), words("Date of birth:", 40, 670), words("The end.", 40, 640))
        ),
    )
    text = read(data).text
    assert "Name of applicant: Anna Schmidt\nDate of birth: 1 May 1990\nThe end." in text
    assert text.endswith("Case number: 77-A")


def test_a_label_above_its_field():
    data = form("/FT /Tx /T (a) /V (Berlin) /Rect [40 660 200 690]", drawn=words("City", 42, 696))
    assert read(data).text == "City Berlin"


def test_boxes_and_choices_of_a_form():
    data = form(
        "/FT /Btn /T (m) /V /Yes /AS /Yes /AP << /N << /Yes 4 0 R /Off 4 0 R >> >> /Rect [40 698 52 710]",
        "/FT /Btn /T (s) /V /Off /AS /Off /AP << /N << /Yes 4 0 R /Off 4 0 R >> >> /Rect [140 698 152 710]",
        "/FT /Ch /Ff 131072 /T (c) /V (de) /Opt [[(fr) (France)] [(de) (Germany)]] /Rect [120 665 300 685]",
        "/FT /Ch /T (l) /V (b) /Opt [(a) (b)] /Rect [120 600 300 650]",
        drawn="\n".join(
            (words("Married", 60, 700), words("Single", 160, 700), words("Country:", 40, 670), words("Pick:", 40, 620))
        ),
    )
    text = read(data).text
    assert "☒ Married ☐ Single" in text
    assert "Country: Germany" in text
    assert "Pick: b [chosen from: a, b]" in text


def test_hidden_fields_and_passwords_are_not_shown():
    data = form(
        "/FT /Tx /T (h) /F 2 /V (invisible) /Rect [150 695 300 715]",
        "/FT /Tx /T (p) /Ff 8192 /V (geheim) /Rect [150 665 300 685]",
        drawn=words("Name:", 40, 700),
    )
    assert read(data).text.split() == ["Name:", "******"]


def test_xfa_forms_give_their_values_and_say_so():
    template = (
        "<template xmlns='http://www.xfa.org/schema/xfa-template/3.0/'><subform><field name='sn'><caption><value>"
        "<text>Surname:</text></value></caption></field></subform></template>"
    )
    data = (
        "<xfa:datasets xmlns:xfa='http://www.xfa.org/schema/xfa-data/1.0/'><xfa:data><f><sn>Okafor</sn><zip>8001</zip>"
        "<empty/></f></xfa:data></xfa:datasets>"
    )
    file = pdf_page(
        words("Please wait...", 40, 700),
        catalogue="/AcroForm << /Fields [] /XFA [(template) 6 0 R (datasets) 7 0 R] >>",
        more=[f"<< /Length {len(each)} >>\nstream\n{each}\nendstream" for each in (template, data)],
    )
    document = read(file)
    assert document.text.endswith("Surname: Okafor\nzip: 8001")
    assert any("XFA form" in remark for remark in document.remarks)


def test_comments_and_callouts_are_read():
    document = read(
        pdf_page(
            words("The rent is 900.", 40, 700),
            [
                "/Subtype /Text /Contents (Since May it is 950.) /Rect [300 700 320 720]",
                "/Subtype /FreeText /Contents (agreed by both) /DA (/F1 12 Tf) /Rect [300 600 400 620]",
                "/Subtype /Highlight /Contents (check) /F 2 /Rect [40 700 80 720] ",
                "/Subtype /Link /Contents (a link) /Rect [40 700 80 720]",
            ],
        )
    )
    assert document.text == "The rent is 900.\n[Comment: Since May it is 950.]\n[Comment: agreed by both]"


def test_what_stamps_draw_is_read_where_it_stands():
    stamp = "BT /F1 12 Tf 2 2 Td (APPROVED) Tj ET"
    appearance = (
        "<< /Type /XObject /Subtype /Form /BBox [0 0 100 20] /Resources << /Font << /F1 3 0 R >> >> "
        f"/Length {len(stamp)} >>\nstream\n{stamp}\nendstream"
    )
    data = pdf_page(
        words("Invoice 12", 40, 700), ["/Subtype /Stamp /AP << /N 6 0 R >> /Rect [300 600 400 620]"], more=[appearance]
    )
    assert read(data).text.split() == ["Invoice", "12", "APPROVED"]


# --- raised characters (B10) ----------------------------------------------------------------------------------------


def test_raised_and_lowered_characters_are_marked():
    page = (
        "BT /F1 12 Tf 40 700 Td (at least 10) Tj /F1 7 Tf 5 Ts (6) Tj 0 Ts /F1 12 Tf ( cells of CO) Tj /F1 7 Tf -2 Ts "
        "(2) Tj 0 Ts /F1 12 Tf ( and 10) Tj /F1 7 Tf 5 Ts (-7) Tj 0 Ts /F1 12 Tf ( m) Tj ET"
    )
    assert read(pdf(page)).text == "at least 10^6 cells of CO₂ and 10^{-7} m"


def test_a_raised_character_is_no_line_of_its_own():
    apart = f"{words('about 10', 40, 700)} BT /F1 6 Tf 88.2 708 Td (6) Tj ET {words('cells', 95, 700)}"
    assert read(pdf("BT ET " + apart)).text == "about 10^6 cells"


def test_sizes_within_a_word_alone_mark_nothing():
    small_capitals = "BT /F1 14 Tf 40 700 Td (T) Tj /F1 10 Tf (HE) Tj /F1 14 Tf ( B) Tj /F1 10 Tf (OOK 12) Tj ET"
    assert read(pdf(small_capitals)).text == "THE BOOK 12"


# --- what cannot be decoded (B11) -----------------------------------------------------------------------------------

JAPANESE = "日本語の文書です。"


def _cid_page(drawn, encoding="UniJIS-UCS2-H"):
    font = (
        f"<< /Type /Font /Subtype /Type0 /BaseFont /HeiseiMin-W3 /Encoding /{encoding} /DescendantFonts [<< "
        "/Type /Font /Subtype /CIDFontType0 /BaseFont /HeiseiMin-W3 "
        "/CIDSystemInfo << /Registry (Adobe) /Ordering (Japan1) /Supplement 2 >> "
        "/FontDescriptor << /Type /FontDescriptor /FontName /HeiseiMin-W3 /Flags 4 /Ascent 800 /Descent -200 "
        "/StemV 80 /ItalicAngle 0 /CapHeight 700 /FontBBox [0 -200 1000 900] >> >>] >>"
    )
    return pdf_page(drawn, fonts="/F2 6 0 R", more=[font])


def test_fonts_that_are_not_embedded_need_no_fonts_of_the_machine():
    """Predefined character maps, as in Japanese files of the nineties."""
    drawn = f"BT /F2 12 Tf 40 700 Td <{JAPANESE.encode('utf-16-be').hex()}> Tj ET"
    assert read(_cid_page(drawn)).text == JAPANESE


def test_vertical_writing_is_read_down_and_from_the_right():
    columns = ("一二三四五六", "七八九十百千", "東西南北上下")
    drawn = " ".join(
        f"BT /F2 12 Tf {500 - 20 * at} 700 Td <{each.encode('utf-16-be').hex()}> Tj ET"
        for at, each in enumerate(columns)
    )
    assert read(_cid_page(drawn, "UniJIS-UCS2-V")).text == "\n".join(columns)


def test_a_page_of_rubbish_is_named():
    private = {code: chr(0xE000 + code) for code in range(65, 91)}
    document = read(pdf("ABCDEFGHIJK", codes=private))
    (remark,) = document.remarks
    assert remark.startswith("page 1 of 1 hardly decodable: most characters have no meaning in Unicode")


def test_glyph_numbers_in_place_of_characters_are_named():
    font = (
        "<< /Type /Font /Subtype /Type0 /BaseFont /AAAAAA+Sub /Encoding /Identity-H /DescendantFonts [<< /Type /Font "
        "/Subtype /CIDFontType2 /BaseFont /AAAAAA+Sub /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) "
        "/Supplement 0 >> /DW 500 >>] >>"
    )
    codes = "".join(f"{ord(each) - 29:04x}" for each in "Rent is due in advance every month")
    document = read(pdf_page(f"BT /F2 12 Tf 40 700 Td <{codes}> Tj ET", fonts="/F2 6 0 R", more=[font]))
    assert any("hardly decodable" in remark for remark in document.remarks)
    assert "\x03" not in document.text


def test_one_bad_page_of_nine_is_named_and_the_others_are_read():
    whole = pdf(*(f"page number {number}" for number in range(1, 10)))
    bad = whole.replace(b"/Kids [5 0 R 7 0 R 9 0 R", b"/Kids [5 0 R 1 0 R 9 0 R")
    assert bad != whole
    document = read(bad)
    assert (
        "page number 1" in document.text and "page number 2" not in document.text and "page number 9" in document.text
    )
    assert any(remark.startswith("page 2 of 9") for remark in document.remarks)


def test_words_without_spaces_are_named():
    (remark,) = read(pdf("thisisatextlayerwhosespacesarelostsothatnowordisfound")).remarks
    assert remark.startswith("page 1 of 1 without spaces between words")


# --- pages (B11) ----------------------------------------------------------------------------------------------------


def test_pages_are_kept_as_spans_of_the_text():
    document = read(pdf("one", None, "three", PICTURE))
    assert [document.text[start:end] for start, end in document.pages] == ["one", "", "three", ""]
    assert document.page_at(0) == 1 and document.page_at(document.text.index("three")) == 3
    assert document.page_at(len(document.text) - 1) == 3
    assert document.remarks == (
        "page 4 of 4 without text (pictures: run text recognition, for instance with ocrmypdf)",
        "page 2 of 4 blank",
    )


def test_drawings_are_not_called_pictures():
    assert read(pdf("one", DRAWING)).remarks == ("page 2 of 2 without text (drawings)",)


def test_encryption_is_told_apart_from_damage():
    from tests.toys.document_files import encrypted_pdf

    with pytest.raises(DocumentError, match="is encrypted with a password: save a copy without it"):
        read(encrypted_pdf("words", "geheim"))
    assert read(encrypted_pdf("words", "")).text == "words"


def test_a_hyphen_at_a_line_end_parts_no_word():
    page = "BT /F1 12 Tf 14 TL 40 700 Td (the exam-) Tj T* (ination of all) Tj ET"
    assert read(pdf(page)).text.replace("\n", " ") == "the examination of all"


def test_a_hyphen_of_its_own_stays_at_a_line_end():
    lines = (
        "UTF-",
        "8 or ISO-",
        "9001 in non-",
        "EU states, an X-",
        "ray, Smith-",
        "Jones, AGREE-",
        "MENT, inter-",
        "nal",
    )
    page = f"BT /F1 12 Tf 14 TL 40 700 Td {' T* '.join(f'({line}) Tj' for line in lines)} ET"
    expected = "UTF-8 or ISO-9001 in non-EU states, an X-ray, Smith-Jones, AGREEMENT, internal"
    assert read(pdf(page)).text.replace("\n", " ") == expected


def test_characters_that_are_drawn_twice_are_read_once():
    assert read(pdf("MMuunniicciippaalliittyy ooff 22002244")).text == "Municipality of 2024"
    assert read(pdf("aaaaaaaaaa xxxxxxxx 1122")).text == "aaaaaaaaaa xxxxxxxx 1122"
