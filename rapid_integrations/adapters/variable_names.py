"""Hints in the names of template variables about their values, for the templates of both hosts."""

from __future__ import annotations

import re

INSTRUCTIONS = frozenset(
    "instruction instructions format formatting rule rules example examples tool tools schema system persona style "
    "guidelines".split()
)
"""A variable with one of these words in its name is an instruction and not a document, however long its value is."""


def words_of(name: str) -> frozenset[str]:
    """Return the words of a name. "retrieved_docs" and "contextStr" have two each."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return frozenset(re.split(r"[^a-z]+", apart.lower()))
