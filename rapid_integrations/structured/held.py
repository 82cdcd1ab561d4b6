"""The constraints of one request's answer: those enforced token by token, and those checked afterwards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rapid_integrations.errors import IncompleteOutputError
from rapid_integrations.sampling import Constraint


@dataclass(frozen=True)
class Held:
    """The constraints of an answer.

    Attributes:
        constraint: says which tokens may come next; None allows any.
        unenforced: rules of the schemas that it does not enforce ("look_up: /properties/a: uniqueItems").
        schema: the JSON schema that the answer is checked against afterwards; None if nothing is left to check.
    """

    constraint: Constraint | None = None
    unenforced: tuple[str, ...] = ()
    schema: Any = None

    def check(self, text: str) -> None:
        """Raise IncompleteOutputError if a complete answer does not satisfy its schema."""
        if self.schema is None:
            return
        from rapid_integrations.structured.checking import unmet

        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets without an end
            raise IncompleteOutputError(
                f"the answer cannot be read to be checked against its JSON schema: {error}. Bound its numbers and its "
                f"depth in the schema, or ask again with another seed. The answer: {text:.1000}"
            ) from None
        found = unmet(self.schema, value)
        if found:
            raise IncompleteOutputError(
                f"the answer does not satisfy its JSON schema: {'; '.join(found)}. That cannot be enforced token by "
                f"token; ask again with another seed, or drop it from the schema. The answer: {text:.1000}"
            )
