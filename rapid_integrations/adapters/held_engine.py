"""What an LLM class of a host framework does with its engine: hold it, share it, close it, travel by name."""

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
    """Return the fields that say in another way than `update` does what is loaded."""
    given = {name for name, value in update.items() if value is not None}
    if "engine" in given:
        replaced = set(ModelFields.model_fields)
    elif "model" in given:
        replaced = {"engine", *NAMED}
    else:
        replaced = set()
    return replaced - set(update)


class HoldsEngine(ModelFields):
    """An LLM over an engine.

    - **One engine for the same settings.** LLMs of one process that load the same models in the same way share an
      engine, whatever their settings of a request. Copies share it, too (`copy.copy`, `copy.deepcopy`, `model_copy`,
      also of an index, a chain or an agent that holds one).
    - **Closing.** `close`, or the end of a `with` block, ends this LLM; the last one that shares an engine frees the
      models. An engine that was given (`engine=...`) stays open: it is its owner's.
    - **Other processes.** A pickled LLM is its settings: it loads the models by name where it is first used. One over
      objects (`engine=...`, `model=...`) cannot be pickled.
    """

    _hold: Hold = PrivateAttr(default_factory=Hold)

    def model_post_init(self, context: Any, /) -> None:
        """Pass on to the host's own (pydantic would put its own for private attributes in its place)."""
        super().model_post_init(context)

    @property
    def _engine(self) -> RapidEngine:
        """The engine; an LLM that has come from another process loads it now."""
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
        """Do what a host wants done once an engine is there."""

    def _made_once(self, key: tuple[Hashable | object, ...], make: Callable[[], T]) -> T:
        """Return what `make` makes over the engine: once for the same key, whoever of the sharers asks."""
        return LOADED_ENGINES.part(self._engine, key, make)

    def _settle_parts(self) -> None:
        """Make what is made of the host's parts: what is wrong with them is said now.

        An event loop that calls the LLM later finds all of it there, and is not kept from its work by looking at files.
        """
        _ = self._compressor
        self._parts_of_answers()

    def _key_of_embedder(self, embedder: object) -> object:
        return self._made_once(("key of embedder", embedder), lambda: key_of_embedder(embedder))

    if TYPE_CHECKING:  # of the host's class

        @property
        def _compressor(self) -> ContextCompressor: ...

    def _parts_of_answers(self) -> dict[str, object]:
        """Return the host's parts that an answer depends on, by the fields that hold them."""
        return {}

    def _identity_of_answers(self) -> dict[str, Any]:
        """Return what an answer depends on besides the settings: models by their weights, and the parts.

        Equal settings give equal ones in every process, as long as no part is an object that cannot be compared.
        """
        parts = self._parts_of_answers()
        if self.engine is not None:
            parts["compressor"] = self._engine.compressor
        return {**models_of(self._engine), "parts": part_key(parts)}

    # --- closing ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End this LLM: every later call raises `EngineClosedError`. Safe to call again.

        Others that share the engine go on. The last one to close it ends what still runs (see `RapidEngine.close`) and
        frees the models. An engine that was given as `engine=...` stays open.
        """
        self._hold.release()

    async def aclose(self) -> None:
        """Do what `close` does without blocking the event loop."""
        from rapid_integrations.engine.async_stream import in_worker

        await in_worker(self.close)

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
        for name in _HELD_OBJECTS:  # what is in `memo` counts as copied already
            memo[id(getattr(self, name))] = getattr(self, name)
        memo[id(self._hold)] = self._hold.another()
        return super().__deepcopy__(memo)

    def model_copy(self, *, update: Any = None, deep: bool = False) -> Self:
        """Return a copy that shares the engine, unless `update` changes what is loaded.

        What `update` gives takes the place of what was given in another way: `engine=...` of models by name, say.
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
        """Whether it has been constructed: its fields have been checked, and what is loaded is decided."""
        private = getattr(self, "__pydantic_private__", None)
        hold = None if private is None else private.get("_hold")
        return hold is not None and (hold.engine is not None or hold.arrived or hold.closed)

    def _is_loaded(self) -> bool:
        private = getattr(self, "__pydantic_private__", None)
        return private is not None and "_hold" in private and self._hold.engine is not None

    # --- travelling -------------------------------------------------------------------------------------------------

    def __reduce_ex__(self, protocol: object) -> Any:
        try:
            return _arrived, (type(self), self._luggage())
        except NotPicklableError as error:
            if self._is_only_tried():
                return str, (str(error),)
            raise

    def _is_only_tried(self) -> bool:
        """Whether a host finds out now what can be pickled, and would leave out silently what cannot."""
        return False

    def _luggage(self) -> dict[str, Any]:
        """Return what goes to another process: everything but the engine.

        Raises:
            NotPicklableError: a part that cannot go there.
        """
        own = type(self).__name__
        for name in _HELD_OBJECTS:
            if getattr(self, name) is not None:
                raise NotPicklableError(
                    f"{own}({name}=...) cannot be pickled: {name} is an object of this process, and another process "
                    f"could not tell which models to load. Build it from names ({own}(target=..., drafter=...)): it is "
                    "then loaded by name there, once for each process"
                )
        fields = {name: value for name, value in vars(self).items() if name in type(self).model_fields}
        for name, value in fields.items():
            if (reason := _why_not(value)) is not None:
                if name in self._left_behind():
                    continue
                raise NotPicklableError(
                    f"{own} cannot be pickled: its {name} is {type(value).__name__}, which cannot ({reason}). Give the "
                    f"process that uses it an {own} without, or something that can be pickled in its place (a name, an "
                    "object of a class at the top of a module)"
                )
        private = self.__pydantic_private__ or {}
        return {
            "fields": {name: value for name, value in fields.items() if _why_not(value) is None},
            "set": self.model_fields_set,
            "private": {name: value for name, value in private.items() if name not in ("_hold", *self._made_anew())},
            "closed": self._hold.closed,
        }

    def _left_behind(self) -> tuple[str, ...]:
        """Fields without which answers stay the same, so that an LLM may travel without them."""
        return ()

    def _made_anew(self) -> tuple[str, ...]:
        """Private attributes that another process makes for itself."""
        return ()

    def _before_loading_here(self) -> None:
        """Refuse to load what was pickled in another process, where that is of no use."""

    def _when_arrived(self) -> None:
        """Do what a host wants done once in a process, before the engine is there."""


def _arrived(kind: type[HoldsEngine], luggage: dict[str, Any]) -> HoldsEngine:
    """Return an LLM as it was pickled; its models are loaded when it is first used.

    Not here: an error at this point would not reach whoever gave the work to a pool of processes.
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
    """A file that keeps nothing."""

    def write(self, data: bytes) -> int:
        return len(data)


def _why_not(value: object) -> str | None:
    """Return why a value cannot be pickled by the pickler that is at work; None: it can."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return None
    try:
        _pickler_at_work()(_Nowhere()).dump(value)
    except Exception as error:  # whatever a class's own methods raise
        return " ".join(str(error).split())[:300] or type(error).__name__
    return None


def _pickler_at_work() -> Any:
    """Return the class of it. cloudpickle and dill take functions and much else that pickle does not."""
    for module, frame in callers():
        if module.split(".")[0] == "dill" or "cloudpickle" in module:
            return frame.f_globals.get("Pickler", pickle.Pickler)
    return pickle.Pickler
