"""Errors of the libraries that read models, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rapid_integrations import packaged
from rapid_integrations.cache.out_of_memory import is_out_of_memory
from rapid_integrations.errors import ModelLoadError, RapidError
from rapid_integrations.models.panics import is_panic


@contextmanager
def errors_explained(name: str | Path, path: Path | None) -> Iterator[None]:
    """Turn whatever transformers, safetensors, gguf and tokenizers raise for a bad file into `ModelLoadError`."""
    try:
        yield
    except RapidError:
        raise
    except BaseException as error:
        if is_panic(error):
            raise ModelLoadError(_explain(name, path, error)) from None
        if not isinstance(error, Exception) or is_out_of_memory(error):
            raise
        raise ModelLoadError(_explain(name, path, error)) from error


def _explain(name: str | Path, path: Path | None, error: BaseException) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"{path or name} could not be loaded: only Python code that comes with it can run it. Read that code, and "
            "pass trust_remote_code=True (--trust-remote-code) if you trust its author"
        )
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, KeyError):  # its text is only the key
        reason = f"it names {reason}, or lacks it, and transformers cannot handle that"
    if path is None:
        return (
            f"{name!s} could not be loaded from the hub: {reason}. Check the name and the connection, or give a local "
            f"folder, a GGUF file or a packaged model ({', '.join(packaged.MODELS)})"
        )
    return f"{path} could not be loaded: {reason}. The file may be damaged or incomplete: fetch it again"
