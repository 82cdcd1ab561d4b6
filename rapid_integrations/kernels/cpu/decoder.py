"""The C++ decode step behind Python: structs filled once for a model, pointers passed for each step."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rapid_integrations.cache import Buffers, KVCache, Rows, StatePass
from rapid_integrations.cache.levels import SCALE_BYTES
from rapid_integrations.errors import CacheError, SharedResource
from rapid_integrations.kernels.cpu.interface import KV_BF16, KV_INT8, Layer, Model, Segment, Step
from rapid_integrations.kernels.cpu.interface import Rows as StepRows
from rapid_integrations.kernels.cpu.matrices import AnyMatrix, NativeTable, address_of, matrix_of
from rapid_integrations.kernels.cpu.native_layers import NativeInputs, NativeLayer, NativeStreams
from rapid_integrations.kernels.cpu.scratch import Scratch
from rapid_integrations.kernels.cpu.structs import inputs_struct, layer_struct, norm_struct, streams_struct
from rapid_integrations.kernels.layers import Norm

Addresses: TypeAlias = "ctypes.Array[ctypes.c_void_p]"
Parents: TypeAlias = "ctypes.Array[ctypes.c_int32]"

MAX_ROWS = 32  # beyond it, kernels for many rows are the faster ones
COLUMNS = 32  # every matrix must have a multiple of this many
MAX_COLUMNS = 32768  # rows of numbers lie on the stacks of the kernels' threads
MAX_EXPERTS = 1024
LATENT_COLUMNS, ROTATED_COLUMNS = 64, 32  # latents and rotated keys have multiples of this many numbers, up to 512
HEAD_DIMS = (
    32,
    64,
    96,
    128,
    160,
    192,
    224,
    256,
    512,
)  # of the code for vectors; without, every even number to 512 is served


_NO_TOKEN = 1  # what a step returns if an id is no token's; any other failure is a logit that is NaN


class NativeDecoder(SharedResource):
    """Runs steps of at most `MAX_ROWS` tokens, of one text or of several, on caches in bfloat16 or eight bits.

    Args:
        library: from `native_library`.
        layers: of the model.
        embedding: (V, E) bfloat16, or a table in the blocks of a GGUF file.
        final_norm, head: behind the last layer.
        heads, kv_heads, head_dim: of attention, unless a layer says otherwise.
        turned: columns of the tables of cosines and sines.
        embedding_scale, logit_scale: factors on what comes from the embedding and the head.
        logit_softcap: logits become softcap * tanh(logit / softcap), if this is given.
        inputs: of every layer, if layers have some.
        streams: of states, if layers have several, at most `MAX_STREAMS`.
        positions: (positions, E) bfloat16, learned ones, which are added to embedded rows; None: there are none.
        embedding_norm: of embedded rows, with their positions.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        layers: Sequence[NativeLayer],
        embedding: Tensor | NativeTable,
        final_norm: Norm,
        head: AnyMatrix,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        turned: int,
        embedding_scale: float = 1.0,
        logit_scale: float = 1.0,
        logit_softcap: float | None = None,
        inputs: NativeInputs | None = None,
        streams: NativeStreams | None = None,
        positions: Tensor | None = None,
        embedding_norm: Norm | None = None,
    ) -> None:
        table = embedding if isinstance(embedding, NativeTable) else NativeTable(embedding)
        self._library = library
        self._kept: list[object] = [layers, embedding, final_norm, head, embedding_norm]  # structs hold bare addresses
        shape = heads, kv_heads, head_dim
        self._layers = (Layer * len(layers))(*(layer_struct(layer, *shape, self._kept) for layer in layers))
        self._slots = _count_slots(self._layers, [layer.keys_of for layer in layers])
        self._vocab_size = head.rows
        self._positions = positions
        self._kv = KV_BF16
        self._scratch = Scratch()
        self._addresses: WeakKeyDictionary[Buffers, tuple[Addresses, Addresses]] = WeakKeyDictionary()
        self._segments: WeakKeyDictionary[Buffers, ctypes.Array[Segment]] = WeakKeyDictionary()  # of a tail's cache
        self._model = Model(
            layers=len(layers),
            hidden=head.columns,
            heads=max([heads, *(layer.heads or heads for layer in layers)]),
            intermediate=max((layer.down.columns for layer in layers if layer.down is not None), default=COLUMNS),
            vocabulary=len(table.data),
            turned=turned,
            layer=self._layers,
            final_norm=norm_struct(final_norm),
            head=matrix_of(head),
            embedding=address_of(table.data),
            embedding_kind=table.kind,
            embedding_scale=embedding_scale,
            logit_scale=logit_scale,
            logit_softcap=logit_softcap or 0.0,
            embedding_norm=norm_struct(embedding_norm),
        )
        if inputs is not None:
            filled = inputs_struct(inputs, len(layers))
            self._kept += [inputs, filled]
            self._model.inputs = ctypes.pointer(filled)
        if streams is not None:
            several = streams_struct(streams, self._kept)
            self._kept += [streams, several]
            self._model.streams = ctypes.pointer(several)

    def part(self, layers: Sequence[int]) -> NativeDecoder:
        """Return a decoder of some of the layers, which shares everything else with this one.

        Every layer of it has keys of its own, and none an input.
        """
        other = object.__new__(NativeDecoder)
        other.__dict__.update(self.__dict__)
        other._layers = (Layer * len(layers))(*(self._layers[each] for each in layers))
        other._slots = _count_slots(other._layers, [None] * len(layers))
        other._model = Model.from_buffer_copy(self._model)
        other._model.layers, other._model.layer = len(layers), other._layers
        other._addresses, other._segments = WeakKeyDictionary(), WeakKeyDictionary()
        return other

    @staticmethod
    def serves(library: ctypes.CDLL, columns: Iterable[int], *head_dims: int, rank: int | None = None) -> bool:
        """Whether the kernels take matrices of these widths, and heads of these, or latents of `rank` numbers."""
        if not all(width % COLUMNS == 0 and width <= MAX_COLUMNS for width in columns):
            return False
        if rank is None:
            return all(library.rapid_serves_head_dim(each) for each in head_dims)
        return all(serves_latents(rank, each) for each in head_dims)

    def store_in_eight_bits(self, balance: Sequence[Tensor | None]) -> None:
        """Take caches with rows in eight bits from now on.

        Args:
            balance: for each layer (H + H_kv, D) float32, factors of queries and keys; None: it does not attend.
        """
        self._kv = KV_INT8
        self._kept.append(balance)
        for layer, factors in zip(self._layers, balance, strict=True):
            layer.balance = address_of(factors)

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
        trees = [None if each.parents is None else (ctypes.c_int32 * each.count)(*each.parents) for each in rows]
        asked = (StepRows * len(rows))(*map(self._asked, rows, ids, trees, tables))
        passes = [each.state_pass() for each in rows]
        for done, into in zip(passes, asked, strict=True):
            _say_where_the_state_is(done, into)
        logits = torch.empty(sum(kept), self._vocab_size, dtype=torch.float32, device="cpu")
        threads = torch.get_num_threads()
        step = Step(readers=len(rows), threads=threads, kv=self._kv, reader=asked, logits=logits.data_ptr())
        states = _States(rows, step, self._model.hidden)
        if failed := self._run(step):
            if failed == _NO_TOKEN:
                raise IndexError(
                    f"ids from 0 to {self._model.vocabulary - 1} are tokens, not {[each.tolist() for each in ids]}"
                )
            raise FloatingPointError("NaN among the logits")
        states.hand_over()
        for done in passes:
            if done is not None:
                done.end()
        return [logits] if len(rows) == 1 else list(torch.split(logits, kept))

    def _asked(self, rows: Rows, ids: Tensor, parents: Parents | None, tables: tuple[Tensor, Tensor]) -> StepRows:
        cache, count = rows.cache, rows.count
        segments = self._segments_of(cache, cache.tail(count))
        if not 0 <= rows.keep <= count:
            raise CacheError(f"keep={rows.keep} of {count} rows")
        if rows.parents is not None and any(not -1 <= parent < row for row, parent in enumerate(rows.parents)):
            raise CacheError(f"parents={rows.parents}: each has to come before its child")
        cos, sin = tables
        skipped = cache.position * self._model.turned * cos.element_size()  # bytes
        learned = None
        if (table := self._positions) is not None:
            learned = table.data_ptr() + cache.position * self._model.hidden * table.element_size()
        return StepRows(
            rows=count,
            keep=rows.keep,
            past=cache.length,
            ids=ids.data_ptr(),
            parents=None if parents is None else ctypes.addressof(parents),
            cos=cos.data_ptr() + skipped,
            sin=sin.data_ptr() + skipped,
            learned=learned,
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
            # The stride says it, too, for a part of a buffer (`CacheView`). Without attention there are no rows.
            rows = _rows_apart(each.buffers.layer(0)[0]) if self._slots else cache.capacity
            segment.begin, segment.capacity = each.begin, rows
            # The arrays live as long as the buffers, which the cache holds. Equal addresses mean equal buffers.
            segment.keys, segment.values = ctypes.addressof(keys), ctypes.addressof(values)
        self._segments[tail] = segments
        return segments

    def _addresses_of(self, buffers: Buffers) -> tuple[Addresses, Addresses]:
        if (known := self._addresses.get(buffers)) is not None:
            return known
        layers = [buffers.layer(index) for index in range(len(self._slots))]
        dtype, more = (torch.int8, SCALE_BYTES) if self._kv == KV_INT8 else (torch.bfloat16, 0)
        held = [each for layer in layers for each in layer]
        wanted = [(kv_heads, width) for kv_heads, *widths in self._slots for width in widths]
        for buffer, (kv_heads, width) in zip(held, wanted, strict=True):
            shape = (1, kv_heads, layers[0][0].shape[2], width + more)
            if buffer.shape != shape or buffer.dtype != dtype or buffer.device.type != "cpu":
                raise CacheError(
                    f"the cache holds {tuple(buffer.shape)} in {buffer.dtype} on {buffer.device}, not {shape} in "
                    f"{dtype} on the processor: it is another model's"
                )
        array = ctypes.c_void_p * len(layers)
        keys, values = (array(*(pair[part].data_ptr() for pair in layers)) for part in (0, 1))
        self._addresses[buffers] = keys, values
        return keys, values


class _States:
    """Hidden states that a step gives, too: nothing is allocated if nobody wants any."""

    def __init__(self, rows: Sequence[Rows], step: Step, hidden: int) -> None:
        self._rows = rows
        wanted = [each.wanted_states for each in rows]
        self._levels = sorted({level for each in wanted if each is not None for level in each.levels})
        if self._levels:
            self._states = torch.empty(len(self._levels), sum(each.count for each in rows), hidden)
            self._numbers = (ctypes.c_int32 * len(self._levels))(*self._levels)
            step.levels, step.level = len(self._levels), ctypes.addressof(self._numbers)
            step.states = self._states.data_ptr()

    def hand_over(self) -> None:
        """Give each reader what it wants."""
        begin = 0
        for each in self._rows if self._levels else ():
            if (asked := each.wanted_states) is not None:
                own = self._states[:, begin : begin + each.count]
                each.give(torch.cat([own[self._levels.index(level)] for level in asked.levels], dim=-1))
            begin += each.count


def _say_where_the_state_is(done: StatePass | None, into: StepRows) -> None:
    if done is None:
        return
    assert done.rows is not None, "a step has few rows"
    into.state, into.inputs = done.before.matrices.data_ptr(), done.before.inputs.data_ptr()
    into.record, into.record_apart = done.rows.data_ptr(), done.rows.stride(0)
    into.recorded = done.recorded.shape[1]
    if done.stops:
        (into.settled,), (after,) = done.stops, done.states
        into.state_into, into.inputs_into = after.matrices.data_ptr(), after.inputs.data_ptr()


def _rows_apart(rows: Tensor) -> int:
    """Return how many rows lie between the first ones of two heads, for (1, H_kv, rows, width) or a part of it."""
    return rows.stride(1) // rows.stride(2)


def _on_processor(token_ids: Tensor) -> Tensor:
    if token_ids.dtype == torch.int64 and token_ids.device.type == "cpu" and token_ids.is_contiguous():
        return token_ids
    return token_ids.to("cpu", torch.int64).contiguous()


def serves_latents(rank: int, rotated: int) -> bool:
    """Whether the kernels take latents of `rank` numbers beside keys of `rotated` ones."""
    return rank % LATENT_COLUMNS == 0 and rotated % ROTATED_COLUMNS == 0 and max(rank, rotated) <= 512


def _count_slots(layers: ctypes.Array[Layer], keys_of: Sequence[int | None]) -> list[tuple[int, int, int]]:
    """Say in each struct which of a cache's keys and values it has, or which of its states.

    Returns:
        for each of them how many heads there are, and the numbers of a key and of a value; behind those of all layers,
        the same of indexers.
    """
    slots: list[tuple[int, int, int]] = []
    recurrent = 0
    for layer, source in zip(layers, keys_of, strict=True):
        if layer.recurrence:
            layer.state, recurrent = recurrent, recurrent + 1
            if not layer.recurrence.contents.out.rows:  # in place of an attention
                continue
        if source is not None:
            layer.slot, layer.shares = layers[source].slot, 1
            continue
        layer.slot = len(slots)
        value = layer.latent.contents.rank if layer.latent else layer.head_dim
        slots.append((layer.kv_heads, layer.head_dim, value))
    for layer in layers:  # behind those of all layers, as `FusedDecoder` has them
        if layer.indexer:
            indexer = layer.indexer.contents
            indexer.slot = len(slots)
            slots.append((1, indexer.dim // 2, indexer.dim // 2))
    return slots
