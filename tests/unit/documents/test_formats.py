"""PDF, DOCX and HTML: what is read, and what is said of files that cannot be."""

import io
import sys
import zipfile

import pytest

from rapid_integrations.documents import ReadLimits, read_document
from rapid_integrations.errors import DocumentError, MissingExtraError
from tests.toys.document_files import DRAWING, PICTURE, docx, encrypted_pdf, paragraph, pdf, zipped

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


@pytest.fixture
def read(tmp_path):
    def write_and_read(name, data, **options):
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_document(tmp_path / name, **{"time_limit_s": None, **options})

    return write_and_read


@pytest.fixture
def refused(read):
    def reason(name, data, **options):
        with pytest.raises(DocumentError) as caught:
            read(name, data, **options)
        assert caught.value.source.endswith(name) and str(caught.value).startswith(caught.value.source)
        return caught.value.reason

    return reason


# --- PDF ------------------------------------------------------------------------------------------------------------


def test_a_pdf_is_read_page_by_page(read):
    document = read("a.pdf", pdf("The first page.", "The second page."))
    assert document.text == "The first page.\n\nThe second page."
    assert document.format == "pdf" and document.remarks == ()


def test_pages_without_text_are_named(read):
    document = read("a.pdf", pdf("one", None, "three", *[None] * 9))
    assert document.text == "one\n\nthree"
    assert document.remarks == ("pages 2, 4, 5, 6, 7, 8, 9, 10 and 2 more of 12 blank",)


def test_a_pdf_without_text_says_why(refused):
    assert refused("a.pdf", pdf(None)) == "has no text layer (1 page, blank)"
    assert refused("a.pdf", pdf(None, None)) == "has no text layer (2 pages, blank)"
    assert refused("a.pdf", pdf(PICTURE)).startswith("has no text layer (1 page: pictures): run text recognition")
    assert "ocrmypdf" in refused("a.pdf", pdf(PICTURE))
    assert refused("a.pdf", pdf(DRAWING, DRAWING)).startswith("has no text layer (2 pages: drawings)")
    assert refused("a.pdf", pdf(PICTURE, DRAWING, None)).startswith(
        "has no text layer (3 pages: pictures, drawings, blank)"
    )


def test_ligatures_and_surrogates_become_characters(read):
    codes = {65: "\ufb03", 66: "\ud83d", 67: "\ude42", 68: "x", 69: "\ud83d", 70: "\0"}
    assert read("a.pdf", pdf("AxBCDEDFD", codes=codes)).text == "ffix🙂x\ufffdxx".replace("ffixx", "ffix")


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_encryption(read, refused, algorithm):
    assert read("open.pdf", encrypted_pdf("words", "", algorithm)).text == "words"
    assert refused("secret.pdf", encrypted_pdf("words", "geheim", algorithm)).startswith("is encrypted")


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.4\n",
        b"%PDF-1.4\n%%EOF",
        pdf("words")[:200],
        pdf("words").replace(b"/Kids [5 0 R]", b"/Kids [2 0 R]"),
        pdf(),
        b"%PDF-1.7\n" + bytes(range(256)) * 20,
    ],
)
def test_damaged_pdfs_are_damaged_and_not_a_traceback(refused, data):
    reason = refused("a.pdf", data)
    assert "damaged" in reason or "without pages" in reason or "no text layer" in reason


def test_a_pdf_whose_table_of_objects_is_elsewhere_is_repaired(read, caplog):
    whole = pdf("words")
    moved = whole.replace(b"%PDF-1.4\n", b"%PDF-1.4\n%   \n")
    assert len(moved) > len(whole) and read("a.pdf", moved).text == "words"
    assert not caplog.records  # the reader's own warnings say nothing to a user


def test_a_pdf_is_bounded(refused):
    assert "more than 10 characters" in refused("a.pdf", pdf("a" * 20), limits=ReadLimits(characters=10))


# --- DOCX -----------------------------------------------------------------------------------------------------------


def test_docx_keeps_paragraphs_tables_and_inserted_text(read):
    table = f"<w:tbl><w:tr><w:tc>{paragraph('Item')}</w:tc><w:tc>{paragraph('Limit')}</w:tc></w:tr></w:tbl>"
    changes = (
        "<w:p><w:ins><w:r><w:t>added</w:t></w:r></w:ins><w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
    )
    control = f"<w:sdt><w:sdtContent>{paragraph('in a form')}</w:sdtContent></w:sdt>"
    document = read("a.docx", docx(paragraph("a &lt;b&gt; &amp; c_d*e") + table + changes + control))
    assert document.format == "docx"
    assert "a <b> & c_d*e" in document.text and "| Item | Limit |" in document.text
    assert "added" in document.text and "gone" not in document.text and "in a form" in document.text


