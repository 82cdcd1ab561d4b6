"""The engines of this process that were loaded by settings: the same settings share one, with its models and caches.

LangChain builds an LLM anew for each call with `configurable_fields`, applications build one in every module, and
copies of chains hold copies of them. None of these is to load a second set of weights.
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

_PARTS = 8  # things made over an engine that are kept with it


class Hold:
    """One LLM object's hold on its engine, from when it is first needed to `release`. Not to be copied: see `another`.

    Attributes:
        closed: whether it was released.
        arrived: whether the holder was pickled, so that its engine is still to be opened.
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
        """Return the engine, loaded now if it never was; several threads wait for one that loads.

        Raises:
            EngineClosedError: released; `what` names the holder.
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
        """Let go; the last one to do so closes an engine that was loaded by settings. Safe to call again."""
        self.closed = True
        engine, self._engine = self._engine, None
        if engine is not None:
            LOADED_ENGINES.release(engine, self)


class LoadedEngines:
    """Engines by what they were loaded from. Nothing here keeps one alive: its holders do."""

    def __init__(self) -> None:
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Begin anew, as in a forked child: what it inherited can be used by its parent only."""
        self._lock = threading.Lock()
        self._engines: WeakValueDictionary[Hashable, RapidEngine] = WeakValueDictionary()
        self._holders: WeakKeyDictionary[RapidEngine, WeakSet[Hold]] = WeakKeyDictionary()
        self._loading: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()

    def get(self, key: Callable[[], Key | None], load: Callable[[], RapidEngine], holder: Hold) -> RapidEngine:
        """Return the open engine under a key, loaded if there is none.

        Args:
            key: what is to be loaded, as it is now; None: nothing tells it from others.
            load: makes the engine.
            holder: keeps it open.
        """
        wanted = key()
        if wanted is None:
            return self._kept(None, load(), holder)
        with self._lock:
            loading = self._loading.setdefault(wanted, threading.Lock())
        with loading:
            wanted = key()  # whoever loaded just now may have fetched it first
            with self._lock:
                found = self._engines.get(wanted)
                if found is not None and not found.closed:
                    self._holders[found].add(holder)
                    return found
            engine = load()
            return self._kept(key(), engine, holder)

    def share(self, engine: RapidEngine, holder: Hold) -> None:
        """Note a further holder; nothing for an engine that was not loaded here."""
        with self._lock:
            if (holders := self._holders.get(engine)) is not None:
                holders.add(holder)

    def release(self, engine: RapidEngine, holder: Hold) -> None:
        """Note that a holder needs the engine no more, and close it if that was the last one."""
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
        """Return what `make` makes over an engine, made once for the same `key` (its objects compared by identity)."""
        by_identity = tuple(each if isinstance(each, (str, Path, int, type(None))) else id(each) for each in key)
        with self._lock:
            # With the engine, and not here: a part may hold an LLM that holds the engine.
            known: dict[Hashable, tuple[object, T]] = vars(engine).setdefault("parts", {})
            if by_identity not in known:
                while len(known) >= _PARTS:
                    known.pop(next(iter(known)))
                known[by_identity] = (key, make())  # the objects are kept: nothing else gets their identity
            return known[by_identity][1]

    def _kept(self, key: Key | None, engine: RapidEngine, holder: Hold) -> RapidEngine:
        with self._lock:
            self._holders[engine] = WeakSet((holder,))
            if key is not None:
                self._engines[key] = engine
        return engine


LOADED_ENGINES = LoadedEngines()
