"""PDF: turned text, text that is drawn twice or over other text, spaced letters, signs, characters that are lost."""

import pypdfium2
import pytest

from rapid_integrations.documents import ReadLimits
from rapid_integrations.documents.pdf_characters import PageCharacters
from rapid_integrations.documents.pdf_file import read_pdf
from tests.toys.document_files import pdf, pdf_page
from tests.toys.pdf_forms import form, words

TAMIL = "\xb4\xbf\xa2\xb0\xa3\xa2 \xbf\xba\xb0 \xb4\xab\xa2\xac"  # by a font with letters in the places of signs


def read(data):
    return read_pdf(data, "a.pdf", ReadLimits())


def turned(text, matrix, x, y, size=12):
    return f"BT /F1 {size} Tf {matrix} {x} {y} Tm ({text}) Tj ET"


def font_of_codes(encoding):
    return (
        f"<< /Type /Font /Subtype /Type0 /BaseFont /AAAAAA+Sub /Encoding {encoding} /DescendantFonts [<< /Type /Font "
        "/Subtype /CIDFontType2 /BaseFont /AAAAAA+Sub /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) "
        "/Supplement 0 >> /DW 500 >>] >>"
    )


# --- turned text ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "matrix, step", [("0 1 -1 0", (0, 1)), ("0 -1 1 0", (0, -1)), ("0.98 0.199 -0.199 0.98", (1, 0))]
)
def test_turned_text_that_is_drawn_letter_by_letter_is_one_line(matrix, step):
    advances = {"S": 8.0, "a": 6.67, "i": 2.67, "n": 6.67, "t": 3.33, " ": 3.33, "2": 6.67, "5": 6.67}
    along = (0.98, 0.199) if step == (1, 0) else step
    at, drawn = 0.0, []
    for letter in "Saint 25":
        if letter != " ":
            drawn.append(turned(letter, matrix, 300 + at * along[0], 400 + at * along[1]))
        at += advances[letter]
    heading = words("A heading that is longer than the label", 40, 700)  # so the page is a level one
    assert read(pdf_page("\n".join([heading, *drawn]))).text.split("\n")[1:] == ["Saint 25"]


def test_turned_text_of_two_lines_stays_two_lines():
    drawn = turned("S", "0 1 -1 0", 300, 400) + turned("T", "0 1 -1 0", 320, 400)
    assert read(pdf_page(drawn)).text.split("\n") == ["S", "T"]


def test_digits_of_a_slanted_label_are_not_raised():
    assert read(pdf_page(turned("Feb 13, 2012", "0.5 0.866 -0.866 0.5", 300, 400))).text == "Feb 13, 2012"


def test_letters_that_are_slanted_artificially_are_not_turned():
    page = pypdfium2.PdfDocument(pdf_page(turned("a", "1 0 0.33 1", 40, 700) + turned("b", "0 1 -1 0", 300, 400)))[0]
    characters = PageCharacters(page.get_textpage())
    slanted, upright = (characters.characters.index(each) for each in "ab")
    assert not characters.is_turned(slanted) and characters.is_turned(upright)
    assert characters.baseline(slanted).along == (1, 0) and characters.baseline(slanted).shear == pytest.approx(0.33)
    assert characters.baseline(upright).along == (0, 1) and characters.baseline(upright).em == 12


def test_mirrored_text_is_read_as_it_is_written():
    assert read(pdf_page(turned("The movie opens", "-1 0 0 1", 300, 400))).text == "The movie opens"


# --- drawn twice, drawn over ------------------------------------------------------------------------------------------


def test_a_shadow_is_not_read():
    letters = [turned("Rue"[at], "10 0 0 10", 40 + 7 * at + by, 700 - by, size=1) for at in range(3) for by in (0, 0.9)]
    drawn = " ".join(letters)
    assert read(pdf_page(drawn)).text == "Rue"


def test_both_letters_of_a_ligature_are_kept():
    assert read(pdf("oXce", codes={ord("X"): "ffi", **{ord(each): each for each in "oce"}})).text == "office"


def test_an_annotation_over_a_word_does_not_part_it():
    note = "BT /F1 20 Tf 0 0 Td (PAID) Tj ET"
    appearance = (
        "<< /Type /XObject /Subtype /Form /BBox [0 -5 100 30] /Resources << /Font << /F1 3 0 R >> >> "
        f"/Length {len(note)} >>\nstream\n{note}\nendstream"
    )
    drawn = "BT /F1 12 Tf 40 700 Td (Invo) Tj (ice 12) Tj ET"
    document = read(pdf_page(drawn, ["/Subtype /Stamp /AP << /N 6 0 R >> /Rect [50 695 150 730]"], more=[appearance]))
    assert document.text == "Invoice 12\nPAID"


def test_spaced_letters_are_one_word():
    assert read(pdf_page("BT /F1 24 Tf 10 Tc 40 700 Td (Hello) Tj ET")).text == "Hello"