def test_docx_without_text_or_damaged(refused):
    assert "holds no text" in refused("a.docx", docx(""))
    whole = docx(paragraph("words " * 200))
    assert "damaged DOCX" in refused("a.docx", whole[: len(whole) // 2])
    assert "damaged DOCX" in refused("a.docx", docx("<w:p>"))
    assert "damaged" in refused("a.docx", zipped(word__x="nothing else"))


def test_a_zip_bomb_is_not_unpacked(refused):
    bomb = docx(paragraph("words"), more={"word/footnotes.xml": b"0" * 100_000_000})
    assert len(bomb) < 200_000
    assert "unpacks to 100," in refused("a.docx", bomb)


def test_entities_do_not_explode(refused):
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY e0 "aaaaaaaaaa">{lines}]><w:document {W}>&e11;</w:document>'
    with zipfile.ZipFile(io.BytesIO(docx(""))) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, data in {**parts, "word/document.xml": bomb.encode()}.items():
            packed.writestr(name, data)
    assert "damaged DOCX" in refused("a.docx", out.getvalue())


# --- HTML -----------------------------------------------------------------------------------------------------------

PAGE = """<!doctype html><html><head><title>T</title><style>b{}</style><script>run()</script></head><body>
<h1>Head</h1><p>a <b>b</b> &amp; <a href="http://x.y/">link</a><img src="x.png" alt="pic"><script>evil()</script>
<ul><li>one<li>two</ul><table><tr><th>Name<th>Value<tr><td>x_y<td>1*2</table>
<pre>def f():
    return 1</pre><noscript>turn it on</noscript></body></html>"""


def test_html_becomes_markdown(read):
    text = read("a.html", PAGE).text
    assert text.startswith("T\n\n# Head\n\na **b** & link [image: pic]")
    assert "- one\n- two" in text and "| Name | Value |" in text and "| x_y | 1*2 |" in text
    assert "    return 1" in text
    for unshown in ("run()", "evil()", "b{}", "turn it on", "http", "x.png", "<"):
        assert unshown not in text


@pytest.mark.parametrize("page", ["<!DOCTYPE HTML><p>x", "\ufeff\n<html><p>x", "<!-- c -->\n<html><p>x"])
def test_html_is_known_by_its_beginning(read, page):
    assert read("page", page).format == "html"
    assert read("page.txt", page).text == "x"


def test_text_about_html_is_text(read):
    assert read("notes.txt", "the tag <html> begins a page").format == "text"
    assert read("notes.md", "<b>bold</b>").text == "<b>bold</b>"


def test_html_encodings(read):
    page = "<html><head><meta {}></head><body>Größe</body></html>"
    assert read("a.html", page.format('charset="iso-8859-1"').encode("latin-1")).text == "Größe"
    content = 'http-equiv="Content-Type" content="text/html; charset=windows-1252"'
    assert read("a.html", page.format(content).encode("cp1252")).text == "Größe"
    assert read("a.html", page.format('charset="iso-8859-1"').encode("utf-8-sig")).text == "Größe"
    assert read("a.html", page.format("x=y").encode("cp850"), encoding="cp850").text == "Größe"


@pytest.mark.long
def test_html_without_words_and_too_deep(refused):
    assert "holds no text" in refused("a.html", "<html><script>x()</script></html>")
    assert "nests its elements too deeply" in refused("a.html", "<div>" * 50_000 + "x")


# --- others ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n\0", "is a PNG picture"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old or encrypted Office file"),
        ("a.gguf", b"GGUF\3", "name it with --target"),
        ("a.tar.gz", b"\x1f\x8b\x08", "gzip archive"),
        ("a.xlsx", zipped(xl__workbook_dot_xml="x"), "is a damaged XLSX file"),
        ("a.pptx", zipped(ppt__x="x"), "is a damaged PPTX file"),
        ("a.odt", zipped(content_dot_xml="x"), "is a damaged OpenDocument file"),
        ("a.epub", zipped(META_dash_INF__container_dot_xml="x"), "is a damaged EPUB file"),
        ("a.xlsb", zipped(xl__workbook_dot_bin="x"), "save it as XLSX"),
        ("a.pages", zipped(Index__Document_dot_iwa="x"), "is a Pages, Numbers or Keynote file"),
        ("a.doc", b"\xd0\xcf\x11\xe0" + "WordDocument".encode("utf-16-le"), "is an old Word file (DOC)"),
        ("a.xls", b"\xd0\xcf\x11\xe0" + "Workbook".encode("utf-16-le"), "is an old Excel file (XLS)"),
        ("a.msg", b"\xd0\xcf\x11\xe0" + "__substg1.0_".encode("utf-16-le"), "is an Outlook mail (MSG): save it as EML"),
        ("a.docx", b"\xd0\xcf\x11\xe0" + "EncryptedPackage".encode("utf-16-le"), "is encrypted with a password"),
        ("a.mp4", b"\0\0\0\x18ftypmp42", "is a film or a picture"),
        ("a.tar", b"a" * 257 + b"ustar\0", "is a tar archive"),
        ("a.sqlite", b"SQLite format 3\0", "is an SQLite database: export its tables as CSV"),
        ("a.zip", zipped(readme="x"), "is a ZIP archive"),
        ("a.zip", b"PK\x03\x04 and nothing", "is a damaged ZIP file"),
        ("a.exe", b"MZ\x90\0\3\0\0\0", "is a binary file"),
        ("a.md", b"", "is empty"),
        ("a.md", b" \n\t", "is empty"),
        ("a.md", b"\xef\xbb\xbf \n", "holds no text"),
    ],
)
def test_other_files_are_named_with_the_reason(refused, name, data, said):
    assert said in refused(name, data)


def test_limits_of_size(refused):
    assert "is larger than 100 bytes" in refused("a.txt", "a" * 101, limits=ReadLimits(file_bytes=100))
    assert "holds 101 characters" in refused("a.txt", "a" * 101, limits=ReadLimits(characters=100))


def test_an_endless_device_is_bounded():
    with pytest.raises(DocumentError, match="/dev/zero is larger than 1,000 bytes"):
        read_document("/dev/zero", limits=ReadLimits(file_bytes=1000))


@pytest.mark.parametrize(
    ("data", "module"),
    [
        (pdf("x"), "pypdfium2"),
        (docx(paragraph("x")), "lxml"),
        (b"<html><p>x", "markdownify"),
        (b"{\\rtf1 x}", "striprtf.striprtf"),
        (zipped(xl__workbook_dot_xml="x"), "openpyxl"),
    ],
)
def test_a_missing_reader_names_the_extra(read, monkeypatch, data, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, check=lambda error: error.extra == "documents"):
        read("file", data)
