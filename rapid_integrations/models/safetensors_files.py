"""Checks that a folder's safetensors files are all there and complete, and lists their tensors, reading no weight."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from rapid_integrations.errors import ModelLoadError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit
_LFS = b"version https://git-lfs"
_FETCH = "Fetch it again"


@dataclass(frozen=True)
class Weights:
    """The tensors that the files of a model hold.

    Attributes:
        shapes: shape of each tensor, by name.
        size: bytes of all tensors.
    """

    shapes: dict[str, tuple[int, ...]]
    size: int

    @property
    def elements(self) -> int:
        """The number of elements in all tensors."""
        return sum(prod(shape) for shape in self.shapes.values())


def read_weights(folder: Path) -> Weights:
    """Check the files that transformers would open in a folder, and return what they hold.

    Raises:
        ModelLoadError: a file or tensor is missing, cut off or of another kind; the message names it.
    """
    if (folder / SINGLE).exists() or not (folder / INDEX).exists():
        return _weights(_tensors(folder / SINGLE))
    placed = _weight_map(folder / INDEX)
    names = sorted(set(placed.values()))
    if missing := [name for name in names if not (folder / name).exists()]:
        raise ModelLoadError(
            f"{folder} could not be loaded: {INDEX} names {len(names)} files, and {len(missing)} of them "
            f"{'is' if len(missing) == 1 else 'are'} missing: {', '.join(missing[:8])}. Fetch what is missing"
        )
    held = {name: _tensors(folder / name) for name in names}
    if absent := [tensor for tensor, name in placed.items() if tensor not in held[name]]:
        raise ModelLoadError(
            f"{folder} could not be loaded: {INDEX} says that {placed[absent[0]]} holds {absent[0]!r}, but it does "
            f"not ({len(absent)} weights in all): index and files belong to different models. Fetch both again"
        )
    return _weights({tensor: found for tensors in held.values() for tensor, found in tensors.items()})


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is the pointer that Git LFS leaves in place of a file that was not fetched."""
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS)) == _LFS
    except OSError:
        return False


def _weights(tensors: dict[str, tuple[tuple[int, ...], int]]) -> Weights:
    return Weights({name: shape for name, (shape, _) in tensors.items()}, sum(size for _, size in tensors.values()))


def _weight_map(path: Path) -> dict[str, str]:
    if is_lfs_pointer(path):
        raise ModelLoadError(pointer_words(path))
    try:
        index = json.loads(path.read_bytes())
        placed = index["weight_map"]
        if not isinstance(placed, dict) or not placed:
            raise TypeError("its weight_map is not a table of files")
        if not isinstance(index.get("metadata"), dict):
            raise TypeError('it has no "metadata", which transformers reads: add "metadata": {}')
        for name in placed.values():
            if not isinstance(name, str) or not name or Path(name).name != name:
                raise TypeError(f"its weight_map names {name!r}, which is not a file of the folder")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelLoadError(f"{path} could not be loaded: {error}. {_FETCH}") from error
    return placed


def _tensors(path: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return (shape, bytes) of each tensor of a file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if start == _LFS[:8] and is_lfs_pointer(path):
                raise ModelLoadError(pointer_words(path))
            if start.lstrip().lower().startswith((b"<!doc", b"<html")):
                raise ModelLoadError(
                    f"{path} could not be loaded: it is an HTML page, not weights. Download the file itself, not the "
                    "page that shows it"
                )
            if len(start) < 8:
                raise ValueError("the file is empty or cut off")
            (length,) = struct.unpack("<Q", start)
            if length > min(_LONGEST_HEADER, size - 8):
                raise ValueError(f"it claims a header of {length:,} bytes, the file has {size:,}")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is not a table of tensors")
        header.pop("__metadata__", None)
        return {name: _tensor(name, entry, size - 8 - length) for name, entry in header.items()}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelLoadError(f"{path} could not be loaded: {error}. {_FETCH}") from error


def _tensor(name: str, entry: Any, room: int) -> tuple[tuple[int, ...], int]:
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(each) is int and each >= 0 for each in (*shape, start, end)) or end < start:
        raise ValueError(f"the byte range of its tensor {name!r} is invalid")
    if end > room:
        raise ValueError(f"its tensor {name!r} ends at byte {end:,} of {room:,}: the file is cut off")
    return shape, end - start


def pointer_words(path: Path) -> str:
    """Return the error message for a Git LFS pointer."""
    return (
        f"{path} could not be loaded: it is a Git LFS pointer, not the file itself. Run `git lfs install && git lfs "
        "pull` in its folder, or download the file"
    )


def named(names: Iterable[str], most: int = 3) -> str:
    """Return the first names as text, and how many more there are."""
    known = list(names)
    more = len(known) - most
    return ", ".join(known[:most]) + (f" and {more:,} more" if more > 0 else "")
