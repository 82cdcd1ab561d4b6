"""A KV cache and its tokens as one safetensors file, with a digest over the whole file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rapid_integrations.cache.kv_cache import KVCache
from rapid_integrations.errors import CacheError

_FORMAT = "rapid-integrations KV cache 2"
_TOKENS = "token_ids"
_LABEL = "label."
_NO_DIGEST = "0" * 64
_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
_DTYPES[torch.int8] = "I8"  # rows of `levels`, and no other

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
    """

    model: str
    token_ids: NDArray[np.int64]
    labels: Mapping[str, str] = field(default_factory=dict)


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
    header = partial(_header, layout, model, cache.length, labels or {})
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
    """Return name, dtype and shape (1, H_kv, length, head_dim) of the tensors in a file, in their order."""
    return [
        (f"{index}.{part}", rows.dtype, (*rows.shape[:2], cache.length, rows.shape[3]))
        for index in range(cache.layers)
        for part, rows in zip(("key", "value"), cache.segments[-1].rows(index), strict=True)
    ]


def _pieces(cache: KVCache) -> Iterator[bytes]:
    """Yield the rows' bytes, a head of a segment at a time, so that little is held twice."""
    for index in range(cache.layers):
        for parts in zip(*(segment.rows(index) for segment in cache.segments), strict=True):
            held = [cache.fetched(rows).view(torch.uint8).numpy()[0] for rows in parts]  # each (H_kv, rows, bytes)
            for head in range(len(held[0])):
                yield from (part[head].tobytes() for part in held)


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
        length: number of rows to load; None loads all.
        device: the device of the cache.

    Raises:
        CacheError: the file is damaged or is not a saved cache, or it holds fewer tokens than `length` or more than
            `capacity`.
    """
    with _errors_as_cache_errors(path), _open(path) as file:
        saved = _prefix(path, file)
        wanted = len(saved.token_ids) if length is None else length
        if wanted > len(saved.token_ids):
            raise CacheError(f"{path} holds {len(saved.token_ids):,} tokens, {wanted:,} were asked for", code="short")
        names = [name for name in file.keys() if name != _TOKENS]  # noqa: SIM118 (no mapping)
        layers = len(names) // 2
        expected = [f"{index}.{part}" for index in range(layers) for part in ("key", "value")]
        if set(names) != set(expected):
            raise CacheError(f"{path} is not a saved KV cache: its content is something else", code="foreign")
        tokens = file.get_tensor(_TOKENS)
        digest = hashlib.sha256(tokens.numpy().tobytes())
        layout: Layout = [(_TOKENS, tokens.dtype, tuple(tokens.shape))]
        stored = {file.get_slice(name).get_dtype() for name in names}
        if "I8" in stored and len(stored) > 1:
            raise CacheError(f"{path} is not a saved KV cache: only some of its rows are in eight bits", code="foreign")
        cache = KVCache(layers, capacity, kv_dtype="int8" if "I8" in stored else None)
        for index in range(layers):
            rows = [file.get_tensor(f"{index}.{part}") for part in ("key", "value")]
            for part, tensor in zip(("key", "value"), rows, strict=True):
                if tensor.ndim != 4 or tensor.shape[0] != 1 or tensor.shape[2] != len(tokens):
                    raise CacheError(
                        f"{path} is not a saved KV cache: {index}.{part} has shape {tuple(tensor.shape)}",
                        code="foreign",
                    )
                digest.update(tensor.view(torch.uint8).numpy().data)
                layout.append((f"{index}.{part}", tensor.dtype, tuple(tensor.shape)))
            cache.write(index, *(tensor[:, :, :wanted].to(device) for tensor in rows))
        metadata = file.metadata()
        digest.update(_header(layout, saved.model, int(metadata["rows"]), saved.labels, _NO_DIGEST))
        if metadata.get("sha256") != digest.hexdigest():
            raise CacheError(
                f"{path} is not a valid saved KV cache: its content does not match its digest, so it is damaged",
                code="foreign",
            )
    cache.advance(wanted)
    return saved, cache


def _header(layout: Layout, model: str, rows: int, labels: Mapping[str, str], digest: str) -> bytes:
    """Return the length and the JSON header of a safetensors file."""
    metadata = {"format": _FORMAT, "model": model, "rows": f"{rows:012d}", "sha256": digest}
    named = {f"{_LABEL}{name}": labels[name] for name in sorted(labels)}
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
    if metadata.get("format") != _FORMAT:
        raise CacheError(
            f"{path} is not a saved KV cache: its content is something else, or of another version", code="foreign"
        )
    tokens = file.get_tensor(_TOKENS)
    if tokens.dtype != torch.int64 or tokens.ndim != 1 or not 0 <= int(metadata["rows"]) <= len(tokens):
        raise CacheError(
            f"{path} is not a saved KV cache: its tokens are {tokens.dtype}, {tuple(tokens.shape)}", code="foreign"
        )
    labels = {name.removeprefix(_LABEL): text for name, text in metadata.items() if name.startswith(_LABEL)}
    return SavedPrefix(metadata["model"], tokens.numpy()[: int(metadata["rows"])].copy(), labels)


@contextmanager
def _errors_as_cache_errors(path: Path) -> Iterator[None]:
    """Turn the libraries' errors about a wrong file into `CacheError`."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, ValueError, TypeError, KeyError, OSError) as error:
        raise CacheError(f"{path} is not a saved KV cache: {error}", code="foreign") from error
