"""A Word file with one fact in each place where files keep facts, and what a reader has to find of each."""

from tests.toys.document_files import docx

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_M = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def run(text, properties=""):
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def par(inner, properties=""):
    return f"<w:p><w:pPr>{properties}</w:pPr>{inner}</w:p>"


def field(code, result="", form=""):
    separated = f'<w:r><w:fldChar w:fldCharType="separate"/></w:r>{run(result)}' if result else ""
    return (
        f'<w:r><w:fldChar w:fldCharType="begin">{form}</w:fldChar></w:r>'
        f'<w:r><w:instrText xml:space="preserve"> {code} </w:instrText></w:r>{separated}'
        '<w:r><w:fldChar w:fldCharType="end"/></w:r>'
    )


def numbered(level, text, number=1):
    return par(run(text), f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>')


def cell(text, span=1, merge=None):
    merged = "" if merge is None else f'<w:vMerge w:val="{merge}"/>' if merge else "<w:vMerge/>"
    return f'<w:tc><w:tcPr><w:gridSpan w:val="{span}"/>{merged}</w:tcPr>{par(run(text))}</w:tc>'


def row(*cells):
    return f"<w:tr>{''.join(cells)}</w:tr>"


def math(inner):
    return f"<m:oMath {_M}>{inner}</m:oMath>"


def m(text):
    return f"<m:r><m:t>{text}</m:t></m:r>"


BODY = "".join(
    (
        par(run("Lease"), '<w:pStyle w:val="Heading1"/>'),
        numbered(0, "Duties", 1),
        numbered(1, "Payment", 1),
        numbered(2, "within thirty days", 1),
        numbered(1, "Repairs", 1),
        numbered(0, "Rights", 1),
        numbered(0, "first point", 2),
        numbered(0, "second point", 2),
        par(
            run("Contract between ")
            + field("MERGEFIELD Client \\* MERGEFORMAT", "Acme Corp")
            + run(" and us, worth ")
            + f'<w:fldSimple w:instr=" MERGEFIELD Price ">{run("9,500")}</w:fldSimple>'
            + run(".")
        ),
        par(run("Dear ") + field("MERGEFIELD FirstName") + run(",")),
        par(
            run("Agreed ")
            + field(
                "FORMCHECKBOX", form='<w:ffData><w:checkBox><w:default w:val="0"/><w:checked/></w:checkBox></w:ffData>'
            )
            + run(" / refused ")
            + field("FORMCHECKBOX", form='<w:ffData><w:checkBox><w:default w:val="0"/></w:checkBox></w:ffData>')
        ),
        par(
            run("Colour: ")
            + field(
                "FORMDROPDOWN",
                form='<w:ffData><w:ddList><w:result w:val="1"/><w:listEntry w:val="red"/><w:listEntry w:val="teal"/></w:ddList></w:ffData>',
            )
        ),
        par(
            '<w:sdt xmlns:w14="http://schemas.microsoft.com/office/word/2010/wordml"><w:sdtPr><w14:checkbox><w14:checked w14:val="1"/></w14:checkbox></w:sdtPr><w:sdtContent>'
            + run("☒")
            + "</w:sdtContent></w:sdt>"
            + run(" insured")
        ),
        par(
            "<w:sdt><w:sdtPr><w:dropDownList/></w:sdtPr><w:sdtContent>"
            + run("Option seven")
            + "</w:sdtContent></w:sdt>"
        ),
        par(
            run("Dose: 10")
            + run("6", '<w:vertAlign w:val="superscript"/>')
            + run(" cells, CO")
            + run("2", '<w:vertAlign w:val="subscript"/>')
            + run(" low")
        ),
        par(
            run("Ratio ")
            + math(
                f"<m:f><m:num>{m('a+b')}</m:num><m:den>{m('2')}</m:den></m:f>{m('=')}<m:sSup><m:e>{m('x')}</m:e><m:sup>{m('3')}</m:sup></m:sSup>"
            )
        ),
        par(
            f'<m:oMathPara {_M}><m:oMath><m:rad><m:deg/><m:e>{m("n")}</m:e></m:rad><m:nary><m:naryPr><m:chr m:val="∑"/></m:naryPr><m:sub>{m("i=1")}</m:sub><m:sup>{m("9")}</m:sup><m:e>{m("i")}</m:e></m:nary></m:oMath></m:oMathPara>'
        ),
        par(
            '<w:r><w:sym w:font="Wingdings" w:char="F0FE"/></w:r>'
            + run(" paid ")
            + '<w:r><w:sym w:font="Symbol" w:char="F061"/></w:r>'
        ),
        par(
            run("up")
            + "<w:r><w:noBreakHyphen/></w:r>"
            + run("to")
            + "<w:r><w:softHyphen/></w:r>"
            + run("day")
            + "<w:r><w:tab/></w:r>"
            + run("end")
        ),
        par(
            run("kept")
            + f'<w:ins w:author="a">{run(" inserted")}</w:ins>'
            + '<w:del w:author="a"><w:r><w:delText> erased</w:delText></w:r></w:del>'
        ),
        par(run("seen") + run(" unseen", "<w:vanish/>")),
        par(run("valid ") + run("until May", "<w:strike/>")),
        par(
            run("Claim")
            + '<w:r><w:footnoteReference w:id="2"/></w:r>'
            + run(" and")
            + '<w:r><w:endnoteReference w:id="2"/></w:r>'
        ),
        par(run("Marked") + '<w:r><w:commentReference w:id="0"/></w:r>'),
        "<w:tbl>"
        + row(cell("Region", merge="restart"), cell("2024", span=2))
        + row(cell("", merge=""), cell("Q1"), cell("Q2"))
        + row(cell("North"), cell("11"), cell("22"))
        + "</w:tbl>",
        par(
            '<w:r><w:pict><v:shape xmlns:v="urn:schemas-microsoft-com:vml" alt="Map of the site"><v:textbox><w:txbxContent>'
            + par(run("In the box"))
            + "</w:txbxContent></v:textbox></v:shape></w:pict></w:r>"
        ),
        par(
            '<w:r><w:drawing><c:chart xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart" '
            f'xmlns:r="{_RELATIONS}" r:id="rChart"/></w:drawing></w:r>'
        ),
        par(
            "<w:r><w:ruby><w:rt>" + run("かんじ") + "</w:rt><w:rubyBase>" + run("漢字") + "</w:rubyBase></w:ruby></w:r>"
        ),
        f'<w:sectPr><w:headerReference w:type="default" r:id="rHeader" xmlns:r="{_RELATIONS}"/></w:sectPr>',
    )
)


def _levels(*levels):
    return "".join(
        f'<w:lvl w:ilvl="{at}"><w:start w:val="1"/><w:numFmt w:val="{form}"/><w:lvlText w:val="{text}"/></w:lvl>'
        for at, (form, text) in enumerate(levels)
    )


PARTS = {
    "word/numbering.xml": f'<w:numbering {_W}><w:abstractNum w:abstractNumId="7">'
    + _levels(("decimal", "%1."), ("decimal", "%1.%2"), ("lowerLetter", "(%3)"))
    + '</w:abstractNum><w:abstractNum w:abstractNumId="8">'
    + _levels(("bullet", "\uf0b7"))
    + '</w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="7"/><w:lvlOverride w:ilvl="0"><w:startOverride w:val="3"/>'
    '</w:lvlOverride></w:num><w:num w:numId="2"><w:abstractNumId w:val="8"/></w:num></w:numbering>',
    "word/styles.xml": f'<w:styles {_W}><w:style w:styleId="Heading1"><w:name w:val="heading 1"/></w:style></w:styles>',
    "word/footnotes.xml": f'<w:footnotes {_W}><w:footnote w:id="0" w:type="separator"><w:p/></w:footnote><w:footnote w:id="2">{par(run("Foot fact"))}</w:footnote></w:footnotes>',
    "word/endnotes.xml": f'<w:endnotes {_W}><w:endnote w:id="2">{par(run("End fact"))}</w:endnote></w:endnotes>',
    "word/comments.xml": f'<w:comments {_W}><w:comment w:id="0" w:author="Eve">{par(run("Check this"))}</w:comment></w:comments>',
    "word/header1.xml": f"<w:hdr {_W}>{par(run('File 4711'))}</w:hdr>",
    "word/chart1.xml": '<c:chartSpace xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart"><c:ser><c:tx><c:strRef><c:strCache><c:pt><c:v>Sales</c:v></c:pt></c:strCache></c:strRef></c:tx><c:cat><c:strRef><c:strCache><c:pt><c:v>May</c:v></c:pt></c:strCache></c:strRef></c:cat><c:val><c:numRef><c:numCache><c:pt><c:v>77</c:v></c:pt></c:numCache></c:numRef></c:val></c:ser></c:chartSpace>',
    "word/_rels/document.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    + "".join(
        f'<Relationship Id="{id}" Type="{_RELATIONS}/{kind}" Target="{name}"/>'
        for id, kind, name in (
            ("r1", "numbering", "numbering.xml"),
            ("r2", "styles", "styles.xml"),
            ("r3", "footnotes", "footnotes.xml"),
            ("r4", "endnotes", "endnotes.xml"),
            ("r5", "comments", "comments.xml"),
            ("rHeader", "header", "header1.xml"),
            ("rChart", "chart", "chart1.xml"),
        )
    )
    + "</Relationships>",
}

