"""Finds, checks and joins all parts of a GGUF model in several files ("...-00001-of-00003.gguf").

transformers reads one file and fills what is missing with random numbers, so the parts are joined to one file first.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from rapid_integrations.errors import ModelLoadError
from rapid_integrations.models.gguf.header import GgufHeader, read_header

_PART = re.compile(r"(?P<stem>.*?)[-_.](?P<number>\d{1,6})-of-(?P<count>\d{1,6})(?P<rest>.*)\.gguf", re.IGNORECASE)
_CUT = re.compile(r".*\.gguf[-.](?:split-[a-z]+|part-?[0-9a-z]+(?:of\d+)?)", re.IGNORECASE)
_SPLIT = "split."  # the keys that only the parts have


def sets_of_parts(folder: Path) -> list[Path]:
    """Return one file for each GGUF model of a folder: a whole file, or the first part that exists."""
    found: dict[tuple[str, ...], Path] = {}
    for path in sorted(folder.glob("*.[gG][gG][uU][fF]")):
        name = _PART.fullmatch(path.name)
        key = (path.name,) if name is None else ("parts", name["stem"], str(int(name["count"])), name["rest"])
        found.setdefault(key, path)
    return list(found.values())


def cut_files(folder: Path) -> list[str]:
    """Return the names of files that are pieces of a GGUF file ("model.gguf-split-a")."""
    return sorted(path.name for path in folder.iterdir() if _CUT.fullmatch(path.name))


def parts_of(path: Path) -> list[Path]:
    """Return all files of the model that `path` belongs to, in order. A whole file is returned alone.

    Raises:
        ModelLoadError: parts are missing; the message names them.
    """
    name = _PART.fullmatch(path.name)
    if name is None:
        return [path]
    count = int(name["count"])
    if not 1 <= int(name["number"]) <= count or count > 9999:
        raise ModelLoadError(f"{path} calls itself part {int(name['number'])} of {count}, which is impossible")
    there = {}
    for other in path.parent.iterdir():
        match = _PART.fullmatch(other.name)
        if match and (match["stem"], int(match["count"]), match["rest"]) == (name["stem"], count, name["rest"]):
            there[int(match["number"])] = other
    if missing := [number for number in range(1, count + 1) if number not in there]:
        width = len(name["number"])
        names = [
            path.name[: name.start("number")] + str(number).zfill(width) + path.name[name.end("number") :]
            for number in missing
        ]
        raise ModelLoadError(
            f"{path} is one of {count} parts of a model, and {len(missing)} of them {_are(missing)} not in "
            f"{path.parent}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}. Fetch the missing parts; with "
            "fewer, weights would be random"
        )
    return [there[number] for number in range(1, count + 1)]


def read_parts(paths: Sequence[Path]) -> list[GgufHeader]:
    """Return the headers of a model's files, after checking that they belong together.

    Raises:
        ModelLoadError: parts belong to different models, are in another order, or hold fewer weights than announced.
    """
    headers = [read_header(path) for path in paths]
    first, count = headers[0], len(headers)
    announced = first.metadata.get("split.count")
    if count == 1:
        if isinstance(announced, int) and announced > 1:
            raise ModelLoadError(
                f"{first.path} is one of {announced} parts of a model, but its name does not say which. Name the parts "
                f"as gguf-split does (model-00001-of-{announced:05d}.gguf, ...), all in one folder"
            )
        return headers
    for index, header in enumerate(headers):
        number, of = header.metadata.get("split.no", index), header.metadata.get("split.count", count)
        if number != index or of != count:
            raise ModelLoadError(
                f"{header.path} says that it is part {_plus_one(number)} of {of}, its name part {index + 1} of "
                f"{count}: parts of different models are mixed, or renamed"
            )
        if header.architecture not in ("", first.architecture):
            raise ModelLoadError(
                f"{header.path} is part of a {header.architecture!r} model, {first.path.name} of a "
                f"{first.architecture!r} one: they do not belong together"
            )
    names = [tensor.name for header in headers for tensor in header.tensors]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ModelLoadError(
            f"{first.path} and its other parts hold {twice[0]!r} more than once: parts of different models are mixed"
        )
    total = first.metadata.get("split.tensors.count", len(names))
    if total != len(names):
        raise ModelLoadError(
            f"{first.path} announces {total} tensors, its {count} parts hold {len(names)}: parts of different models "
            "are mixed, or one is incomplete. Fetch them again"
        )
    return headers


def join(headers: Sequence[GgufHeader], target: Path) -> Path:
    """Write all parts as one GGUF file, with the first part's metadata, and return it.

    Raises:
        OSError: the file cannot be written.
    """
    first = headers[0]
    keys = [key for key in first.metadata if not key.startswith(_SPLIT)]
    alignment = first.alignment
    count = sum(len(header.tensors) for header in headers)
    with target.open("wb") as out:
        out.write(struct.pack("<4sIQQ", b"GGUF", first.version, count, len(keys)))
        with first.path.open("rb") as source:
            for key in keys:
                start, end = first.spans[key]
                source.seek(start)
                out.write(source.read(end - start))
        offset = 0
        for header in headers:
            for tensor in header.tensors:
                name = tensor.name.encode()
                out.write(struct.pack(f"<Q{len(name)}sI", len(name), name, len(tensor.shape)))
                out.write(struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, tensor.kind, offset))
                offset += -(-tensor.size // alignment) * alignment
        for header in headers:
            with header.path.open("rb") as source:
                for tensor in header.tensors:
                    out.write(bytes(-out.tell() % alignment))
                    source.seek(header.data_start + tensor.offset)
                    _copy(source, out, tensor.size)
        out.write(bytes(-out.tell() % alignment))
    return target


def _copy(source: BinaryIO, out: BinaryIO, size: int) -> None:
    remaining = size
    while remaining:
        block = source.read(min(remaining, 1 << 24))
        if not block:
            raise OSError("the file became shorter while it was read")
        out.write(block)
        remaining -= len(block)


def _are(missing: Sequence[int]) -> str:
    return "is" if len(missing) == 1 else "are"


def _plus_one(number: object) -> object:
    return number + 1 if isinstance(number, int) else number
