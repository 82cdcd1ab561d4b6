"""What a conversion gives: of a whole schema, and of each within it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Schema: TypeAlias = dict[str, Any] | bool
"""A schema for the grammar library."""

Within: TypeAlias = Callable[[Any, str], Schema]
"""Converts a schema that stands within the one at hand, given with its JSON pointer."""

Followed: TypeAlias = Callable[[Any], Mapping[str, Any]]
"""Returns a schema as it was given, or the target of one that is only a reference (`References.followed`)."""


@dataclass(frozen=True)
class Enforceable:
    """A schema for the grammar library.

    Attributes:
        schema: the schema.
        unenforced: rules that restrict values and were left out: "/properties/a: uniqueItems".
        places: where in the caller's schema each definition stands, by name.
    """

    schema: Schema
    unenforced: tuple[str, ...]
    places: Mapping[str, str] = field(default_factory=dict, compare=False)
