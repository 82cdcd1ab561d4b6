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
from rapid_integrations.kernels.cpu.interface import Experts, Layer, Matrix, Model, Segment, Sight, Step
from rapid_integrations.kernels.cpu.interface import Norm as NormStruct
from rapid_integrations.kernels.cpu.interface import Rope as RopeStruct
from rapid_integrations.kernels.cpu.interface import Rows as StepRows
from rapid_integrations.kernels.cpu.panels import GROUP, PANEL_ROWS, kind_of
from rapid_integrations.kernels.cpu.scratch import Scratch
from rapid_integrations.kernels.layers import (
    ACTIVATIONS,
    NORM_SCOPES,
    PLAIN,
    Activation,
    AttentionKind,
    Norm,
    Rope,
    Routing,
)

Addresses: TypeAlias = "ctypes.Array[ctypes.c_void_p]"

MAX_ROWS = 32  # beyond it, kernels for many rows are the faster ones
COLUMNS = 32  # every matrix must have a multiple of this many
MAX_COLUMNS = 32768  # rows of numbers lie on the stacks of the kernels' threads
MAX_EXPERTS = 1024
HEAD_DIMS = (32, 64, 96, 128, 256)  # that the code for AVX-512 serves; other processors serve every even number to 512
_BF16 = 0


@dataclass(frozen=True)
class NativeMatrix:
    """A weight (O, K) as the kernels read it.

    `data` is bfloat16 (O, K), or uint8 (O / 16, K / 32, bytes of a group): panels of eight or four bits (`panels.py`).
    `scale` is bfloat16 (O,) for eight bits, and None otherwise. `bias` is (O,) bfloat16 or None.
    """

    data: Tensor
    scale: Tensor | None = None
    bias: Tensor | None = None

    @property
    def rows(self) -> int:
        """O."""
        if self.scale is not None:
            return self.scale.shape[0]  # the last panel may be filled up
        return self.data.shape[0] * (PANEL_ROWS if self.kind else 1)

    @property
    def columns(self) -> int:
        """K."""
        return self.data.shape[1] * (GROUP if self.kind else 1)

    @property
    def kind(self) -> int:
        """What it is called in interface.h."""
        return kind_of(self.data) if self.data.dtype == torch.uint8 else _BF16


@dataclass(frozen=True)
class NativeExperts:
    """The experts of a layer, the shared one last.

    `router` is (N, E), with the shared expert's gate as its last row if it has one.
    """

    routing: Routing
    router: NativeMatrix
    gate_up: Sequence[NativeMatrix]
    down: Sequence[NativeMatrix]


@dataclass(frozen=True)
class NativeLayer:
    """One decoder layer. Weights and biases of norms are bfloat16.

    `gate_up` and `down` are None if the layer has `experts`. `window` is None if a query sees everything.
    """

    qkv: NativeMatrix
    out: NativeMatrix
    before_attention: Norm | None
    before_mlp: Norm | None
    rope: Rope
    scale: float
    gate_up: NativeMatrix | None = None
    down: NativeMatrix | None = None
    experts: NativeExperts | None = None
    after_attention: Norm | None = None
    after_mlp: Norm | None = None
    query: Norm | None = None
    key: Norm | None = None
    window: int | None = None
    kind: AttentionKind = PLAIN
    activation: Activation = "silu"
    gated: bool = True
    parallel: bool = False
    residual: float = 1.0


_NO_TOKEN = 1  # what a step returns if an id is no token's; any other failure is a logit that is NaN


