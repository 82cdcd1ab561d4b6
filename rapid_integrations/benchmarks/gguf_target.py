"""Find the GGUF file of a target, for an engine that reads nothing else."""

from __future__ import annotations

from pathlib import Path

from rapid_integrations import packaged
from rapid_integrations.errors import ConfigurationError


def gguf_file(name: str) -> Path:
    """Return the GGUF file of a target's name.

    Raises:
        ConfigurationError: the target is not a GGUF file.
    """
    path = packaged.path_of(name) if name in packaged.MODELS else Path(name).expanduser()
    files = sorted(path.glob("*.gguf")) if path.is_dir() else [path]
    if len(files) != 1 or files[0].suffix != ".gguf" or not files[0].is_file():
        raise ConfigurationError(f"it reads GGUF files, and {name} is not one: give --target a GGUF file")
    return files[0]
