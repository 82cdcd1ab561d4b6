"""What is not enforced: rules that no grammar expresses, and those that the library cannot follow in this schema."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

GIVEN_UP = (
    "large bounds",
    "minProperties",
    "patternProperties",
    "multipleOf",
    "pattern",
    "$ref beside others",
    "allOf",
    "beside allOf",
    "beside anyOf",
)
"""They are given up in this order if the library refuses a schema with them."""

ENFORCED_BY_OTHERS = "~"
"""What holds, while a schema is converted, those of the keywords below that others of the library's express whole."""

# These restrict values, and no grammar expresses them. Each has the values that restrict nothing.
_UNENFORCED: dict[str, Sequence[Any]] = {
    "not": (False,),
    "if": (),
    "uniqueItems": (False,),
    "contains": (),
    "minContains": (),
    "maxContains": (),
    "propertyNames": (True,),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "dependencies": ({},),
    "unevaluatedProperties": (True,),
    "unevaluatedItems": (True,),
}


class LeftOut:
    """The rules that one conversion leaves out, in the order in which it met them.

    Args:
        given_up: kinds of rules, of `GIVEN_UP`, that are left out wherever they stand.

    Attributes:
        rules: each with its place: "/properties/a: uniqueItems".
    """

    def __init__(self, given_up: Collection[str] = ()) -> None:
        self.rules: list[str] = []
        self._given_up = frozenset(given_up)

    def gives_up(self, kind: str) -> bool:
        """Whether a kind of rule is left out wherever it stands."""
        return kind in self._given_up

    def add(self, where: str, what: str) -> None:
        """Note a rule that is left out of the schema at the JSON pointer `where`."""
        self.rules.append(f"{where or '/'}: {what}")

    @contextmanager
    def set_apart(self) -> Iterator[list[str]]:
        """Collect what is left out meanwhile in a list of its own, for the caller to add or to drop."""
        before, self.rules = self.rules, []
        try:
            yield self.rules
        finally:
            self.rules = before


def leave_out_the_rest(given: Mapping[str, Any], out: dict[str, Any], where: str, left_out: LeftOut) -> None:
    """Note the keywords of `given` that no grammar expresses, unless others do it for them."""
    for keyword, harmless in _UNENFORCED.items():
        if keyword in given and given[keyword] not in harmless and keyword not in out.get(ENFORCED_BY_OTHERS, ()):
            left_out.add(where, keyword)
    out.pop(ENFORCED_BY_OTHERS, None)
