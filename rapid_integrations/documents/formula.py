"""Formulas in one line, as LaTeX without its backslashes for letters: (a + b)/2, x^2, sqrt(n), sum_{i=1}^n x_i.

Sources: MathML Core (W3C) in web pages, Office Math (ISO 29500, 22.1) in Word files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def mathml(element: Any) -> str:
    """Return a `math` element (of Beautiful Soup) as text, or its TeX source if it has one."""
    annotation = element.find("annotation", attrs={"encoding": "application/x-tex"})
    if annotation is not None and annotation.get_text().strip():
        return f" {' '.join(annotation.get_text().split())} "
    return f" {_tidy(_of_mathml(element))} "


def _of_mathml(element: Any) -> str:
    name = getattr(element, "name", None)
    if name is None:
        return str(element).strip() if type(element).__name__ == "NavigableString" else ""
    name = name.split(":")[-1]
    parts = [_of_mathml(child) for child in element.children if getattr(child, "name", None) or str(child).strip()]
    match name, len(parts):
        case "annotation" | "annotation-xml", _:
            return ""
        case "mfrac", 2:
            return f"{_group(parts[0])}/{_group(parts[1])}"
        case "msup", 2:
            return f"{_group(parts[0])}^{_braced(parts[1])}"
        case "mover", 2:
            return f"{parts[0]}^{_braced(parts[1])}" if len(parts[1]) > 1 else f"{parts[0]}{parts[1]}"
        case "msub" | "munder", 2:
            return f"{_group(parts[0])}_{_braced(parts[1])}"
        case "msubsup" | "munderover", 3:
            return f"{_group(parts[0])}_{_braced(parts[1])}^{_braced(parts[2])}"
        case "msqrt", _:
            return f"sqrt({''.join(parts)})"
        case "mroot", 2:
            return f"root({parts[1]}, {parts[0]})"
        case "mfenced", _:
            return f"{element.get('open', '(')}{', '.join(parts)}{element.get('close', ')')}"
        case "mtr" | "mlabeledtr", _:
            return f"{', '.join(parts)}; "
        case "mtable", _:
            return f"[{''.join(parts).strip('; ')}]"
        case "mo", _:
            sign = "".join(parts)
            return f" {sign} " if sign and not sign.isalnum() and sign not in "()[]{},.!|′" else sign
        case "mtext" | "mspace", _:
            return f" {''.join(parts)} "
    return "".join(parts)


def omml(element: Any) -> str:
    """Return an `m:oMath` element (of lxml) as text."""
    return _tidy(_of_omml(element))


def _of_omml(element: Any) -> str:
    name = _local(element)
    of = _parts(element)
    match name:
        case "t":
            return element.text or ""
        case "f":
            return f"{_group(of('num'))}/{_group(of('den'))}"
        case "sSup":
            return f"{_group(of('e'))}^{_braced(of('sup'))}"
        case "sSub":
            return f"{_group(of('e'))}_{_braced(of('sub'))}"
        case "sSubSup":
            return f"{_group(of('e'))}_{_braced(of('sub'))}^{_braced(of('sup'))}"
        case "sPre":
            return f"_{_braced(of('sub'))}^{_braced(of('sup'))}{of('e')}"
        case "rad":
            degree = of("deg")
            return f"root({degree}, {of('e')})" if degree.strip() else f"sqrt({of('e')})"
        case "nary":
            sign = _property(element, "naryPr", "chr") or "∫"
            low, high = of("sub"), of("sup")
            return f"{sign}{'_' + _braced(low) if low else ''}{'^' + _braced(high) if high else ''} {of('e')}"
        case "d":
            inner = (_property(element, "dPr", "sepChr") or "|").join(
                _of_omml(child) for child in element if _local(child) == "e"
            )
            begin, end = _property(element, "dPr", "begChr"), _property(element, "dPr", "endChr")
            return f"{'(' if begin is None else begin}{inner}{')' if end is None else end}"
        case "func":
            return f"{of('fName')} {_group(of('e'))}"
        case "limLow":
            return f"{of('e')}_{_braced(of('lim'))}"
        case "limUpp":
            return f"{of('e')}^{_braced(of('lim'))}"
        case "acc":
            return f"{of('e')}{_property(element, 'accPr', 'chr') or chr(0x302)}"
        case "bar":
            return f"{of('e')}\u0305"
        case "m":
            rows = [
                ", ".join(_of_omml(cell) for cell in row if _local(cell) == "e")
                for row in element
                if _local(row) == "mr"
            ]
            return f"[{'; '.join(rows)}]"
        case "eqArr":
            return "; ".join(_of_omml(child) for child in element if _local(child) == "e")
    if name.endswith("Pr"):
        return ""
    return "".join(_of_omml(child) for child in element)


def _parts(element: Any) -> Callable[[str], str]:
    def of(name: str) -> str:
        return "".join(_of_omml(child) for child in element if _local(child) == name)

    return of


def _property(element: Any, group: str, name: str) -> str | None:
    """Return the value of `m:group/m:name/@m:val`, or None if it is missing."""
    for properties in element:
        if _local(properties) == group:
            for each in properties:
                if _local(each) == name:
                    return next((value for key, value in each.attrib.items() if key.endswith("}val")), "")
    return None


def _local(element: Any) -> str:
    return element.tag.rsplit("}", 1)[-1] if isinstance(element.tag, str) else ""


def _group(text: str) -> str:
    """Put brackets around what is more than one name or number."""
    text = text.strip()
    inner = text.replace(".", "").replace(",", "")
    closed = text[:1] == "(" and text[-1:] == ")" and "(" not in text[1:]
    return text if len(text) <= 1 or inner.isalnum() or closed or not _has_operator(text) else f"({text})"


def _has_operator(text: Iterable[str]) -> bool:
    return any(each in " +-−±*/=·×÷,;" for each in text)


def _braced(text: str) -> str:
    text = text.strip()
    return text if len(text) == 1 else f"{{{text}}}"


def _tidy(text: str) -> str:
    return " ".join(text.replace("\u2061", "").replace("\u2062", "").replace("\u2063", "").split())
