"""Small PDF and DOCX files, made byte by byte: what their readers get is known exactly."""

import io
import zipfile

from pypdf import PdfReader, PdfWriter

_DOCUMENT = (
    '<?xml version="1.0" encoding="UTF-8"?><w:document xmlns:w='
    '"http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>{body}</w:body></w:document>'
)
_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
_RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type='
    '"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
    "</Relationships>"
)


PICTURE = "q 100 0 0 100 72 600 cm BI /W 1 /H 1 /CS /G /BPC 8 ID \x80 EI Q"
DRAWING = "72 600 100 100 re f"


def pdf(*pages, codes=None):
    """Return a PDF with one line of text (latin-1) on each page; None leaves a page without any.

    A page may be operators, too (`PICTURE`, `DRAWING`, "BT ... ET"). `codes`: Unicode strings that the font says its
    bytes stand for, by byte (a ToUnicode map).
    """
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", None, _font(codes)]
    if codes:
        lines = "\n".join(
            f"<{code:02x}> <{text.encode('utf-16-be', 'surrogatepass').hex()}>" for code, text in codes.items()
        )
        cmap = (
            "/CIDInit /ProcSet findresource begin 12 dict begin begincmap 1 begincodespacerange <00> <ff> "
            f"endcodespacerange {len(codes)} beginbfchar\n{lines}\nendbfchar endcmap end end"
        )
        objects.append(f"<< /Length {len(cmap)} >>\nstream\n{cmap}\nendstream")
    kids = []
    for text in pages:
        drawn = "" if text is None else text if _is_drawn(text) else f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(objects)} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    return pdf_of(objects)


def pdf_of(objects):
    """Return a PDF of these objects (latin-1), numbered from 1; the first is its catalogue."""
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    rows = "".join(f"{place:010} 00000 n \n" for place in places)
    start = len(out)
    return out + (
        f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n{rows}"
        f"trailer << /Size {len(places) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    ).encode("latin-1")


def pdf_page(drawn, annotations=(), catalogue="", fonts="", more=()):
    """Return a PDF of one page with these operators, annotations, fonts beside F1, and objects from 6."""
    listed = " ".join(f"<< /Type /Annot {each} >>" for each in annotations)
    return pdf_of(
        [
            f"<< /Type /Catalog /Pages 2 0 R {catalogue} >>",
            "<< /Type /Pages /Kids [5 0 R] /Count 1 >>",
            _font(None),
            f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream",
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Annots [{listed}] "
            f"/Resources << /Font << /F1 3 0 R {fonts} >> >> >>",
            *more,
        ]
    )


def _is_drawn(text):
    return text in (PICTURE, DRAWING) or text.startswith("BT ")


def _font(codes):
    to_unicode = " /ToUnicode 4 0 R" if codes else ""
    return f"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding{to_unicode} >>"


def encrypted_pdf(text, user_password, algorithm="AES-256"):
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(text))))
    writer.encrypt(user_password, "owner", algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def paragraph(text):
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def docx(body, more=None):
    """Return a DOCX with this XML in its body; `more`: further files in it, by name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        files = {
            "[Content_Types].xml": _TYPES,
            "_rels/.rels": _RELATIONS,
            "word/document.xml": _DOCUMENT.format(body=body),
            **(more or {}),
        }
        for name, content in files.items():
            packed.writestr(name, content)
    return out.getvalue()


def zipped(**files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name.replace("__", "/").replace("_dot_", ".").replace("_dash_", "-"), content)
    return out.getvalue()
