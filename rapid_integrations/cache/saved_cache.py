"""A KV cache and its tokens as one safetensors file, with a digest over the whole file."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rapid_integrations.cache.kv_cache import KVCache
from rapid_integrations.cache.recorded_state import LayersState, RecordedState, StateShape
from rapid_integrations.cache.segments import Segment
from rapid_integrations.cache.windows import Range, reusable, without
from rapid_integrations.errors import CacheError

_FORMAT = "rapid-integrations KV cache 2"
_WITH_WINDOWS = "rapid-integrations KV cache 3"  # some layers have only the rows that a sliding window may need
_WITH_STATES = "rapid-integrations KV cache 4"  # some layers have states in place of rows
_TOKENS = "token_ids"
_LABEL = "label."
_STATE = "state."
_NO_DIGEST = "0" * 64
_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
_DTYPES[torch.int8] = "I8"  # rows of `levels`, and no other

_PARTS = ("matrices", "inputs")  # of a state
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # the library that reads the header refuses them

Layout = list[tuple[str, torch.dtype, tuple[int, ...]]]


class WriteInterrupted(Exception):
    """A write was told to stop, so the file is incomplete."""


@dataclass(frozen=True)
class SavedPrefix:
    """The header of a saved KV cache.

    Attributes:
        model: fingerprint of the model that wrote it.
        token_ids: (n,) the tokens whose rows it holds.
        labels: what people are told about it, by name. Nothing is found by them.
        windows: see `KVCache`.
        freed: ranges of positions whose rows the layers with a window do not have.
        states: numbers of tokens behind which it holds a recurrent state, ascending.
        every: see `RecordedState`; 0: the model has no states.
        rates: see `StateShape`.
    """

    model: str
    token_ids: NDArray[np.int64]
    labels: Mapping[str, str] = field(default_factory=dict)
    windows: tuple[int | None, ...] = ()
    freed: tuple[Range, ...] = ()
    states: tuple[int, ...] = ()
    every: int = 0
    rates: int = 0

    def reusable(self, length: int) -> int:
        """Return how many of the first `length` tokens a text can go on behind."""
        if self.every:
            return max((each for each in self.states if each <= length), default=0)
        return reusable(length, max((each or 0 for each in self.windows), default=0), self.freed)


def write_cache(
    path: Path,
    cache: KVCache,
    token_ids: NDArray[np.int64],
    model: str,
    go_on: Callable[[], bool] = lambda: True,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Write a cache, all of its segments as one.

    The bytes have reached the disk when this returns. The file grows under its name, so give a temporary name.

    Args:
        path: the file.
        cache: must not be written to or rolled back meanwhile; `KVCache.freeze` sees to that.
        token_ids: (cache.length,) the tokens of the rows.
        model: fingerprint of the model that wrote them.
        go_on: is asked between pieces whether to continue.
        labels: see `SavedPrefix`.

    Raises:
        WriteInterrupted: `go_on` said no.
        OSError: the file cannot be written.
        CacheError: this format does not know the rows' dtype, or the cache has a layer without rows.
    """
    assert len(token_ids) == cache.length, f"{len(token_ids)} tokens for {cache.length} rows"
    tokens = np.ascontiguousarray(token_ids, dtype="<i8")
    layout: Layout = [(_TOKENS, torch.int64, tokens.shape), *layout_of(cache)]
    shown = {name: _LONE_SURROGATE.sub("\ufffd", text) for name, text in (labels or {}).items()}
    saved = SavedPrefix(model, token_ids, shown, cache.windows, tuple(cache.freed))
    if isinstance(cache.state, RecordedState):
        positions = tuple(each.position for each in cache.state.states)
        saved = replace(saved, states=positions, every=cache.state.every, rates=cache.state.shape.rates)
    header = partial(_header, layout, saved)
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        file.write(header(_NO_DIGEST))
        digest.update(tokens.tobytes())
        file.write(tokens.tobytes())
        for piece in _pieces(cache):
            if not go_on():
                raise WriteInterrupted
            digest.update(piece)
            file.write(piece)
        digest.update(header(_NO_DIGEST))
        file.seek(0)
        file.write(header(digest.hexdigest()))
        file.flush()
        os.fsync(file.fileno())


def layout_of(cache: KVCache) -> Layout:
    """Return name, dtype and shape (1, H_kv, rows, head_dim) of the tensors in a file, in their order."""
    layout: Layout = [
        (f"{index}.{part}", rows.dtype, (*rows.shape[:2], _count(_ranges(cache, index, cache.length)), rows.shape[3]))
        for index in range(cache.layers)
        for part, rows in zip(("key", "value"), cache.segments[-1].rows(index), strict=True)
    ]
    for state in () if cache.state is None else cache.state.states:
        layout += ((_name(state.position, part), each.dtype, tuple(each.shape)) for part, each in state.tensors.items())
    return layout


def _name(position: int, part: str) -> str:
    return f"{_STATE}{position}.{part}"


