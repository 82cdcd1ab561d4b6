"""What the words of a template variable's name say of its value, for every host's templates."""

from __future__ import annotations

import re

INSTRUCTIONS = frozenset(
    "instruction instructions format formatting rule rules example examples tool tools schema system persona style "
    "guidelines".split()
)
"""Words of a name whose value says how to answer: it is no document, however long it is."""


def words_of(name: str) -> frozenset[str]:
    """Return the words of a name: "retrieved_docs" and "contextStr" have two each."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return frozenset(re.split(r"[^a-z]+", apart.lower()))
