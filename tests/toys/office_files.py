"""Small presentations, OpenDocument texts and sheets, and e-books, made of their XML."""

import io
import zipfile

_R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_A = "http://schemas.openxmlformats.org/drawingml/2006/main"
_P = "http://schemas.openxmlformats.org/presentationml/2006/main"


def packed(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def _relations(*each):
    rows = "".join(f'<Relationship Id="{id}" Type="{_R}/{kind}" Target="{target}"/>' for id, kind, target in each)
    return f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{rows}</Relationships>'


def shape(text, place=""):
    at = f'<p:nvSpPr><p:nvPr><p:ph type="{place}"/></p:nvPr></p:nvSpPr>' if place else ""
    return f"<p:sp>{at}<p:txBody>{text}</p:txBody></p:sp>"


def line(text, properties="", level=0):
    return f'<a:p><a:pPr lvl="{level}"/><a:r><a:rPr {properties}/><a:t>{text}</a:t></a:r></a:p>'


def pptx(*slides, notes="", hidden=()):
    """Return a presentation; each slide is the XML of its shapes."""
    files = {
        "_rels/.rels": _relations(("r1", "officeDocument", "ppt/presentation.xml")),
        "ppt/presentation.xml": f'<p:presentation xmlns:p="{_P}" xmlns:r="{_R}"><p:sldIdLst>'
        + "".join(f'<p:sldId id="{256 + n}" r:id="s{n}"/>' for n in range(len(slides)))
        + "</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": _relations(
            *((f"s{n}", "slide", f"slides/slide{n}.xml") for n in range(len(slides)))
        ),
    }
    for n, shapes in enumerate(slides):
        show = ' show="0"' if n in hidden else ""
        files[f"ppt/slides/slide{n}.xml"] = (
            f'<p:sld xmlns:p="{_P}" xmlns:a="{_A}" xmlns:r="{_R}"{show}><p:cSld><p:spTree>{shapes}</p:spTree></p:cSld>'
            "</p:sld>"
        )
    if notes:
        files["ppt/slides/_rels/slide0.xml.rels"] = _relations(("n", "notesSlide", "../notesSlides/n.xml"))
        files["ppt/notesSlides/n.xml"] = (
            f'<p:notes xmlns:p="{_P}" xmlns:a="{_A}"><p:cSld><p:spTree>{shape(line(notes), "body")}'
            f"{shape(line('1'), 'sldNum')}</p:spTree></p:cSld></p:notes>"
        )
    return packed(files)


_ODF = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{urn}:1.0"'
    for name, urn in {
        "office": "office",
        "text": "text",
        "table": "table",
        "style": "style",
        "draw": "drawing",
        "form": "form",
    }.items()
)


def odf(body, kind="text", styles="", more=None):
    """Return an OpenDocument file with this XML in its body."""
    content = (
        f"<office:document-content {_ODF}><office:automatic-styles>{styles}</office:automatic-styles><office:body>"
        f"<office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    return packed({"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": content, **(more or {})})


def epub(*chapters, title="A book", more=None):
    """Return an e-book; each chapter is the HTML of its body."""
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        "OEBPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<metadata><dc:title>{title}</dc:title></metadata><manifest>"
        + "".join(f'<item id="c{n}" href="text/{n}%20a.xhtml"/>' for n in range(len(chapters)))
        + "</manifest><spine>"
        + "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
        + "</spine></package>",
        **{f"OEBPS/text/{n} a.xhtml": f"<html><body>{chapter}</body></html>" for n, chapter in enumerate(chapters)},
        **(more or {}),
    }
    return packed(files)