def _pieces(cache: KVCache) -> Iterator[bytes]:
    """Yield the rows' bytes, a head of a segment at a time, so that little is held twice."""
    for index in range(cache.layers):
        ranges = _ranges(cache, index, cache.length)
        for parts in zip(*(_held(segment, index, ranges) for segment in cache.segments), strict=True):
            whole = [rows for part in parts for rows in part]
            held = [cache.fetched(rows).view(torch.uint8).numpy()[0] for rows in whole]  # each (H_kv, rows, bytes)
            for head in range(len(held[0]) if held else 0):
                yield from (part[head].tobytes() for part in held)
    for state in () if cache.state is None else cache.state.states:
        yield from (cache.fetched(tensor).contiguous().numpy().tobytes() for tensor in state.tensors.values())


def _ranges(cache: KVCache | SavedPrefix, layer: int, length: int) -> list[Range]:
    """Return the ranges of positions whose rows a layer has, of the first `length` tokens."""
    windowed = layer < len(cache.windows) and cache.windows[layer] is not None
    return without((0, length), cache.freed if windowed else ())


def _count(ranges: list[Range]) -> int:
    return sum(end - begin for begin, end in ranges)


def _held(segment: Segment, layer: int, ranges: list[Range]) -> tuple[list[Tensor], list[Tensor]]:
    """Return a segment's keys and its values of some ranges of positions."""
    inside = [(max(begin, segment.begin), min(end, segment.end)) for begin, end in ranges]
    rows = [slice(begin - segment.begin, end - segment.begin) for begin, end in inside if begin < end]
    keys, values = segment.rows(layer)
    return [keys[:, :, each] for each in rows], [values[:, :, each] for each in rows]


def read_prefix(path: Path) -> SavedPrefix:
    """Return a file's header without reading its rows. Nothing is verified yet.

    Raises:
        CacheError: the header shows that the file is not a saved cache.
    """
    with _errors_as_cache_errors(path), _open(path) as file:
        return _prefix(path, file)


def read_cache(
    path: Path, capacity: int, length: int | None = None, device: str | torch.device = "cpu"
) -> tuple[SavedPrefix, KVCache]:
    """Read a file of `write_cache` and check every byte against the digest.

    Args:
        path: the file.
        capacity: tokens that must fit.
        length: number of rows to load; None loads all, or all that the last state has read.
        device: the device of the cache.

    Raises:
        CacheError: the file is damaged or is not a saved cache, or it holds fewer tokens than `length`, not the rows
            that a text needs behind it, or more than `capacity`.
    """
    # The digest takes half of the time. A thread computes it while this one stores the rows.
    with _errors_as_cache_errors(path), _open(path) as file, ThreadPoolExecutor(1) as digesting:
        saved = _prefix(path, file)
        wanted = saved.reusable(len(saved.token_ids)) if length is None else length
        if wanted > len(saved.token_ids):
            raise CacheError(f"{path} holds {len(saved.token_ids):,} tokens, {wanted:,} were asked for", code="short")
        if saved.reusable(wanted) < wanted:
            raise CacheError(
                f"{path} does not hold what a text needs behind {wanted:,} tokens: rows before them that windows see, "
                "or a recurrent state",
                code="window",
            )
        names = [name for name in file.keys() if name != _TOKENS]  # noqa: SIM118 (no mapping)
        states = [_name(position, part) for position in saved.states for part in _PARTS]
        layers = (len(names) - len(states)) // 2
        expected = [*(f"{index}.{part}" for index in range(layers) for part in ("key", "value")), *states]
        if set(names) != set(expected):
            raise CacheError(f"{path} is not a saved KV cache: its content is something else", code="foreign")
        tokens = file.get_tensor(_TOKENS)
        digest = hashlib.sha256()
        digested = digesting.submit(digest.update, tokens.numpy().tobytes())
        layout: Layout = [(_TOKENS, tokens.dtype, tuple(tokens.shape))]
        stored = {file.get_slice(name).get_dtype() for name in set(names) - set(states)}
        if "I8" in stored and len(stored) > 1:
            raise CacheError(f"{path} is not a saved KV cache: only some of its rows are in eight bits", code="foreign")
        if saved.windows and len(saved.windows) != layers:
            raise CacheError(f"{path} is not a saved KV cache: it has windows of other layers", code="foreign")
        cache = KVCache(layers, capacity, kv_dtype="int8" if "I8" in stored else None, windows=saved.windows)
        for index in range(layers):
            rows = [file.get_tensor(f"{index}.{part}") for part in ("key", "value")]
            for part, tensor in zip(("key", "value"), rows, strict=True):
                expected_rows = _count(_ranges(saved, index, len(tokens)))
                if tensor.ndim != 4 or tensor.shape[0] != 1 or tensor.shape[2] != expected_rows:
                    raise CacheError(
                        f"{path} is not a saved KV cache: {index}.{part} has shape {tuple(tensor.shape)}",
                        code="foreign",
                    )
                digested = digesting.submit(digest.update, tensor.view(torch.uint8).numpy().data)
                layout.append((f"{index}.{part}", tensor.dtype, tuple(tensor.shape)))
            ranges = _ranges(saved, index, wanted)
            keys, values = (tensor[:, :, : _count(ranges)].to(device) for tensor in rows)
            cache.restore(index, ranges, keys, values)
        held: list[tuple[int, LayersState]] = []
        for position in saved.states:
            tensors = [file.get_tensor(_name(position, part)) for part in _PARTS]
            for part, tensor in zip(_PARTS, tensors, strict=True):
                digested = digesting.submit(digest.update, tensor.view(torch.uint8).numpy().data)
                layout.append((_name(position, part), tensor.dtype, tuple(tensor.shape)))
            if position <= wanted:
                held.append((position, LayersState(*(tensor.to(device) for tensor in tensors))))
        if held:
            cache.state = _state_of(path, saved, held)
        metadata = file.metadata()
        digested.result()
        digest.update(_header(layout, saved, _NO_DIGEST))
        if metadata.get("sha256") != digest.hexdigest():
            raise CacheError(
                f"{path} is not a valid saved KV cache: its content does not match its digest, so it is damaged",
                code="foreign",
            )
    cache.restored(wanted, saved.freed)
    return saved, cache


