"""Keys for loaded models. Equal keys mean equal weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

Key: TypeAlias = tuple[Any, ...]


def key_of_name(name: str | Path | None) -> Key | None:
    """Return a key for the files behind a name without reading their content; None without a name.

    The key contains the size, times and inode number of each file, so it changes if a file is changed or replaced.
    """
    if name is None:
        return None
    from rapid_integrations import packaged

    if str(name) in packaged.MODELS:
        return ("packaged", str(name), _files(packaged.models_dir() / str(name)))
    path = Path(name).expanduser()
    if path.is_dir():
        return ("folder", str(path.resolve()), _files(path))
    if path.is_file():  # includes similar files beside it, because a model may come in parts
        parts = path.parent.glob(f"*{path.suffix}") if path.suffix else (path,)
        return ("file", str(path.resolve()), tuple(sorted(map(_state, parts))))
    return ("hub", str(name), _snapshot(str(name)))


def key_of_tokenizer(tokenizer: Any) -> Key:
    """Return a key for a tokenizer object in its present state."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return (id(tokenizer), str(getattr(tokenizer, "chat_template", None)), str(added))


def key_of_model(model: Any) -> Key | None:
    """Return a key for a model object with its present weights; None if changes of them cannot be detected.

    The key uses PyTorch's count of in-place changes of each tensor.
    """
    if model is None:
        return ()
    try:
        return (id(model), sum(tensor._version for tensor in (*model.parameters(), *model.buffers())))
    except (AttributeError, RuntimeError, TypeError):  # inference tensors have no such count
        return None


def _files(folder: Path) -> Key:
    try:
        return tuple(sorted(_state(path) for path in folder.iterdir() if path.is_file()))
    except OSError:  # the folder does not exist yet
        return ()


def _state(path: Path) -> Key:
    state = path.stat()
    return (path.name, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)


def _snapshot(name: str) -> str | None:
    """Return the path of a hub model's cached config.json, which contains the commit; None if it is not cached."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json")
    except Exception:  # not a valid hub name; loading will raise the error
        return None
    return found if isinstance(found, str) else None
