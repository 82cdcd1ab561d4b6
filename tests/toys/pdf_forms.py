"""PDF pages with forms, and the text that is drawn on them."""

from tests.toys.document_files import pdf_of, pdf_page


def words(text, x, y, size=12):
    """The drawing of a text at a place of a page, in points."""
    return f"BT /F1 {size} Tf {x} {y} Td ({text}) Tj ET"


def form(*fields, drawn="", more=()):
    """A page with a form; each field is referred to by the catalogue as an object of its own, before `more` objects."""
    numbers = " ".join(f"{6 + at} 0 R" for at in range(len(fields)))
    data = pdf_page(
        drawn,
        catalogue=f"/AcroForm << /Fields [{numbers}] /DA (/Helv 12 Tf) /DR << /Font << /Helv 3 0 R >> >> >>",
        more=[*(f"<< /Type /Annot /Subtype /Widget {each} >>" for each in fields), *more],
    )
    # The page's annotations are those objects.
    return pdf_of(_objects(data, f"/Annots [{numbers}]"))


def _objects(data, annotations):
    text = data.decode("latin-1")
    bodies = []
    for number in range(1, text.count(" 0 obj\n") + 1):
        start = text.index(f"{number} 0 obj\n") + len(f"{number} 0 obj\n")
        bodies.append(text[start : text.index("\nendobj", start)].replace("/Annots []", annotations))
    return bodies
