"""What the name of a model refers to: a packaged model, a file, a folder, or a name on a hub."""

from __future__ import annotations

from pathlib import Path

from rapid_integrations import packaged
from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.folder_kinds import refuse_folder_without_config
from rapid_integrations.models.gguf.parts import sets_of_parts
from rapid_integrations.models.safetensors_files import INDEX, SINGLE, named
from rapid_integrations.progress import OnProgress


def local_path(name: str | Path, on_progress: OnProgress | None = None) -> Path | None:
    """Return the file or folder that `name` refers to, or None for a name on a hub."""
    if str(name) in packaged.MODELS:
        return packaged.pull(str(name), on_progress)
    path = Path(name).expanduser()
    if path.is_dir():
        ggufs = sets_of_parts(path)
        has_weights = any((path / each).exists() for each in (SINGLE, INDEX))
        if (path / "config.json").exists() and (has_weights or not ggufs):
            return path
        if len(ggufs) == 1:
            return ggufs[0]
        if ggufs:
            raise ModelLoadError(
                f"{path} is not a model folder: it holds {len(ggufs)} GGUF files. Name one of them: "
                f"{named(each.name for each in ggufs)}"
            )
        refuse_folder_without_config(path)
    if path.is_file():
        if path.suffix.lower() == ".gguf" or _is_gguf(path):
            return path
        raise ModelLoadError(f"{path} is not a model: give a GGUF file, a model folder, a packaged name or a hub name")
    if isinstance(name, Path) or path.is_absolute() or path.suffix == ".gguf" or str(name).startswith((".", "~")):
        raise ModelLoadError(f"{path} does not exist: give a GGUF file or a model folder")
    if str(name).count("/") > 1 or not str(name).strip():
        raise ModelLoadError(
            f"{str(name)!r} is neither an existing file or folder, nor a packaged model "
            f"({', '.join(packaged.MODELS)}), nor a hub name like 'Qwen/Qwen2.5-1.5B-Instruct'"
        )
    return None


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False
