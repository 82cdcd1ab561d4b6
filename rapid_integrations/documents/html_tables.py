"""Expand merged cells of tables, so that each value stays below its heading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

_MOST_CELLS = 100_000  # of one table, with merged cells expanded
_REPEATED = 60  # characters up to which a merged cell's text is written into each cell that it covers


def square_tables(page: BeautifulSoup) -> None:
    """Expand each table's merged cells. Tables that hold tables are layout, and are dissolved."""
    for table in page.find_all("table"):
        if table.find("table") is not None:
            _take_apart(table)
    for table in page.find_all("table"):
        _square(page, table)


def _rows(table: Tag) -> list[Tag]:
    return [row for row in table.find_all("tr") if row.find_parent("table") is table]


def _take_apart(table: Tag) -> None:
    for row in _rows(table):
        for cell in row.find_all(("td", "th"), recursive=False):
            cell.name = "div"
        row.name = "div"
    for part in table.find_all(("thead", "tbody", "tfoot", "colgroup")):
        if part.find_parent("table") is table:
            part.name = "div"
    table.name = "div"


def _square(page: BeautifulSoup, table: Tag) -> None:
    """Give `table` one cell for each place, without `|`."""
    for text in list(table.find_all(string=lambda each: "|" in each)):
        text.replace_with(str(text).replace("|", "\\|"))
    rows = _rows(table)
    if not any(cell.has_attr("colspan") or cell.has_attr("rowspan") for cell in table.find_all(("td", "th"))):
        return
    covered: dict[tuple[int, int], str] = {}
    count = 0
    for y, row in enumerate(rows):
        cells = row.find_all(("td", "th"), recursive=False)
        placed: list[Any] = []
        x = 0
        for cell in cells:
            while (y, x) in covered:
                placed.append(covered.pop((y, x)))
                x += 1
            across = _span(cell, "colspan", 1000)
            down = min(_span(cell, "rowspan", len(rows)) or len(rows), len(rows) - y)
            words = " ".join(cell.get_text(" ").split())
            again = words if len(words) <= _REPEATED else ""
            count += across * down
            if count > _MOST_CELLS:
                return
            for dy in range(down):
                for dx in range(across):
                    if dx or dy:
                        covered[y + dy, x + dx] = again
            placed.append(cell)
            x += 1
            while (y, x) in covered:
                placed.append(covered.pop((y, x)))
                x += 1
        while (y, x) in covered:
            placed.append(covered.pop((y, x)))
            x += 1
        kind = "th" if cells and all(cell.name == "th" for cell in cells) else "td"
        for cell in cells:
            cell.extract()
            for name in ("colspan", "rowspan"):
                cell.attrs.pop(name, None)
        for cell in placed:
            if isinstance(cell, str):
                empty = page.new_tag(kind)
                empty.string = cell
                cell = empty
            row.append(cell)


def _span(cell: Tag, name: str, most: int) -> int:
    """Return a span within the browsers' limits. 0 rows means all remaining rows."""
    try:
        value = int(str(cell.get(name) or 1))
    except ValueError:
        return 1
    return max(0 if name == "rowspan" else 1, min(most, value))
