"""The header of a GGUF file, its metadata and the place of its tensors, read with every number checked.

transformers and the gguf package trust what a file says. A count of 2**60 keeps them busy for ever, and a tensor that
ends behind the file is filled with whatever memory holds. So the header is read here first. Only small arrays are
kept. For longer ones, such as token lists, only the length is kept.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from rapid_integrations.errors import ModelLoadError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_FORMATS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")  # of a string
BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 30: (1, 2), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8)},  # plain numbers
    **{2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40)},  # Q4_0 to Q8_1
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},  # Q2_K to Q8_K
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110)},  # IQ2_XXS to IQ3_S
    **{22: (256, 82), 23: (256, 136), 29: (256, 56), 34: (256, 54), 35: (256, 66), 39: (32, 17)},  # IQ2_S to MXFP4
}
"""(numbers, bytes) of a block by the type of a tensor. Importing the gguf package takes a tenth of a second."""
_KEPT = 256  # arrays up to this many elements are kept; of longer ones only the length
_MOST_KEYS, _MOST_TENSORS, _MOST_DIMS = 65_536, 1 << 20, 4
_LONGEST_NAME = 4096  # bytes
_LONGEST_STRING = 1 << 24  # bytes; chat templates are the longest


@dataclass(frozen=True)
class GgufTensor:
    """A tensor: its shape in GGUF's order (the fastest dimension first), and its offset from `data_start` in bytes."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int


