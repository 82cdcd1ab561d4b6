"""`HoldsEngine`: how an LLM class of a host framework holds, shares and closes its engine, and how it is pickled."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import BaseModel, PrivateAttr

from rapid_integrations.adapters.call_stack import callers
from rapid_integrations.adapters.fields import NAMED, ModelFields
from rapid_integrations.adapters.identity import key_of_embedder, models_of, part_key
from rapid_integrations.engine.loaded_engines import LOADED_ENGINES, Hold
from rapid_integrations.errors import ConfigurationError, NotPicklableError
from rapid_integrations.progress import OnProgress

if TYPE_CHECKING:
    from rapid_integrations.compression import ContextCompressor
    from rapid_integrations.engine.engine import RapidEngine

T = TypeVar("T")

_HELD_OBJECTS = ("engine", "model", "tokenizer", "drafter_model", "drafter_tokenizer")


def _replaced_by(update: Mapping[str, Any]) -> set[str]:
    """Return the fields about loading that `update` makes obsolete."""
    given = {name for name, value in update.items() if value is not None}
    if "engine" in given:
        replaced = set(ModelFields.model_fields)
    elif "base_url" in given:
        replaced = set(ModelFields.model_fields) - {"api_key", "embedding_cache"}
    elif "model" in given:
        replaced = {"engine", "base_url", *NAMED}
    else:
        replaced = set()
    return replaced - set(update)


class HoldsEngine(ModelFields):
    """An LLM over an engine.

    - **One engine for the same settings.** LLMs of one process that load the same models in the same way share an
      engine, even if their request settings differ. Copies share it, too (`copy.copy`, `copy.deepcopy`, `model_copy`,
      also copies of an index, a chain or an agent that holds an LLM).
    - **Closing.** `close`, or the end of a `with` block, closes this LLM. The last LLM that shares an engine frees the
      models. An engine that was given (`engine=...`) stays open, because it belongs to the caller.
    - **Other processes.** A pickled LLM contains only its settings. It loads the models by name when it is first used
      there. An LLM over objects (`engine=...`, `model=...`) cannot be pickled.
    """

    _hold: Hold = PrivateAttr(default_factory=Hold)

    def model_post_init(self, context: Any, /) -> None:
        """Call the host class's method. Without this, pydantic's own for private attributes would replace it."""
        super().model_post_init(context)

    @property
    def _engine(self) -> RapidEngine:
        """The engine. An LLM from another process loads it on first use."""
        return self._open_engine(None)

    def _open_engine(self, on_progress: OnProgress | None) -> RapidEngine:
        hold = self._hold
        if (engine := hold.engine) is not None:
            return engine
        if hold.arrived and not hold.closed:
            self._before_loading_here()
        engine = hold.open(lambda holder: self.open_engine(on_progress, holder), f"this {type(self).__name__}")
        self._when_opened(engine)
        return engine

    def _when_opened(self, engine: RapidEngine) -> None:
        """Hook for the host's class: called when the engine is loaded."""

    def _made_once(self, key: tuple[Hashable | object, ...], make: Callable[[], T]) -> T:
        """Return the result of `make`, which runs once for a key, even if several LLMs share the engine."""
        return LOADED_ENGINES.part(self._engine, key, make)

    def _settle_parts(self) -> None:
        """Build everything that depends on the host's parts now, so that errors in them are raised now.

        A later call in an event loop then does not block on reading files.
        """
        _ = self._compressor
        self._parts_of_answers()

    def _key_of_embedder(self, embedder: object) -> object:
        return self._made_once(("key of embedder", embedder), lambda: key_of_embedder(embedder))

    if TYPE_CHECKING:  # the host's class defines it

        @property
        def _compressor(self) -> ContextCompressor: ...

    def _parts_of_answers(self) -> dict[str, object]:
        """Return the host's parts that answers depend on, by the names of their fields."""
        return {}

    def _identity_of_answers(self) -> dict[str, Any]:
        """Return what answers depend on besides the settings: the models by their weights, and the host's parts.

        Equal models and parts have equal identities in every process, unless a part is an object that cannot be
        compared.
        """
        parts = self._parts_of_answers()
        if self.engine is not None:
            parts["compressor"] = self._engine.compressor
        return {**models_of(self._engine), "parts": part_key(parts)}

    # --- closing ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close this LLM: every later call raises `EngineClosedError`. Safe to call again.

        Other LLMs that share the engine keep working. The last one to close ends running requests (see
        `RapidEngine.close`) and frees the models. An engine that was given as `engine=...` stays open.
        """
        self._hold.release()

    async def aclose(self) -> None:
        """Do what `close` does without blocking the event loop."""
        from rapid_integrations.engine.async_stream import in_thread

        await in_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- copying ----------------------------------------------------------------------------------------------------

    def __copy__(self) -> Self:
        made = super().__copy__()
        made._hold = self._hold.another()
        return made

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        for name in _HELD_OBJECTS:  # `deepcopy` takes objects in `memo` as already copied
            memo[id(getattr(self, name))] = getattr(self, name)
        memo[id(self._hold)] = self._hold.another()
        return super().__deepcopy__(memo)

    def model_copy(self, *, update: Any = None, deep: bool = False) -> Self:
        """Return a copy that shares the engine, unless `update` changes what is loaded.

        `update` also resets conflicting fields: `engine=...`, for instance, replaces models by name.
        """
        made = super().model_copy(update=update, deep=deep)
        for name in _replaced_by(update or {}):
            made.__dict__[name] = type(made).model_fields[name].get_default(call_default_factory=True)
            made.__pydantic_fields_set__.discard(name)
        changed = {name for name in update or {} if name in ModelFields.model_fields}
        if any(getattr(self, name) is not getattr(made, name) for name in changed):
            made._hold.release()
            made._hold = Hold()
            made._open_engine(None)
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ModelFields.model_fields and self._is_set_up() and value != getattr(self, name):
            raise ConfigurationError(
                f"{name} is what this {type(self).__name__} was loaded with, and changing it would change nothing: "
                f"build another one, or copy it with model_copy(update={{{name!r}: ...}})"
            )
        super().__setattr__(name, value)

    def _is_set_up(self) -> bool:
        """Whether the constructor has run: the fields have been checked, and what is loaded is decided."""
        private = getattr(self, "__pydantic_private__", None)
        hold = None if private is None else private.get("_hold")
        return hold is not None and (hold.engine is not None or hold.arrived or hold.closed)

    def _is_loaded(self) -> bool:
        private = getattr(self, "__pydantic_private__", None)
        return private is not None and "_hold" in private and self._hold.engine is not None

    # --- pickling ---------------------------------------------------------------------------------------------------

    def __reduce_ex__(self, protocol: object) -> Any:
        try:
            return _arrived, (type(self), self._luggage())
        except NotPicklableError as error:
            if self._is_only_tried():
                return str, (str(error),)
            raise

    def _is_only_tried(self) -> bool:
        """Whether the host is only testing what can be pickled, and would silently leave out the rest."""
        return False

    def _luggage(self) -> dict[str, Any]:
        """Return the pickled state: everything but the engine.

        Raises:
            NotPicklableError: a part cannot be pickled.
        """
        own = type(self).__name__
        for name in _HELD_OBJECTS:
            if getattr(self, name) is not None:
                raise NotPicklableError(
                    f"{own}({name}=...) cannot be pickled: {name} is an object of this process, and another process "
                    f"could not tell which models to load. Build it from names ({own}(target=..., drafter=...)): each "
                    "process then loads the models by name, once"
                )
        fields = {name: value for name, value in vars(self).items() if name in type(self).model_fields}
        for name, value in fields.items():
            if (reason := _why_not(value)) is not None:
                if name in self._left_behind():
                    continue
                raise NotPicklableError(
                    f"{own} cannot be pickled: its {name} is {type(value).__name__}, which cannot ({reason}). Give the "
                    f"other process an {own} without it, or replace it with something that can be pickled (a name, an "
                    "object of a class at the top level of a module)"
                )
        private = self.__pydantic_private__ or {}
        return {
            "fields": {name: value for name, value in fields.items() if _why_not(value) is None},
            "set": self.model_fields_set,
            "private": {name: value for name, value in private.items() if name not in ("_hold", *self._made_anew())},
            "closed": self._hold.closed,
        }

    def _left_behind(self) -> tuple[str, ...]:
        """Return the fields that pickling may leave out, because answers do not depend on them."""
        return ()

    def _made_anew(self) -> tuple[str, ...]:
        """Return the private attributes that each process makes for itself."""
        return ()

    def _before_loading_here(self) -> None:
        """Hook for the host's class: may refuse to load the models of an LLM that was pickled in another process."""

    def _when_arrived(self) -> None:
        """Hook for the host's class: called in each process before the engine is loaded."""


