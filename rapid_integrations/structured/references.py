"""Resolve `$ref` in a JSON schema, and give each target a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urljoin

from rapid_integrations.errors import ConfigurationError
from rapid_integrations.structured.drafts import draft_of, keywords_of_ids, ref_stands_alone, schemas_within

_CHAIN = "the JSON schema has a chain of $ref that leads back to itself at {}: there is no schema at its end"


class References:
    """Resolves the references of one schema by JSON pointer, `$id` or `$anchor`. Nothing is ever fetched.

    A reference is relative to the URI of the schema that holds it: that of the nearest `$id` around it. Where that
    leads nowhere, it is tried from the root, as many schemas mean it.

    Args:
        root: the schema.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self._names: dict[str, str] = {}  # by pointer
        self._targets: dict[str, tuple[str, Any]] = {}  # pointers and schemas by name
        self._pending: list[tuple[str, str, Any]] = []
        self._ids: dict[str, str] = {}  # the pointers of absolute URIs, and of ids and anchors as they are written
        self._bases: dict[str, str] = {}  # the URIs of schemas with an id, by pointer
        self._base_of: dict[int, str] = {}  # and by the identity of the schema
        self._dynamic: dict[str, int] = {}  # how many $dynamicAnchor there are of a name, "" for $recursiveAnchor
        self._read_names()

    def base_of(self, schema: Mapping[str, Any], outer: str) -> str:
        """Return the URI to which the references of `schema` are relative; `outer` is that of the schema around it."""
        return self._base_of.get(id(schema), outer)

    def base_at(self, pointer: str) -> str:
        """Return the URI to which the references of the schema at `pointer` are relative."""
        while pointer and pointer not in self._bases:
            pointer = pointer.rpartition("/")[0]
        return self._bases.get(pointer, "")

    def depends_on_the_way(self, keyword: str, reference: str) -> bool:
        """Whether a `$dynamicRef` or `$recursiveRef` has several targets, one for each way to it."""
        if keyword == "$recursiveRef":
            return self._dynamic.get("", 0) > 1
        return keyword == "$dynamicRef" and self._dynamic.get(reference.rpartition("#")[2], 0) > 1

    def name_of(self, reference: str, base: str = "") -> str | None:
        """Return the name of the target of `reference`, following chains to their end, or None if there is no target.

        Raises:
            ConfigurationError: the reference leads back to itself.
        """
        seen: set[str] = set()
        while True:
            pointer = self._pointer(reference, base)
            if pointer is None:
                return None
            if pointer in seen:
                raise ConfigurationError(_CHAIN.format(reference[:100]))
            seen.add(pointer)
            target = self._at(pointer)
            onward = target.get("$ref") if isinstance(target, Mapping) and len(target) == 1 else None
            if not isinstance(onward, str):
                break
            reference, base = onward, self.base_at(pointer)
        if pointer not in self._names:
            name = self._names[pointer] = f"d{len(self._names)}"
            self._targets[name] = pointer, target
            if not isinstance(target, bool):
                self._pending.append((name, pointer, target))
        return self._names[pointer]

    def named(self, name: str) -> tuple[str, Any]:
        """Return the pointer and the schema that `name_of` has named."""
        return self._targets[name]

    def pending(self) -> list[tuple[str, str, Any]]:
        """Return the targets that were named since the last call: name, pointer and schema."""
        found, self._pending = self._pending, []
        return found

    def target(self, reference: str, base: str = "") -> Any:
        """Return the schema that a reference leads to, or None if it leads nowhere."""
        pointer = self._pointer(reference, base)
        return None if pointer is None else self._at(pointer)

    def followed(self, schema: Any, base: str = "") -> Mapping[str, Any]:
        """Return a schema, or its target if it is only a reference. Return {} if that is not an object."""
        for _ in range(100):
            reference = schema.get("$ref") if isinstance(schema, Mapping) else None
            if not isinstance(reference, str) or (pointer := self._pointer(reference, base)) is None:
                break
            schema, base = self._at(pointer), self.base_at(pointer)
        return schema if isinstance(schema, Mapping) else {}

    def _pointer(self, reference: str, base: str) -> str | None:
        """Return a reference as the pointer of a schema in the root, or None if it leads elsewhere."""
        uri, _, fragment = reference.partition("#")
        target = uri if not base else base if not uri else urljoin(base, uri)
        roots = [self._ids[each] for each in (target, uri) if each in self._ids]
        if not uri:
            roots.append("")
        if fragment and not fragment.startswith("/"):
            return self._ids.get(f"{target}#{fragment}", self._ids.get(reference))
        path = unquote(fragment)
        for found in (root + form for root in roots for form in (path, path.rstrip("/"))):
            if self._at(found) is not None:
                return found
        return None

    def _read_names(self) -> None:
        """Read `$id`, `$anchor` and their older forms."""
        draft = draft_of(self._root)
        alone, keys = ref_stands_alone(draft), keywords_of_ids(draft)
        found = list(schemas_within(self._root))
        found.sort(key=lambda each: each[0].count("/"))  # a base is read before those within it
        for where, schema in found:
            base = self.base_at(where)
            plain = not (alone and isinstance(schema.get("$ref"), str))
            for key in keys:
                if plain and isinstance(name := schema.get(key), str):
                    uri, _, fragment = name.partition("#")
                    if uri:
                        base = urljoin(base, uri)
                        self._ids.setdefault(base, where)
                        self._ids.setdefault(uri, where)
                        self._bases[where], self._base_of[id(schema)] = base, base
                    if fragment:
                        self._ids.setdefault(f"{base}#{fragment}", where)
                        self._ids.setdefault(f"#{fragment}", where)
            for key in ("$anchor", "$dynamicAnchor"):
                if isinstance(name := schema.get(key), str):
                    self._ids.setdefault(f"{base}#{name}", where)
                    self._ids.setdefault(f"#{name}", where)
            if isinstance(name := schema.get("$dynamicAnchor"), str):
                self._dynamic[name] = self._dynamic.get(name, 0) + 1
            if schema.get("$recursiveAnchor") is True:
                self._dynamic[""] = self._dynamic.get("", 0) + 1

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
