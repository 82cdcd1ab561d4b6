"""What a model's name stands for at this moment: the same key, the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

Key: TypeAlias = tuple[Any, ...]


def key_of_name(name: str | Path | None) -> Key | None:
    """Return what tells the files behind a name from every other, without reading them; None for no name.

    Size, times and number of each file count, so a file that was changed, or put in the place of another, gives
    another key.
    """
    if name is None:
        return None
    from rapid_integrations import packaged

    if str(name) in packaged.MODELS:
        return ("packaged", str(name), _files(packaged.models_dir() / str(name)))
    path = Path(name).expanduser()
    if path.is_dir():
        return ("folder", str(path.resolve()), _files(path))
    if path.is_file():  # and what lies beside it: a model may come in parts
        parts = path.parent.glob(f"*{path.suffix}") if path.suffix else (path,)
        return ("file", str(path.resolve()), tuple(sorted(map(_state, parts))))
    return ("hub", str(name), _snapshot(str(name)))


def key_of_tokenizer(tokenizer: Any) -> Key:
    """Return what tells a tokenizer object, in its present state, from every other."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return (id(tokenizer), str(getattr(tokenizer, "chat_template", None)), str(added))


def key_of_model(model: Any) -> Key | None:
    """Return what tells a model object, with its present weights, from every other; None where that is unknown.

    PyTorch counts how often each tensor was changed in place.
    """
    if model is None:
        return ()
    try:
        return (id(model), sum(tensor._version for tensor in (*model.parameters(), *model.buffers())))
    except (AttributeError, RuntimeError, TypeError):  # inference tensors are not counted
        return None


def _files(folder: Path) -> Key:
    try:
        return tuple(sorted(_state(path) for path in folder.iterdir() if path.is_file()))
    except OSError:  # not there yet
        return ()


def _state(path: Path) -> Key:
    state = path.stat()
    return (path.name, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


def _snapshot(name: str) -> str | None:
    """Return the folder in which a hub's model was kept last; its name is the commit."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json")
    except Exception:  # a name that no hub could have; loading will say so
        return None
    return found if isinstance(found, str) else None