# What is found where, as this package writes it.
FACTS = {
    "heading": "# Lease",
    "clause": "3. Duties",
    "clause below it": "3.1 Payment",
    "clause twice below": "(a) within thirty days",
    "next clause": "3.2 Repairs",
    "next article": "4. Rights",
    "bullet": "- first point\n- second point",
    "merge field": "Contract between Acme Corp and us, worth 9,500.",
    "merge field without a value": "Dear «FirstName»,",
    "check box of a form": "Agreed ☒ / refused ☐",
    "choice of a form": "Colour: teal",
    "check box of a control": "☒ insured",
    "choice of a control": "Option seven",
    "raised": "10^6 cells",
    "lowered": "CO₂ low",
    "fraction and power": "Ratio (a+b)/2=x^3",
    "root and sum": "sqrt(n)∑_{i=1}^9 i",
    "signs": "☑ paid α",
    "hyphens and tab": "up-today\tend",
    "insertion": "kept inserted",
    "crossed out": "valid ~~until May~~",
    "notes": "Claim[^1] and[^2]",
    "footnote": "[^1]: Foot fact",
    "endnote": "[^2]: End fact",
    "comment": "Marked [Comment by Eve: Check this]",
    "merged heading": "| Region | 2024 | 2024 |",
    "merged down": "| Region | Q1 | Q2 |",
    "row": "| North | 11 | 22 |",
    "description": "[image: Map of the site]",
    "text box": "In the box",
    "chart": "[chart: Sales: May 77]",
    "ruby": "漢字(かんじ)",
    "page header": "[Page header: File 4711]",
}
GONE = ("erased", "unseen", "MERGEFIELD", "\u00ad")


def facts_docx():
    return docx(BODY, PARTS)
