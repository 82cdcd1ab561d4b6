"""Engines of this process by their settings. LLMs with the same settings share one engine, its models and caches.

LangChain builds a new LLM for each call with `configurable_fields`, applications build one in every module, and copies
of chains hold copies of LLMs. None of them should load a second set of weights.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from rapid_integrations.engine.loading_key import Key
from rapid_integrations.errors import EngineClosedError

if TYPE_CHECKING:
    from rapid_integrations.engine.engine import RapidEngine

T = TypeVar("T")

_PARTS = 8  # maximum number of objects that `part` keeps for one engine


class Hold:
    """One LLM object's reference to its engine, from first use to `release`. Use `another` to copy it.

    Attributes:
        closed: whether it was released.
        arrived: whether the LLM came by pickle, so that its engine is opened later.
    """

    def __init__(self, closed: bool = False, arrived: bool = False) -> None:
        self.closed = closed
        self.arrived = arrived
        self._engine: RapidEngine | None = None
        self._lock = threading.Lock()

    @property
    def engine(self) -> RapidEngine | None:
        """The engine, if it has been opened."""
        return self._engine

    def open(self, load: Callable[[Hold], RapidEngine], what: str) -> RapidEngine:
        """Return the engine, and load it first if necessary. If several threads call this, one of them loads.

        Raises:
            EngineClosedError: the hold was released. The message names the holder with `what`.
        """
        if self.closed:
            raise EngineClosedError(what)
        if (engine := self._engine) is None:
            with self._lock:
                if (engine := self._engine) is None:
                    engine = self._engine = load(self)
        return engine

    def another(self) -> Hold:
        """Return a second hold on the same engine, for a copy of the holder."""
        other = Hold(self.closed, self.arrived)
        if self._engine is not None and not self.closed:
            other._engine = self._engine
            LOADED_ENGINES.share(self._engine, other)
        return other

    def release(self) -> None:
        """Release the engine; safe to call again. The last holder closes an engine that was loaded by settings."""
        self.closed = True
        engine, self._engine = self._engine, None
        if engine is not None:
            LOADED_ENGINES.release(engine, self)


class LoadedEngines:
    """Engines by the key of their settings. The references are weak: only its holders keep an engine alive."""

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Forget all engines. A forked child calls this, because only its parent can use the inherited ones."""
        self._lock = threading.Lock()
        self._engines: WeakValueDictionary[Hashable, RapidEngine] = WeakValueDictionary()
        self._holders: WeakKeyDictionary[RapidEngine, WeakSet[Hold]] = WeakKeyDictionary()
        self._loading: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()

    def get(self, key: Callable[[], Key | None], load: Callable[[], RapidEngine], holder: Hold) -> RapidEngine:
        """Return the open engine of a key, and load it if there is none.

        Args:
            key: returns the key of the present files and settings. If it returns None, the engine is not shared.
            load: loads the engine.
            holder: keeps the engine open.
        """
        wanted = key()
        if wanted is None:
            return self._kept(None, load(), holder)
        with self._lock:
            loading = self._loading.setdefault(wanted, threading.Lock())
        with loading:
            wanted = key()  # files may have changed: another thread may have fetched them while this one waited
            with self._lock:
                found = self._engines.get(wanted)
                if found is not None and not found.closed:
                    self._holders[found].add(holder)
                    return found
            engine = load()
            return self._kept(key(), engine, holder)

    def share(self, engine: RapidEngine, holder: Hold) -> None:
        """Add a holder. Does nothing for an engine that was not loaded here."""
        with self._lock:
            if (holders := self._holders.get(engine)) is not None:
                holders.add(holder)

    def release(self, engine: RapidEngine, holder: Hold) -> None:
        """Remove a holder, and close the engine if it was the last one."""
        with self._lock:
            holders = self._holders.get(engine)
            if holders is None:
                return
            holders.discard(holder)
            if len(holders):
                return
            del self._holders[engine]
            for key in [key for key, each in self._engines.items() if each is engine]:
                del self._engines[key]
        engine.close()

    def part(self, engine: RapidEngine, key: tuple[object, ...], make: Callable[[], T]) -> T:
        """Return the result of `make`, which runs once for an engine and a key (with objects compared by identity)."""
        by_identity = tuple(each if isinstance(each, (str, Path, int, type(None))) else id(each) for each in key)
        with self._lock:
            # The engine keeps the parts. Kept here, a part that holds an LLM would keep the LLM's engine alive.
            known: dict[Hashable, tuple[object, T]] = vars(engine).setdefault("parts", {})
            if by_identity not in known:
                while len(known) >= _PARTS:
                    known.pop(next(iter(known)))
                known[by_identity] = (key, make())  # keeps the objects alive, so that no other gets their identity
            return known[by_identity][1]

    def _kept(self, key: Key | None, engine: RapidEngine, holder: Hold) -> RapidEngine:
        with self._lock:
            self._holders[engine] = WeakSet((holder,))
            if key is not None:
                self._engines[key] = engine
        return engine


LOADED_ENGINES = LoadedEngines()
