"""Cache keys of what an answer depends on. They are equal across processes for equal models and parts, else different.

A host's cache of answers or transformations asks an LLM for its identity. A name is not enough: the weights under it
may change, and an engine or a part that was given as an object has no name.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import struct
import uuid
import weakref
from collections import deque
from collections.abc import Mapping, Set
from datetime import date
from enum import Enum
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretBytes, SecretStr

from rapid_integrations.engine.loading_key import key_of_name
from rapid_integrations.errors import SharedResource

if TYPE_CHECKING:
    from rapid_integrations.engine.engine import RapidEngine

_DEPTH = 5  # levels of nested objects that are compared
_VALUES = 2_000  # values that are compared; a larger object (an index with its nodes) is compared by identity
_PROCESS = uuid.uuid4().hex
_KEPT = 256  # objects without weak references that are kept alive; a forgotten one gets a new name

_objects: dict[int, tuple[Any, str]] = {}  # by id(): a weak reference, and a name that no other object ever gets
_kept: deque[int] = deque()


def models_of(engine: RapidEngine) -> dict[str, Any]:
    """Return an engine's models by name and weights, the hash of its chat template and the arguments of all requests.

    A model without a fingerprint (on several devices, or not a transformers model) is compared by identity.
    """
    models = {"target": engine.target, "drafter": engine.drafter, "draft_lm": engine.draft_lm}
    models |= {f"drafter {number}": each for number, each in enumerate(getattr(engine, "more_drafters", ()), start=2)}
    weights = engine.fingerprints()
    names = {name: model.name for name, model in models.items() if name in weights and model is not None}
    template = str(engine.vocabulary.tokenizer.chat_template or "")
    return {
        "models": names,
        "weights": {name: weights[name] or _name_of(models[name]) for name in names},
        "chat_template": hashlib.sha256(template.encode()).hexdigest(),
        **({"chat_template_kwargs": dict(given)} if (given := getattr(engine, "chat_template_kwargs", None)) else {}),
    }


def part_key(part: object) -> str:
    """Return a key for a part of a pipeline with its present settings.

    The key is a hash, because settings may contain secrets. An object without settings that can be compared, such as a
    client or a large index, is compared by identity: no other object in any process has its key.
    """
    text = json.dumps(_Description().of(part), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def key_of_embedder(embedder: object) -> object:
    """Return an embedder's value for `part_key`. For a folder, this includes the state of its files."""
    if isinstance(embedder, (str, Path)) and Path(embedder).expanduser().exists():
        return key_of_name(embedder)
    return str(embedder) if isinstance(embedder, Path) else embedder


class _Description:
    """Describes values as JSON, at most `_VALUES` of them."""

    def __init__(self) -> None:
        self._left = _VALUES

    def of(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, (SecretStr, SecretBytes)):
            return self.of(value.get_secret_value(), depth)
        if isinstance(value, bytes):
            return hashlib.sha256(value).hexdigest()
        if isinstance(value, (Path, date, Enum)):
            return f"{type(value).__qualname__} {value}"
        if isinstance(value, type) or inspect.isroutine(value):
            return self._function(value, depth)
        if depth >= _DEPTH or self._left < 0:
            return _name_of(value)
        if isinstance(value, Mapping):
            return self._pairs(value, [(str(key), item) for key, item in value.items()], depth)
        if isinstance(value, (list, tuple)):
            return self._small(value, list(value), depth)
        if isinstance(value, Set):
            return self._small(value, sorted(value, key=repr), depth)
        return self._object(value, depth)

    def _small(self, whole: Any, items: list[Any], depth: int) -> Any:
        if len(items) > self._left:
            return _name_of(whole)
        return [self.of(item, depth + 1) for item in items]

    def _pairs(self, whole: Any, items: list[tuple[str, Any]], depth: int) -> Any:
        if len(items) > self._left:
            return _name_of(whole)
        return [[name, self.of(item, depth + 1)] for name, item in items]

    def _function(self, value: Any, depth: int) -> Any:
        name = f"{value.__module__}.{getattr(value, '__qualname__', value)}"
        owner = getattr(value, "__self__", None)
        if owner is not None and not inspect.ismodule(owner):
            return [name, self.of(owner, depth + 1)]
        return _name_of(value) if "<" in name else name  # all lambdas of a module have the same name

    def _object(self, value: Any, depth: int) -> Any:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        settings: Mapping[str, Any] | None
        if isinstance(value, SharedResource):
            if not value.settings_of_answers:
                return _name_of(value)
            settings = {name: getattr(value, name) for name in value.settings_of_answers}
        elif isinstance(fingerprint := getattr(value, "fingerprint", None), str):  # an `Embedder`
            settings = {name: getattr(value, name, None) for name in ("threshold", "max_tokens")}
            settings["fingerprint"] = fingerprint
        elif isinstance(value, BaseModel):
            private = value.__pydantic_private__ or {}  # mostly clients and caches, but also names of models
            words = {name: item for name, item in private.items() if isinstance(item, str)}
            settings = {**{name: getattr(value, name) for name in type(value).model_fields}, **words}
        elif isinstance(value, functools.partial):
            settings = {"func": value.func, "args": value.args, "keywords": value.keywords}
        else:
            settings = _attributes(value)
        if settings is None:
            return [kind, _name_of(value)]
        settings = {name: item for name, item in settings.items() if name not in _NO_SETTINGS}
        if not settings:
            return kind
        return [kind, self._pairs(value, sorted(settings.items(), key=itemgetter(0)), depth)]


_NO_SETTINGS = {"callback_manager", "callbacks", "_lock", "_loaded"}  # a part's results do not depend on them
_PLAIN = type("_Plain", (), {}).__basicsize__  # a larger object has state that is not in its attributes
_POINTER = struct.calcsize("P")


def _attributes(value: Any) -> dict[str, Any] | None:
    """Return the attributes of an object; None if it also has state that is not in attributes."""
    slots = [
        name for cls in type(value).__mro__ for name, each in vars(cls).items() if inspect.ismemberdescriptor(each)
    ]
    if type(value).__basicsize__ > _PLAIN + _POINTER * len(slots) or not (slots or hasattr(value, "__dict__")):
        return None
    return {name: getattr(value, name, None) for name in (*slots, *getattr(value, "__dict__", ()))}


def _name_of(value: Any) -> str:
    """Return a name that no other object has, in this process or any other."""
    identity = id(value)
    known = _objects.get(identity)
    if known is None or (isinstance(known[0], weakref.ref) and known[0]() is not value):
        try:
            holder: Any = weakref.ref(value, lambda _: _objects.pop(identity, None))
        except TypeError:  # no weak references: keep the object alive, so that no other gets its id()
            holder = value
            _kept.append(identity)
            if len(_kept) > _KEPT:
                _objects.pop(_kept.popleft(), None)
        known = _objects[identity] = (holder, f"object {_PROCESS} {uuid.uuid4().hex}")
    return known[1]