def _state_of(path: Path, saved: SavedPrefix, held: list[tuple[int, LayersState]]) -> RecordedState:
    """Return the state of a text that begins with states of a file."""
    first = held[0][1]
    shapes = {(each.matrices.shape, each.inputs.shape, each.matrices.dtype, each.inputs.dtype) for _, each in held}
    matrices, inputs = first.matrices.shape, first.inputs.shape
    if (
        len(shapes) > 1
        or (len(matrices), len(inputs), saved.every > 0 <= saved.rates) != (4, 3, True)  # some have no rates
        or matrices[0] != inputs[0]
        or {first.matrices.dtype, first.inputs.dtype} != {torch.float32}
    ):
        raise CacheError(
            f"{path} is not a saved KV cache: its states have shapes {sorted(map(str, shapes))}", code="foreign"
        )
    layers, heads, key_dim, value_dim = matrices
    shape = StateShape(layers, heads, key_dim, value_dim, inputs[2], saved.rates, inputs[1] + 1, first.matrices.device)
    state = RecordedState(shape, saved.every)
    state.take(held)
    return state


def _header(layout: Layout, saved: SavedPrefix, digest: str) -> bytes:
    """Return the length and the JSON header of a safetensors file."""
    rows = len(saved.token_ids)
    metadata = {"format": _FORMAT, "model": saved.model, "rows": f"{rows:012d}", "sha256": digest}
    if saved.windows:
        metadata |= {"format": _WITH_WINDOWS, "windows": json.dumps(saved.windows), "freed": json.dumps(saved.freed)}
    if saved.every:
        metadata |= {
            "format": _WITH_STATES,
            "states": json.dumps(saved.states),
            "every": str(saved.every),
            "rates": str(saved.rates),
        }
    named = {f"{_LABEL}{name}": saved.labels[name] for name in sorted(saved.labels)}
    entries: dict[str, Any] = {"__metadata__": {**metadata, **named}}
    begin = 0
    for name, dtype, shape in layout:
        if dtype not in _DTYPES:
            raise CacheError(f"a KV cache of {dtype} cannot be saved", code="type")
        end = begin + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        entries[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _open(path: Path) -> Any:
    from safetensors import safe_open

    return safe_open(path, framework="pt")


def _prefix(path: Path, file: Any) -> SavedPrefix:
    metadata = file.metadata() or {}
    if metadata.get("format") not in (_FORMAT, _WITH_WINDOWS, _WITH_STATES):
        raise CacheError(
            f"{path} is not a saved KV cache: its content is something else, or of another version", code="foreign"
        )
    tokens = file.get_tensor(_TOKENS)
    if tokens.dtype != torch.int64 or tokens.ndim != 1 or not 0 <= int(metadata["rows"]) <= len(tokens):
        raise CacheError(
            f"{path} is not a saved KV cache: its tokens are {tokens.dtype}, {tuple(tokens.shape)}", code="foreign"
        )
    labels = {name.removeprefix(_LABEL): text for name, text in metadata.items() if name.startswith(_LABEL)}
    windows, freed = json.loads(metadata.get("windows", "[]")), json.loads(metadata.get("freed", "[]"))
    states = tuple(int(each) for each in json.loads(metadata.get("states", "[]")))
    if list(states) != sorted({each for each in states if 0 < each <= int(metadata["rows"])}):
        raise CacheError(f"{path} is not a saved KV cache: it has states behind {states} tokens", code="foreign")
    return SavedPrefix(
        metadata["model"],
        tokens.numpy()[: int(metadata["rows"])].copy(),
        labels,
        tuple(None if each is None else int(each) for each in windows),
        tuple((int(begin), int(end)) for begin, end in freed),
        states,
        int(metadata.get("every", "0")),
        int(metadata.get("rates", "0")),
    )


@contextmanager
def _errors_as_cache_errors(path: Path) -> Iterator[None]:
    """Turn the libraries' errors about a wrong file into `CacheError`."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
        raise CacheError(f"{path} is not a saved KV cache: {error}", code="foreign") from error