def test_digits_of_two_columns_are_set_apart():
    assert read(pdf_page("BT /F1 24 Tf 40 700 Td [(1) -900 (2)] TJ ET")).text.split() == ["1", "2"]


# --- signs and codes --------------------------------------------------------------------------------------------------


def test_private_codes_of_symbol_are_the_signs_that_it_draws():
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap 1 begincodespacerange <00> <ff> "
        "endcodespacerange 2 beginbfchar\n<2b> <F02B>\n<3d> <F0B3>\nendbfchar endcmap end end"
    )
    document = read(
        pdf_page(
            "BT /F1 12 Tf 40 700 Td (a ) Tj /F2 12 Tf (+) Tj /F1 12 Tf ( b ) Tj /F2 12 Tf (=) Tj /F1 12 Tf ( c) Tj ET",
            fonts="/F2 6 0 R",
            more=[
                "<< /Type /Font /Subtype /Type1 /BaseFont /ABCDEF+SymbolMT /ToUnicode 7 0 R >>",
                f"<< /Length {len(cmap)} >>\nstream\n{cmap}\nendstream",
            ],
        )
    )
    assert document.text == "a + b ≥ c" and document.remarks == ()


def test_codes_that_are_utf_8_are_decoded():
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /Utf8 def 4 begincodespacerange "
        "<00> <7F> <C080> <DFBF> <E08080> <EFBFBF> <F0808080> <F7BFBFBF> endcodespacerange "
        "1 begincidrange <00> <7F> 1 endcidrange endcmap end end"
    )
    text = "Имя 、𨧀"
    document = read(
        pdf_page(
            f"BT /F2 12 Tf 40 700 Td <{text.encode().hex()}> Tj ET",
            fonts="/F2 6 0 R",
            more=[
                font_of_codes("7 0 R"),
                f"<< /Type /CMap /CMapName /Utf8 /Length {len(cmap)} >>\nstream\n{cmap}\nendstream",
            ],
        )
    )
    assert "".join(document.text.split()) == "Имя、𨧀" and document.remarks == ()


# --- numbers of forms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, shown, read_as",
    [
        ("232324", "232,324.00", "232,324.00"),
        ("302.8", "302,80", "302,80"),
        ("0.05", "5 %", "5 %"),
        ("7", "3.00", "7"),  # the appearance of a value before
        ("7", "seven", "7"),
        ("77-A", "7", "77-A"),
    ],
)
def test_a_number_of_a_form_is_read_as_the_field_shows_it(value, shown, read_as):
    stream = f"/Tx BMC q BT /Helv 12 Tf 2 4 Td ({shown}) Tj ET Q EMC"
    data = form(
        f"/FT /Tx /T (t) /V ({value}) /AP << /N 7 0 R >> /Rect [150 695 300 715]",
        drawn=words("Total:", 40, 700),
        more=[
            f"<< /Type /XObject /Subtype /Form /BBox [0 0 150 20] /Length {len(stream)} >>\nstream\n{stream}\nendstream"
        ],
    )
    assert read(data).text == f"Total: {read_as}"


# --- what is said about characters that are lost ----------------------------------------------------------------------


def test_a_private_character_within_a_name_is_named():
    document = read(pdf("Name: HuX", codes={ord("X"): "\ue687", **{ord(each): each for each in "Name: Hu"}}))
    (remark,) = document.remarks
    assert remark.startswith("page 1 of 1 with 1 character that has no meaning in Unicode")


def test_a_private_bullet_is_not_worth_a_remark():
    document = read(pdf("X one X two", codes={ord("X"): "\uf4b7", **{ord(each): each for each in " onetw"}}))
    assert document.remarks == ()


def test_glyph_numbers_among_text_are_named():
    drawn = f"{words('Chapter four, section six', 40, 700)} BT /F2 12 Tf 40 650 Td <42f442ee42f6> Tj ET"
    document = read(pdf_page(drawn, fonts="/F2 6 0 R", more=[font_of_codes("/Identity-H")]))
    (remark,) = document.remarks
    assert remark.startswith("page 1 of 1 with 3 characters that have no meaning in Unicode")


def test_signs_in_the_place_of_letters_are_named():
    (remark,) = read(pdf(TAMIL)).remarks
    assert "hardly decodable" in remark
    assert read(pdf("¿Cómo está «usted»? Muy bien, 25 °C ± 1.")).remarks == ()


def test_spaces_and_second_drawings_are_not_called_undecodable():
    spaces = " ".join(words(" ", 40, 600 - 10 * at) for at in range(12))
    assert read(pdf_page(f"{words('Hello', 40, 700)} {spaces}")).remarks == ()
    again = " ".join(words("Hello", 40, 700) for _ in range(6))
    document = read(pdf_page(again))
    assert document.text == "Hello" and document.remarks == ()