@dataclass(frozen=True)
class GgufHeader:
    """The header of one file.

    Attributes:
        metadata: keys and values. An array over 256 elements, or a nested one, is replaced by its length (an `int`).
        spans: the place of each key with its value in the file, (start, end) in bytes.
        data_start: bytes before the first tensor.
    """

    path: Path
    version: int
    metadata: Mapping[str, Any]
    spans: Mapping[str, tuple[int, int]]
    tensors: tuple[GgufTensor, ...]
    data_start: int

    @property
    def architecture(self) -> str:
        """The model's architecture ("llama"), or "" if the file states none."""
        found = self.metadata.get("general.architecture", "")
        return found if isinstance(found, str) else ""

    @property
    def alignment(self) -> int:
        """The number of bytes of which every tensor's offset is a multiple."""
        return int(self.metadata.get("general.alignment", 32))

    def array(self, key: str) -> list[Any]:
        """Return all elements of an array of strings or numbers, of which `metadata` may have the length only.

        Raises:
            KeyError: there is no such array.
            UnicodeDecodeError: a string is damaged.
        """
        start, end = self.spans[key]
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
        at = _LENGTH.size + len(key.encode()) + 4  # behind the key and the type of its value
        if int.from_bytes(data[at - 4 : at], "little") != _ARRAY:
            raise KeyError(f"{key} is no array")
        element, count = struct.unpack_from("<IQ", data, at)
        at += 12
        if element != _STRING:
            return list(struct.unpack_from(f"<{count}{_FORMATS[element][1]}", data, at))
        strings, length_at = [], _LENGTH.unpack_from
        for _ in range(count):
            at += 8
            behind = at + length_at(data, at - 8)[0]
            strings.append(data[at:behind].decode("utf-8"))
            at = behind
        return strings


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of a GGUF file.

    Raises:
        ModelLoadError: the file is not GGUF, is of another version, is cut off, or holds impossible numbers.
    """
    try:
        with path.open("rb") as file:
            start = file.read(24)
            if start[:4] != _MAGIC:
                raise ModelLoadError(f"{path} could not be loaded: {_what_instead(start)}")
            if len(start) < 24:
                raise ModelLoadError(f"{path} could not be loaded: the file ends in its first bytes; fetch it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data).read()
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise ModelLoadError(
            f"{path} could not be loaded: its header is cut off or damaged ({error}); fetch the file again"
        ) from error
    except OSError as error:
        raise ModelLoadError(f"{path} could not be loaded: {error.strerror or error}") from error


def _what_instead(start: bytes) -> str:
    if not start:
        return "the file is empty; fetch it again"
    if start.startswith(b"version https://git-l"):
        return "it is a Git LFS pointer, not the weights: run `git lfs pull` in its folder, or download the file itself"
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "it is an HTML page, not a model: download the file itself, not the page that shows it"
    if start[:4] in (b"lmgg", b"fmgg", b"tjgg", b"algg", b"ggml", b"ggjt", b"ggmf", b"ggla"):
        return "it is in a ggml format from before GGUF: take the model's GGUF file, or convert it with llama.cpp"
    if start[:2] == b"PK":
        return "it is a zip archive or a PyTorch pickle, not a GGUF file"
    return "it does not begin like a GGUF file, so it is damaged or something else; fetch it again"


class _Reader:
    """Reads the header in order; every offset stays inside the file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._at = 4

    def read(self) -> GgufHeader:
        (version,) = self._unpack("<I")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            why = "it was written for machines of the other byte order" if swapped in _VERSIONS else "convert it again"
            raise self._error(f"it is GGUF version {version}, versions 2 and 3 can be read: {why}")
        tensor_count, key_count = self._unpack("<QQ")
        if key_count > _MOST_KEYS or tensor_count > _MOST_TENSORS:
            raise self._error(f"it claims {key_count:,} keys and {tensor_count:,} tensors, which is impossible")
        metadata: dict[str, Any] = {}
        spans: dict[str, tuple[int, int]] = {}
        for _ in range(key_count):
            start = self._at
            key = self._string(_LONGEST_NAME)
            if key in metadata:
                raise self._error(f"its key {key!r} occurs twice")
            (kind,) = self._unpack("<I")
            metadata[key] = self._value(kind)
            spans[key] = (start, self._at)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._error(f"its alignment is {alignment!r}, not a power of two")
        tensors = tuple(self._tensor() for _ in range(tensor_count))
        data_start = -(-self._at // alignment) * alignment
        self._require_inside(tensors, data_start)
        return GgufHeader(self._path, version, metadata, spans, tensors, data_start)

    def _unpack(self, pattern: str) -> tuple[Any, ...]:
        values = struct.unpack_from(pattern, self._data, self._at)
        self._at += struct.calcsize(pattern)
        return values

    def _string(self, longest: int) -> str:
        (length,) = self._unpack("<Q")
        if length > min(longest, len(self._data) - self._at):
            raise self._error(f"it claims a string of {length:,} bytes, which is impossible")
        self._at += length
        return bytes(self._data[self._at - length : self._at]).decode("utf-8")

    def _skip_strings(self, count: int) -> None:
        """Go behind strings; a vocabulary has a hundred thousand."""
        length_at, data, at = _LENGTH.unpack_from, self._data, self._at
        for _ in range(count):
            at += 8 + length_at(data, at)[0]
        self._at = at

    def _value(self, kind: int) -> Any:
        if kind in _FORMATS:
            return self._unpack(_FORMATS[kind])[0]
        if kind == _STRING:
            return self._string(_LONGEST_STRING)
        if kind != _ARRAY:
            raise self._error(f"it holds a value of type {kind}, which GGUF does not have")
        element, count = self._unpack("<IQ")
        size = struct.calcsize(_FORMATS[element]) if element in _FORMATS else 8
        if element not in _FORMATS and element != _STRING:
            raise self._error(f"it holds an array of type {element}, which models do not use")
        if count > (len(self._data) - self._at) // size:
            raise self._error(f"it claims an array of {count:,} elements, more than the file can hold")
        if element == _STRING:
            if count <= _KEPT:
                return [self._string(_LONGEST_STRING) for _ in range(count)]
            self._skip_strings(count)
            return count
        if count <= _KEPT:
            return list(self._unpack(f"<{count}{_FORMATS[element][1]}"))
        self._at += count * size
        return count

    def _tensor(self) -> GgufTensor:
        name = self._string(_LONGEST_NAME)
        (dimensions,) = self._unpack("<I")
        if dimensions > _MOST_DIMS:
            raise self._error(f"its tensor {name!r} claims {dimensions} dimensions")
        shape = self._unpack(f"<{dimensions}Q")
        kind, offset = self._unpack("<IQ")
        block, size = BLOCKS.get(kind) or self._block_of(kind, name)
        elements = prod(shape)
        if shape and shape[0] % block:
            raise self._error(f"the rows of its tensor {name!r} are {shape[0]:,} wide, not a multiple of {block}")
        return GgufTensor(name, tuple(shape), kind, offset, elements // block * size)

    def _block_of(self, kind: int, tensor: str) -> tuple[int, int]:
        """Return what `BLOCKS` says of a type that only a later gguf package knows."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise self._error(
                f"its tensor {tensor!r} is of type {kind}, which the gguf package does not know"
            ) from None
        return block, size

    def _require_inside(self, tensors: tuple[GgufTensor, ...], data_start: int) -> None:
        names: set[str] = set()
        length = len(self._data)
        for tensor in tensors:
            if tensor.name in names:
                raise self._error(f"its tensor {tensor.name!r} occurs twice")
            names.add(tensor.name)
            if data_start + tensor.offset + tensor.size > length:
                raise self._error(
                    f"its tensor {tensor.name!r} ends at byte {data_start + tensor.offset + tensor.size:,}, the file "
                    f"at {length:,}: it is cut off; fetch it again"
                )

    def _error(self, reason: str) -> ModelLoadError:
        return ModelLoadError(f"{self._path} could not be loaded: {reason}")
