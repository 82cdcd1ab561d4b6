"""HTML: what a browser shows, in the order and in the columns in which it shows it."""

import pytest

from rapid_integrations.documents.html_file import html_to_markdown, read_html

MATH = "<math><mi>x</mi><mo>=</mo><mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mn>2</mn></mfrac></math>"
KATEX = "<math><semantics><mi>e</mi><annotation encoding='application/x-tex'>e^{i\\pi}</annotation></semantics></math>"


def read(html):
    return html_to_markdown(html, "a.html")[0]


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ("10<sup>6</sup> cells", "10^6 cells"),
        ("10<sup>-6</sup> m", "10^{-6} m"),
        ("H<sub>2</sub>O and x<sub>max</sub>", "H₂O and x_{max}"),
        ("the 1<sup>st</sup> rule<sup>[3]</sup>", "the 1st rule[3]"),
        ("Name: <input value='Anna'>", "Name: Anna"),
        ("<label><input type=checkbox checked>paid</label> <input type=radio>open", "☒ paid ☐ open"),
        ("Land: <select><option>FR<option selected>DE</select>", "Land: DE"),
        ("Land: <select><option>FR<option>DE</select>", "Land: FR"),
        ("<textarea>free text</textarea>", "free text"),
        ("a<br>b", "a\nb"),
        ("<img src=x alt='a cat'>", "[image: a cat]"),
        ("<abbr title='World Health Organization'>WHO</abbr>", "WHO (World Health Organization)"),
        ("<ruby>漢字<rp>(</rp><rt>かんじ</rt><rp>)</rp></ruby>", "漢字(かんじ)"),
        (MATH, "x = (a + b)/2"),
        (KATEX, "e^{i\\pi}"),
        ("<svg><text>axis</text></svg>", "axis"),
        ("<details><summary>More</summary>inside</details>", "More\n\ninside"),
        ("<ol start=5><li>five<li>six</ol>", "5. five\n6. six"),
        ("<ol type=a start=3><li>x<li>y</ol>", "c. x\n\nd. y"),
        ("<ol type=I><li>x<li value=4>y</ol>", "I. x\n\nIV. y"),
        ("<ol reversed><li>x<li>y</ol>", "2. x\n\n1. y"),
        ("exam\u00adple 5\u00a0kg", "example 5 kg"),
        ("<q>so</q>", '"so"'),
        ("<del>950</del> 900", "~~950~~ 900"),
        ("was <strike>950</strike> 900", "was ~~950~~ 900"),
        ("<span style='text-decoration: line-through'>950</span> 900", "~~950~~ 900"),
        ("<meter value=3 max=5></meter>", "3 of 5"),
    ],
)
def test_what_elements_show(html, shown):
    assert read(html).strip() == shown


@pytest.mark.parametrize(
    "hidden",
    [
        "<input type=hidden value=secret>",
        "<input type=password value=secret>",
        "<p hidden>secret</p>",
        "<p style='color: red; display: none'>secret</p>",
        "<span style='visibility:hidden'>secret</span>",
        "<template>secret</template>",
        "<noscript>secret</noscript>",
        "<!-- secret -->",
        "<dialog>secret</dialog>",
        "<script>secret</script>",
    ],
)
def test_what_browsers_hide_is_left_out(hidden):
    assert read(f"<p>shown</p>{hidden}") == "shown"


def test_merged_cells_keep_their_columns():
    html = (
        "<table><tr><th rowspan=2>Region<th colspan=2>2024<tr><th>Q1<th>Q2<tr><td>North<td>11<td>22"
        "<tr><td colspan=2>a long note that covers two columns and is not written twice, for it is long<td>9</table>"
    )
    lines = read(html).split("\n")
    assert lines[0] == "| Region | 2024 | 2024 |"
    assert lines[2:4] == ["| Region | Q1 | Q2 |", "| North | 11 | 22 |"]
    assert lines[4].endswith("it is long |  | 9 |")


def test_a_span_over_more_than_the_table_is_bounded():
    html = "<table><tr><td rowspan=99999999 colspan=99999999>a<td>b<tr><td>c</table>"
    text = read(html)
    assert "a" in text and "b" in text and "c" in text and len(text) < 100_000


def test_tables_for_layout_are_taken_apart():
    html = "<table><tr><td>menu<td><table><tr><th>A<th>B<tr><td>1<td>2</table></table>"
    text = read(html)
    assert text.startswith("menu") and "| A | B |" in text and "| 1 | 2 |" in text


def test_the_title_is_kept_unless_the_page_says_it():
    assert read("<title>Invoice 77</title><p>Due in May") == "Invoice 77\n\nDue in May"
    assert read("<title>Invoice 77</title><h1>Invoice 77</h1>") == "# Invoice 77"


def test_what_is_left_out_is_said():
    page = b"<html><p>words<iframe src=x></iframe><iframe src=y></iframe><video src=z></video>"
    assert read_html(page, "a.html").remarks == ("2 embedded pages left out", "1 video left out")
