"""The C++ decode step behind Python: structs filled once for a model, pointers passed for each step."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rapid_integrations.cache import Buffers, KVCache, Rows
from rapid_integrations.errors import CacheError, SharedResource
from rapid_integrations.kernels.cpu.interface import Layer, Model, Segment, Step
from rapid_integrations.kernels.cpu.interface import Rows as StepRows
from rapid_integrations.kernels.cpu.matrices import AnyMatrix, NativeTable, address_of, matrix_of
from rapid_integrations.kernels.cpu.scratch import Scratch

Addresses: TypeAlias = "ctypes.Array[ctypes.c_void_p]"
Parents: TypeAlias = "ctypes.Array[ctypes.c_int32]"

MAX_ROWS = 32  # beyond it, kernels for many rows are the faster ones
COLUMNS = 32  # every matrix must have a multiple of this many


@dataclass(frozen=True)
class NativeLayer:
    """One decoder layer. Norm weights are bfloat16; `window` is None where a query sees everything."""

    qkv: AnyMatrix
    out: AnyMatrix
    gate_up: AnyMatrix
    down: AnyMatrix
    attention_norm: Tensor
    attention_eps: float
    mlp_norm: Tensor
    mlp_eps: float
    q_norm: Tensor | None
    k_norm: Tensor | None
    qk_eps: float
    scale: float
    window: int | None


_NO_TOKEN = 1  # what a step returns if an id is no token's; any other failure is a logit that is NaN


class NativeDecoder(SharedResource):
    """Runs steps of at most `MAX_ROWS` tokens, of one text or of several, on bfloat16 caches.

    Args:
        library: from `native_library`.
        layers: of the model.
        embedding: (V, E) bfloat16, or a table in the blocks of a GGUF file.
        final_norm, final_eps, head: behind the last layer.
        heads, kv_heads, head_dim: of attention.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        layers: Sequence[NativeLayer],
        embedding: Tensor | NativeTable,
        final_norm: Tensor,
        final_eps: float,
        head: AnyMatrix,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
    ) -> None:
        table = embedding if isinstance(embedding, NativeTable) else NativeTable(embedding)
        self._library = library
        self._kept = (layers, embedding, final_norm, head)  # the structs hold bare addresses
        self._layers = (Layer * len(layers))(*map(_layer, layers))
        self._vocab_size = head.rows
        self._scratch = Scratch()
        self._addresses: WeakKeyDictionary[Buffers, tuple[Addresses, Addresses]] = WeakKeyDictionary()
        self._segments: WeakKeyDictionary[Buffers, ctypes.Array[Segment]] = WeakKeyDictionary()  # of a tail's cache
        self._model = Model(
            layers=len(layers),
            hidden=layers[0].qkv.columns,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate=layers[0].down.columns,
            layer=self._layers,
            final_norm=address_of(final_norm),
            final_eps=final_eps,
            vocabulary=len(table.data),
            head=matrix_of(head),
            embedding=address_of(table.data),
            embedding_kind=table.kind,
        )

    @staticmethod
    def serves(library: ctypes.CDLL, columns: Iterable[int], head_dim: int) -> bool:
        """Whether the kernels take matrices of these widths, and heads of this one."""
        return bool(library.rapid_serves_head_dim(head_dim)) and all(width % COLUMNS == 0 for width in columns)

    def forward(self, rows: Sequence[Rows], cos: Tensor, sin: Tensor) -> list[Tensor]:
        """Write each reader's rows to its cache, whose length is left for the caller to advance.

        Args:
            rows: of one or several readers; every cache has been filled by an earlier forward pass.
            cos, sin: (at least every length + T, D) float32, of positions from 0 on; the first half of sin negated.

        Returns:
            for each reader (keep, V) float32.

        Raises:
            FloatingPointError: NaN among the logits.
            IndexError: an id is no token's.
            MemoryError: there is no space for what is computed on the way.
        """
        kept = [each.keep for each in rows]
        ids = [_on_processor(each.token_ids) for each in rows]  # held until the step has run
        trees = [None if each.parents is None else (ctypes.c_int32 * each.count)(*each.parents) for each in rows]
        asked = (StepRows * len(rows))(*(self._asked(*each, cos, sin) for each in zip(rows, ids, trees, strict=True)))
        logits = torch.empty(sum(kept), self._vocab_size, dtype=torch.float32, device="cpu")
        step = Step(readers=len(rows), threads=torch.get_num_threads(), reader=asked, logits=logits.data_ptr())
        if failed := self._run(step):
            if failed == _NO_TOKEN:
                raise IndexError(
                    f"ids from 0 to {self._model.vocabulary - 1} are tokens, not {[each.tolist() for each in ids]}"
                )
            raise FloatingPointError("NaN among the logits")
        return [logits] if len(rows) == 1 else list(torch.split(logits, kept))

    def _asked(self, rows: Rows, ids: Tensor, parents: Parents | None, cos: Tensor, sin: Tensor) -> StepRows:
        cache, count = rows.cache, rows.count
        segments = self._segments_of(cache, cache.tail(count))
        if not 0 <= rows.keep <= count:
            raise CacheError(f"keep={rows.keep} of {count} rows")
        if rows.parents is not None and any(not -1 <= parent < row for row, parent in enumerate(rows.parents)):
            raise CacheError(f"parents={rows.parents}: each has to come before its child")
        skipped = cache.length * self._model.head_dim * cos.element_size()  # bytes
        return StepRows(
            rows=count,
            keep=rows.keep,
            past=cache.length,
            ids=ids.data_ptr(),
            parents=None if parents is None else ctypes.addressof(parents),
            cos=cos.data_ptr() + skipped,
            sin=sin.data_ptr() + skipped,
            segments=len(segments),
            segment=segments,
        )

    def _run(self, step: Step) -> int:
        model, call = ctypes.byref(self._model), ctypes.byref(step)
        space = self._scratch.take(self._library.rapid_step_floats(model, call))
        step.scratch = space.data_ptr()
        failed: int = self._library.rapid_decode_step(model, call)
        self._scratch.give_back(space)
        return failed

    def _segments_of(self, cache: KVCache, tail: Buffers) -> ctypes.Array[Segment]:
        """Return where the rows of a cache lie; looked up once, since a step is short.

        Raises:
            CacheError: for what bare addresses would not forgive.
        """
        if (known := self._segments.get(tail)) is not None:
            return known
        segments = (Segment * (len(cache.shared) + 1))()
        for each, segment in zip(cache.segments, segments, strict=True):
            keys, values = self._addresses_of(each.buffers)
            segment.begin, segment.capacity = each.begin, each.buffers.layer(0)[0].shape[2]
            # The arrays live as long as the buffers, which the cache holds. Equal addresses mean equal buffers.
            segment.keys, segment.values = ctypes.addressof(keys), ctypes.addressof(values)
        self._segments[tail] = segments
        return segments

    def _addresses_of(self, buffers: Buffers) -> tuple[Addresses, Addresses]:
        if (known := self._addresses.get(buffers)) is not None:
            return known
        layers = [buffers.layer(index) for index in range(self._model.layers)]
        shape = (1, self._model.kv_heads, layers[0][0].shape[2], self._model.head_dim)
        for buffer in (each for layer in layers for each in layer):
            if buffer.shape != shape or buffer.dtype != torch.bfloat16 or buffer.device.type != "cpu":
                raise CacheError(
                    f"the cache holds {tuple(buffer.shape)} in {buffer.dtype} on {buffer.device}, not {shape} in "
                    "torch.bfloat16 on the processor: it is another model's"
                )
        array = ctypes.c_void_p * len(layers)
        keys, values = (array(*(buffer.data_ptr() for buffer in part)) for part in zip(*layers, strict=True))
        self._addresses[buffers] = keys, values
        return keys, values


def _on_processor(token_ids: Tensor) -> Tensor:
    if token_ids.dtype == torch.int64 and token_ids.device.type == "cpu" and token_ids.is_contiguous():
        return token_ids
    return token_ids.to("cpu", torch.int64).contiguous()


def _layer(layer: NativeLayer) -> Layer:
    return Layer(
        **{name: matrix_of(getattr(layer, name)) for name in ("qkv", "out", "gate_up", "down")},
        **{name: address_of(getattr(layer, name)) for name in ("attention_norm", "mlp_norm", "q_norm", "k_norm")},
        **{name: getattr(layer, name) for name in ("attention_eps", "mlp_eps", "qk_eps", "scale")},
        window=layer.window or 0,
    )