class NativeDecoder(SharedResource):
    """Runs steps of at most `MAX_ROWS` tokens, of one text or of several, on bfloat16 caches.

    Args:
        library: from `native_library`.
        layers: of the model.
        embedding: (V, E) bfloat16.
        final_norm, head: behind the last layer.
        heads, kv_heads, head_dim: of attention.
        turned: columns of the tables of cosines and sines.
        embedding_scale, logit_scale: factors on what comes from the embedding and the head.
        logit_softcap: logits become softcap * tanh(logit / softcap), if this is given.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        layers: Sequence[NativeLayer],
        embedding: Tensor,
        final_norm: Norm,
        head: NativeMatrix,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        turned: int,
        embedding_scale: float = 1.0,
        logit_scale: float = 1.0,
        logit_softcap: float | None = None,
    ) -> None:
        self._library = library
        self._kept: list[object] = [layers, embedding, final_norm, head]  # the structs hold bare addresses
        self._layers = (Layer * len(layers))(*(_layer(layer, self._kept) for layer in layers))
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
            intermediate=max((layer.down.columns for layer in layers if layer.down is not None), default=COLUMNS),
            vocabulary=embedding.shape[0],
            turned=turned,
            layer=self._layers,
            final_norm=norm_struct(final_norm),
            head=_matrix(head),
            embedding=_address(embedding),
            embedding_scale=embedding_scale,
            logit_scale=logit_scale,
            logit_softcap=logit_softcap or 0.0,
        )

    @staticmethod
    def serves(library: ctypes.CDLL, columns: Iterable[int], head_dim: int) -> bool:
        """Whether the kernels take matrices of these widths, and heads of this one."""
        fit = all(width % COLUMNS == 0 and width <= MAX_COLUMNS for width in columns)
        return bool(library.rapid_serves_head_dim(head_dim)) and fit

    def forward(self, rows: Sequence[Rows], tables: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Write each reader's rows to its cache, whose length is left for the caller to advance.

        Args:
            rows: of one or several readers; every cache has been filled by an earlier forward pass.
            tables: cosines and sines, for each reader (at least its length + T, pairs) float32, of positions from 0 on.

        Returns:
            for each reader (keep, V) float32.

        Raises:
            FloatingPointError: NaN among the logits.
            IndexError: an id is no token's.
            MemoryError: there is no space for what is computed on the way.
        """
        kept = [each.keep for each in rows]
        ids = [_on_processor(each.token_ids) for each in rows]  # held until the step has run
        asked = (StepRows * len(rows))(*map(self._asked, rows, ids, tables))
        logits = torch.empty(sum(kept), self._vocab_size, dtype=torch.float32, device="cpu")
        step = Step(readers=len(rows), threads=torch.get_num_threads(), reader=asked, logits=logits.data_ptr())
        if failed := self._run(step):
            if failed == _NO_TOKEN:
                raise IndexError(
                    f"ids from 0 to {self._model.vocabulary - 1} are tokens, not {[each.tolist() for each in ids]}"
                )
            raise FloatingPointError("NaN among the logits")
        return [logits] if len(rows) == 1 else list(torch.split(logits, kept))

    def _asked(self, rows: Rows, ids: Tensor, tables: tuple[Tensor, Tensor]) -> StepRows:
        cache, count = rows.cache, rows.count
        segments = self._segments_of(cache, cache.tail(count))
        if not 0 <= rows.keep <= count:
            raise CacheError(f"keep={rows.keep} of {count} rows")
        cos, sin = tables
        skipped = cache.length * self._model.turned * cos.element_size()  # bytes
        return StepRows(
            rows=count,
            keep=rows.keep,
            past=cache.length,
            ids=ids.data_ptr(),
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


def _address(tensor: Tensor | None) -> int | None:
    if tensor is None:
        return None
    assert tensor.is_contiguous()
    return tensor.data_ptr()


def _matrix(matrix: NativeMatrix) -> Matrix:
    return Matrix(
        kind=matrix.kind,
        rows=matrix.rows,
        columns=matrix.columns,
        **{name: _address(getattr(matrix, name)) for name in ("data", "scale", "bias")},
    )


def norm_struct(norm: Norm | None) -> NormStruct:
    """Return a norm as the kernels read it. It holds the addresses of the weights."""
    if norm is None:
        return NormStruct()
    return NormStruct(
        kind=2 if norm.centred else 1,
        scope=NORM_SCOPES.index(norm.scope),
        eps=norm.eps,
        offset=norm.offset,
        weight=_address(norm.weight),
        bias=_address(norm.bias),
    )


def rope_struct(rope: Rope) -> RopeStruct:
    """Return a rotation as the kernels read it."""
    return RopeStruct(**vars(rope))


def sight_struct(scale: float, window: int | None, kind: AttentionKind) -> Sight:
    """Return what a query sees, as the kernels read it."""
    return Sight(window=window or 0, chunk=kind.chunk or 0, scale=scale, softcap=kind.softcap or 0.0)


_NORMS = ("before_attention", "after_attention", "before_mlp", "after_mlp", "query", "key")


def _layer(layer: NativeLayer, kept: list[object]) -> Layer:
    """Return the struct of a layer. What it points to is put into `kept`."""
    filled = Layer(
        qkv=_matrix(layer.qkv),
        out=_matrix(layer.out),
        **{name: norm_struct(getattr(layer, name)) for name in _NORMS},
        rope=rope_struct(layer.rope),
        sight=sight_struct(layer.scale, layer.window, layer.kind),
        sinks=_address(layer.kind.sinks),
        activation=ACTIVATIONS.index(layer.activation),
        gated=layer.gated,
        parallel=layer.parallel,
        residual=layer.residual,
    )
    if layer.gate_up is not None and layer.down is not None:
        filled.gate_up, filled.down = _matrix(layer.gate_up), _matrix(layer.down)
    if layer.experts is not None:
        experts = _experts(layer.experts, kept)
        kept.append(experts)
        filled.experts = ctypes.pointer(experts)
    return filled


def _experts(experts: NativeExperts, kept: list[object]) -> Experts:
    routing, count = experts.routing, len(experts.gate_up)
    gate_up, down = ((Matrix * count)(*map(_matrix, part)) for part in (experts.gate_up, experts.down))
    kept += [gate_up, down]
    return Experts(
        count=count - routing.shared,
        taken=routing.taken,
        routing=routing.sigmoid,
        normalised=routing.normalised,
        groups=routing.groups,
        groups_taken=routing.groups_taken,
        widest=max(matrix.columns for matrix in experts.down),
        shared=(2 if routing.shared_gate else 1) if routing.shared else 0,
        scale=routing.scale,
        router=_matrix(experts.router),
        correction=_address(routing.correction),
        gate_up=gate_up,
        down=down,
    )
