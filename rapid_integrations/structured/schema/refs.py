"""References: `$ref`, `$dynamicRef` and `$recursiveRef` become names of definitions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.structured.references import References
from rapid_integrations.structured.schema.left_out import LeftOut
from rapid_integrations.structured.schema.result import Schema


def convert_references(
    given: Mapping[str, Any],
    out: dict[str, Any],
    beside: list[Schema],
    where: str,
    left_out: LeftOut,
    references: References,
    base: str,
    *,
    lenient: bool,
    nothing: Collection[str],
) -> None:
    """Convert references.

    Args:
        given: the schema that holds them.
        out: what its other keywords have become. It is emptied if what stands beside a reference is given up.
        beside: schemas that have to hold beside `out`. A reference that does not stand alone is added.
        where: the JSON pointer of the schema.
        left_out: takes what leads nowhere or to several targets, and what is given up.
        references: finds the targets.
        base: the URI to which the references are relative.
        lenient: let a reference to a missing place allow anything.
        nothing: JSON pointers of definitions that nothing satisfies.

    Raises:
        ConfigurationError: the target does not exist in the schema, or the reference leads back to itself.
    """
    for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
        if isinstance(reference := given.get(keyword), str):
            if references.depends_on_the_way(keyword, reference):
                left_out.add(where, f"{keyword} {reference!r:.80}, which has several targets")
                continue
            target = references.name_of(reference, base)
            if target is None and reference.startswith("#") and not lenient:
                raise ConfigurationError(
                    f"the JSON schema refers to {reference!r:.100} at {where or '/'}, which does not exist in it: "
                    "add that schema"
                )
            if target is None:
                left_out.add(where, f"{keyword} {reference!r:.80}, which leads nowhere in the schema")
            elif (named := references.named(target))[0] in nothing or isinstance(named[1], bool):
                beside += [] if named[1] is True else [False]
            elif not out and not beside:
                out["$ref"] = f"#/$defs/{target}"
            elif left_out.gives_up("$ref beside others"):
                left_out.add(where, f"what stands beside {keyword}")
                out.clear()
                beside.clear()
                out["$ref"] = f"#/$defs/{target}"
            else:
                beside.append({"$ref": f"#/$defs/{target}"})
