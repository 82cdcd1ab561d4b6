"""Resolve `$ref` in a JSON schema, and give each target a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from rapid_integrations.errors import ConfigurationError

_CHAIN = "the JSON schema has a chain of $ref that leads back to itself at {}: there is no schema at its end"


class References:
    """Resolves the references of one schema by JSON pointer, `$id` or `$anchor`. Nothing is ever fetched.

    Args:
        root: the schema.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self._names: dict[str, str] = {}  # by pointer
        self._pending: list[tuple[str, str, Any]] = []
        self._ids: dict[str, str] | None = None

    def name_of(self, reference: str) -> str | None:
        """Return the name of the target of `reference`, following chains to their end, or None if there is no target.

        Raises:
            ConfigurationError: the reference leads back to itself.
        """
        seen: set[str] = set()
        while True:
            pointer = self._pointer(reference)
            if pointer is None:
                return None
            if pointer in seen:
                raise ConfigurationError(_CHAIN.format(reference[:100]))
            seen.add(pointer)
            target = self._at(pointer)
            if target is None:
                return None
            onward = target.get("$ref") if isinstance(target, Mapping) and len(target) == 1 else None
            if not isinstance(onward, str):
                break
            reference = onward
        if pointer not in self._names:
            name = self._names[pointer] = f"d{len(self._names)}"
            self._pending.append((name, pointer, target))
        return self._names[pointer]

    def pending(self) -> list[tuple[str, str, Any]]:
        """Return the targets that were named since the last call: name, pointer and schema."""
        found, self._pending = self._pending, []
        return found

    def followed(self, schema: Any) -> Mapping[str, Any]:
        """Return a schema, or its target if it is only a reference. Return {} if that is not an object."""
        for _ in range(100):
            reference = schema.get("$ref") if isinstance(schema, Mapping) else None
            if not isinstance(reference, str) or (pointer := self._pointer(reference)) is None:
                break
            schema = self._at(pointer)
        return schema if isinstance(schema, Mapping) else {}

    def _pointer(self, reference: str) -> str | None:
        """Return a reference as a pointer into the root, or None if it leads elsewhere."""
        if reference in ("#", ""):
            return ""
        if reference.startswith("#/"):
            return unquote(reference[1:]).rstrip("/") if reference != "#/" else ""
        if self._ids is None:
            self._ids = self._identified()
        base, _, fragment = reference.partition("#")
        if reference in self._ids:
            return self._ids[reference]
        if base in self._ids and fragment.startswith("/"):
            return self._ids[base] + unquote(fragment)
        return None

    def _identified(self) -> dict[str, str]:
        """Return the places of the schemas with an `$id` or an `$anchor`."""
        found: dict[str, str] = {}
        pending: list[tuple[Any, str]] = [(self._root, "")]
        while pending:
            value, where = pending.pop()
            if isinstance(value, Mapping):
                for key in ("$id", "id"):
                    if isinstance(name := value.get(key), str):
                        found.setdefault(name.rstrip("#") or name, where)
                for key in ("$anchor", "$dynamicAnchor"):
                    if isinstance(name := value.get(key), str):
                        found.setdefault(f"#{name}", where)
                pending += [
                    (each, f"{where}/{str(key).replace('~', '~0').replace('/', '~1')}") for key, each in value.items()
                ]
            elif isinstance(value, (list, tuple)):
                pending += [(each, f"{where}/{index}") for index, each in enumerate(value)]
        return found

    def _at(self, pointer: str) -> Any:
        found = self._root
        for part in pointer.split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping):
                found = found.get(part)
            elif isinstance(found, (list, tuple)) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                return None
        return found if isinstance(found, (Mapping, bool)) else None
