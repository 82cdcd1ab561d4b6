"""The tensors of a GGUF model's files, mapped into memory and read when they are asked for."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod

import torch
from torch import Tensor

from rapid_integrations.kernels.cpu.blocks import FORMATS
from rapid_integrations.models.block_linear import StoredBlocks
from rapid_integrations.models.gguf.header import GgufHeader, GgufTensor

_PLAIN = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}  # dtypes by their numbers in GGUF


class MappedTensors:
    """All tensors of a model in one file or several.

    Args:
        headers: of its files.

    Attributes:
        path: of the first file, for messages.
        header: of the first file, which has the metadata.
        tensors: what the headers say of each tensor, by its name.
    """

    def __init__(self, headers: Sequence[GgufHeader]) -> None:
        self.path, self.header = headers[0].path, headers[0]
        self.tensors: dict[str, GgufTensor] = {}
        self._places: dict[str, tuple[mmap.mmap, int]] = {}
        for header in headers:
            with header.path.open("rb") as file:
                # A private mapping that may be written to, because torch warns of memory that may not be.
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            for tensor in header.tensors:
                self.tensors[tensor.name] = tensor
                self._places[tensor.name] = data, header.data_start + tensor.offset

    def names(self) -> Iterator[str]:
        """Yield the names of the tensors, in the order of the files."""
        yield from self.tensors

    def blocks(self, name: str, order: Tensor | None = None) -> StoredBlocks | None:
        """Return a matrix in its blocks, or None if the kernels do not compute with this format.

        Args:
            name: of the tensor.
            order: of its rows; see `StoredBlocks`.
        """
        tensor = self.tensors[name]
        form = FORMATS.get(tensor.kind)
        if form is None or len(tensor.shape) != 2:
            return None
        data, start = self._places[name]
        raw = self._raw(name).view(tensor.shape[1], -1)
        return StoredBlocks(form, raw, order, partial(_release, data, start, tensor.size))

    def stack(self, name: str) -> list[StoredBlocks] | None:
        """Return the matrix of each expert in its blocks, or None if the kernels do not compute with this format."""
        tensor = self.tensors[name]
        form = FORMATS.get(tensor.kind)
        if form is None or len(tensor.shape) != 3:
            return None
        data, start = self._places[name]
        _, rows, experts = tensor.shape
        size = tensor.size // experts
        raw = self._raw(name).view(experts, rows, -1)
        return [
            StoredBlocks(form, own, None, partial(_release, data, start + index * size, size))
            for index, own in enumerate(raw)
        ]

    def numbers(self, name: str, dtype: torch.dtype) -> Tensor:
        """Return a tensor in a dtype, in a new memory; blocks are dequantised by the gguf package."""
        tensor = self.tensors[name]
        shape = tuple(reversed(tensor.shape))
        plain = _PLAIN.get(tensor.kind)
        raw = self._raw(name)
        if plain is not None:
            found = (raw if raw.data_ptr() % plain.itemsize == 0 else raw.clone()).view(plain)
        else:
            from gguf import GGMLQuantizationType
            from gguf.quants import dequantize

            rows = raw.view(prod(shape[:-1]), -1)
            found = torch.from_numpy(dequantize(rows.numpy(), GGMLQuantizationType(tensor.kind)))
        numbers = found.view(shape).to(dtype, copy=True)
        data, start = self._places[name]
        _release(data, start, tensor.size)
        return numbers

    def _raw(self, name: str) -> Tensor:
        data, start = self._places[name]
        return torch.frombuffer(data, dtype=torch.uint8, count=self.tensors[name].size, offset=start)


def _release(data: mmap.mmap, start: int, size: int) -> None:
    """Let the system take back the memory of a tensor that was read; the pages that it shares with others stay."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length > 0:
        data.madvise(mmap.MADV_DONTNEED, first, length)
