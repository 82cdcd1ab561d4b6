"""What an answer depends on, as a key for caches: equal in two processes for equal models and parts, else different.

A host's cache of answers or of transformations asks an LLM who it is. A name is not enough: other weights may lie under
it, and an engine or a part that was given as an object has none.
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

_DEPTH = 5  # of objects in objects that are looked into
_VALUES = 2_000  # looked at; what is larger (an index with its nodes) is told from others as an object
_PROCESS = uuid.uuid4().hex
_KEPT = 256  # objects that cannot be referred to weakly, which are therefore kept; a forgotten one gets another name

_objects: dict[int, tuple[Any, str]] = {}  # by identity: a weak reference, and a name that no other object ever has
_kept: deque[int] = deque()


def models_of(engine: RapidEngine) -> dict[str, Any]:
    """Return an engine's models by name and weights, and what its prompts are written with.

    A model whose weights cannot be told (on several devices, or not a transformers model) counts as an object.
    """
    models = {"target": engine.target, "drafter": engine.drafter, "draft_lm": engine.draft_lm}
    weights = engine.fingerprints()
    names = {name: model.name for name, model in models.items() if name in weights and model is not None}
    template = str(engine.vocabulary.tokenizer.chat_template or "")
    return {
        "models": names,
        "weights": {name: weights[name] or _name_of(models[name]) for name in names},
        "chat_template": hashlib.sha256(template.encode()).hexdigest(),
    }


def part_key(part: object) -> str:
    """Return what tells a part of a pipeline, with its present settings, from every other part.

    Settings are looked at as far as they go (they may hold a key, so only their hash is given). What has none that can
    be compared, such as a client or a large index, counts as an object: no other one has its key, in any process.
    """
    text = json.dumps(_Description().of(part), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def key_of_embedder(embedder: object) -> object:
    """Return an embedder for `part_key`: one that is named by a folder, together with the state of its files."""
    if isinstance(embedder, (str, Path)) and Path(embedder).expanduser().exists():
        return key_of_name(embedder)
    return str(embedder) if isinstance(embedder, Path) else embedder


class _Description:
    """Looks at values, at so many of them at most."""

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
        return _name_of(value) if "<" in name else name  # two lambdas of one module have one name

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
            private = value.__pydantic_private__ or {}  # mostly clients and caches, but names of models, too
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


_NO_SETTINGS = {"callback_manager", "callbacks", "_lock", "_loaded"}  # change nothing about what a part gives
_PLAIN = type("_Plain", (), {}).__basicsize__  # an object that is larger holds something that no attribute shows
_POINTER = struct.calcsize("P")


def _attributes(value: Any) -> dict[str, Any] | None:
    """Return what an object of a Python class holds; None for one that keeps something where it cannot be seen."""
    slots = [
        name for cls in type(value).__mro__ for name, each in vars(cls).items() if inspect.ismemberdescriptor(each)
    ]
    if type(value).__basicsize__ > _PLAIN + _POINTER * len(slots) or not (slots or hasattr(value, "__dict__")):
        return None
    return {name: getattr(value, name, None) for name in (*slots, *getattr(value, "__dict__", ()))}


def _name_of(value: Any) -> str:
    """Return a name that this object alone has, in this process and any other."""
    identity = id(value)
    known = _objects.get(identity)
    if known is None or (isinstance(known[0], weakref.ref) and known[0]() is not value):
        try:
            holder: Any = weakref.ref(value, lambda _: _objects.pop(identity, None))
        except TypeError:  # cannot be referred to weakly: kept, so that its identity stays its own
            holder = value
            _kept.append(identity)
            if len(_kept) > _KEPT:
                _objects.pop(_kept.popleft(), None)
        known = _objects[identity] = (holder, f"object {_PROCESS} {uuid.uuid4().hex}")
    return known[1]
