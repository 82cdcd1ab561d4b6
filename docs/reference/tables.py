"""Tables of Markdown, and the words for values and defaults in them."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import annotated_types

Row: TypeAlias = tuple[str, ...]


def table(head: Row, rows: list[Row]) -> str:
    """Return a table of Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def values_of(annotation: Any, metadata: list[Any]) -> str:
    """Return what a field takes, its range included."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *marks = get_args(annotation)
        return values_of(inner, [each for mark in marks for each in getattr(mark, "metadata", [mark])])
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(values_of(member, metadata) for member in get_args(annotation))
    if annotation is type(None):
        return "None"
    if annotation in (int, float):
        return f"{annotation.__name__}{_range(metadata)}"
    if annotation is Any:
        return "see effect"
    return str(getattr(annotation, "__name__", annotation)) if origin is None else _generic(annotation)


def _generic(annotation: Any) -> str:
    members = [values_of(member, []) for member in get_args(annotation) if member is not Ellipsis]
    return f"{get_origin(annotation).__name__} of {', '.join(members)}"


def _range(metadata: list[Any]) -> str:
    words = [
        f"{sign} {_number(getattr(mark, name))}"
        for kind, name, sign in (
            (annotated_types.Ge, "ge", ">="),
            (annotated_types.Gt, "gt", ">"),
            (annotated_types.Le, "le", "<="),
            (annotated_types.Lt, "lt", "<"),
        )
        for mark in metadata
        if isinstance(mark, kind)
    ]
    return f" {', '.join(words)}" if words else ""


def _number(value: Any) -> str:
    return "2^63" if value == 2**63 else f"{value:g}"


def default_text(value: Any) -> str:
    """Return a default as it is written: texts in quotation marks, and simple fractions as such."""
    if value in (1 / 24, 1 / 4):
        return f"1/{1 / value:g}"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"