def _arrived(kind: type[HoldsEngine], luggage: dict[str, Any]) -> HoldsEngine:
    """Return the unpickled LLM. It loads its models when it is first used.

    Loading them here would lose errors: a pool of processes does not report an error during unpickling.
    """
    made = kind.__new__(kind)
    blank = {name: field for name, field in kind.model_fields.items() if name not in luggage["fields"]}
    missing = {name: field.get_default(call_default_factory=True) for name, field in blank.items()}
    state = {
        "__dict__": {**missing, **luggage["fields"]},
        "__pydantic_fields_set__": luggage["set"],
        "__pydantic_extra__": None,
        "__pydantic_private__": {**luggage["private"], "_hold": Hold(luggage["closed"], arrived=True)},
    }
    BaseModel.__setstate__(made, state)
    made._when_arrived()
    return made


class _Nowhere:
    """A file that discards what is written to it."""

    def write(self, data: bytes) -> int:
        return len(data)


def _why_not(value: object) -> str | None:
    """Return why the current pickler cannot pickle a value; None if it can."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return None
    try:
        _pickler_at_work()(_Nowhere()).dump(value)
    except Exception as error:  # a class's own methods may raise anything
        return " ".join(str(error).split())[:300] or type(error).__name__
    return None


def _pickler_at_work() -> Any:
    """Return the class of the current pickler. cloudpickle and dill pickle functions and more, unlike pickle."""
    for module, frame in callers():
        if module.split(".")[0] == "dill" or "cloudpickle" in module:
            return frame.f_globals.get("Pickler", pickle.Pickler)
    return pickle.Pickler
