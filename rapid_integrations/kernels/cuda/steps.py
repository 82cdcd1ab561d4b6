"""A decode step as one graph over static buffers, which serves every length, cache and company of readers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rapid_integrations.cache import Rows
from rapid_integrations.cache.hidden_states import LAST
from rapid_integrations.errors import SharedResource
from rapid_integrations.kernels.cuda.attention import attend
from rapid_integrations.kernels.cuda.gate import gate
from rapid_integrations.kernels.cuda.graph import Graph, Step, graph_of
from rapid_integrations.kernels.cuda.norms import add_norm, embed
from rapid_integrations.kernels.cuda.places import MAX_ROWS, Places, chunks_of, holds
from rapid_integrations.kernels.cuda.rotary import rotate_and_write
from rapid_integrations.kernels.cuda.step_layer import StepLayer, StepModel

_LEAST_CHUNKS = 32  # 8,192 tokens
_PROGRAMS_ON_PROCESSOR = 3  # so that a program of the interpreter has more than one piece of work


class GraphSteps(SharedResource):
    """Runs steps of at most `rows` rows, of one text or of several.

    A step is captured when it is first asked for. It is captured anew only if a text is longer than the space for
    partial results of its attention, which then doubles, if there are more caches than addresses, or if hidden states
    are wanted that nobody has wanted before.

    Args:
        model: that `why_not_served` has nothing to say of.
        make_graph: makes a graph of a step.
        rows: that every step has.
        tile_rows: rows of queries that a program of the attention takes at once, so many for each token as query heads
            share a key/value head. None: 64 on a GPU, which are the rows of its tensor cores.
    """

    def __init__(
        self,
        model: StepModel,
        make_graph: Callable[[Step, torch.device], Graph] = graph_of,
        rows: int = MAX_ROWS,
        tile_rows: int | None = None,
    ) -> None:
        self._model, self._make_graph = model, make_graph
        table = model.embedding
        self._device = table.device
        group = model.heads // model.kv_heads
        self._tile_rows = tile_rows or (64 if self._device.type == "cuda" else 16)
        self._programs = _PROGRAMS_ON_PROCESSOR
        if self._device.type == "cuda":
            processors = torch.cuda.get_device_properties(self._device).multi_processor_count
            self._programs = -(-2 * processors // model.kv_heads)
        self._places = Places(len(model.layers), model.kv_heads, model.head_dim, group, self._tile_rows, table, rows)
        self._x = table.new_zeros(rows, table.shape[1])
        self._normed = torch.zeros_like(self._x)
        self._attended = table.new_zeros(rows, model.heads * model.head_dim)
        self._mixed, self._log_sums = self._partial_space(_LEAST_CHUNKS)
        self._logits: Tensor | None = None
        self._graph: Graph | None = None
        self._states: dict[int, Tensor] = {}  # of each level that somebody has wanted, all rows (R, E)
        self._captured_for: tuple[int, ...] = ()
        self.captures = 0
        self._stepping = threading.Lock()  # engines may share a model, and each has a thread of its own

    @staticmethod
    def serves(rows: Rows) -> bool:
        """Return whether a step reads these rows: not the first ones of a text, nor those of some views."""
        return rows.cache.filled_layers == rows.cache.layers and holds(rows.cache)

    def forward(self, rows: Sequence[Rows], tables: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Write each reader's rows to its cache, whose length is left for the caller to advance.

        Args:
            rows: of one or several readers; every cache has been filled by an earlier forward pass.
            tables: cosines and sines, for each reader (at least its length + T, pairs) float32, of positions from 0 on.

        Returns:
            for each reader (keep, V) float32.

        Raises:
            CacheError: rows that do not fit, or another model's cache.
            FloatingPointError: NaN among the logits, or an id that is no token's.
            IndexError: an id that lies on the processor is no token's.
        """
        self._check_ids(rows)
        with torch.inference_mode(), self._stepping:
            self._places.fill(rows, tables)
            self._make_room_for_states(rows)
            self._ready().replay()
            assert self._logits is not None  # the step has just written them
            kept, end = [], 0
            for each in rows:
                begin, end = end, end + each.count
                kept.append(self._logits[end - each.keep : end])
                if (asked := each.wanted_states) is not None:
                    each.give(torch.cat([self._states[level][begin:end] for level in asked.levels], dim=1))
            logits = torch.cat(kept)  # a copy: the next step overwrites them
        if any(each.check for each in rows) and bool(logits.isnan().any()):  # the one wait for the device
            raise FloatingPointError("NaN among the logits")
        return list(torch.split(logits, [each.keep for each in rows]))

    def _ready(self) -> Graph:
        """Return the graph, captured anew if something has outgrown its static buffers."""
        if (chunks := chunks_of(self._places.longest)) > self._log_sums.shape[2]:
            self._mixed, self._log_sums = self._partial_space(max(chunks, 2 * self._log_sums.shape[2]))
        buffers = self._log_sums.shape[2], len(self._places.capacities), *self._states
        if self._graph is None or buffers != self._captured_for:
            self._graph = None  # its memory is free before the next one takes its own
            self._graph = self._make_graph(self._step, self._device)
            self._captured_for = buffers
            self.captures += 1
        return self._graph

    def _make_room_for_states(self, rows: Sequence[Rows]) -> None:
        for level in (level for each in rows if (asked := each.wanted_states) for level in asked.levels):
            if level not in self._states:
                self._states[level] = torch.zeros_like(self._x)

    def _partial_space(self, chunks: int) -> tuple[Tensor, Tensor]:
        rows, heads, dim = self._places.rows, self._model.heads, self._model.head_dim
        mixed = torch.empty(rows, heads, chunks, dim, dtype=torch.float32, device=self._device)
        return mixed, torch.empty(rows, heads, chunks, dtype=torch.float32, device=self._device)

    def _check_ids(self, rows: Sequence[Rows]) -> None:
        count = self._model.embedding.shape[0]
        for each in rows:
            ids = each.token_ids
            if ids.device.type == "cpu" and not bool(((ids >= 0) & (ids < count)).all()):
                raise IndexError(f"ids from 0 to {count - 1} are tokens, not {ids.tolist()}")

    def _step(self) -> None:
        """Compute all rows; reads and writes static buffers, and leaves them alike if it is done again."""
        model, ids = self._model, self._places.parts.ids
        x = embed(ids, model.embedding, model.embedding_scale, self._x)
        more: Tensor | None = None  # what the layer before adds to x
        factor = 1.0
        for index, layer in enumerate(model.layers):
            normed = add_norm(x, more, factor, layer.before_attention, self._normed)
            if index in self._states:
                self._states[index].copy_(x)
            factor = layer.residual
            more = layer.out(self._attend(index, layer, layer.qkv(normed)))
            if layer.parallel:
                more = more + self._mlp(layer, normed)
                continue
            if layer.after_attention is not None:
                more = add_norm(more, None, 1.0, layer.after_attention, more)
            normed = add_norm(x, more, factor, layer.before_mlp, self._normed)
            more = self._mlp(layer, normed)
            if layer.after_mlp is not None:
                more = add_norm(more, None, 1.0, layer.after_mlp, more)
        normed = add_norm(x, more, factor, model.final_norm, self._normed)
        if LAST in self._states:
            self._states[LAST].copy_(normed)
        logits = model.head(normed).float()
        if model.logit_scale != 1:
            logits = logits * model.logit_scale
        if model.logit_softcap is not None:
            logits = model.logit_softcap * torch.tanh(logits / model.logit_softcap)
        if self._logits is None or self._logits.shape != logits.shape:
            self._logits = torch.empty_like(logits)
        self._logits.copy_(logits)

    def _attend(self, index: int, layer: StepLayer, qkv: Tensor) -> Tensor:
        model, places = self._model, self._places
        norms = layer.query, layer.key
        rotate_and_write(qkv, places, index, norms, layer.rope, model.heads, model.kv_heads, model.pairs)
        return attend(
            qkv,
            places,
            index,
            layer.scale,
            layer.window,
            layer.kind,
            model.heads,
            model.kv_heads,
            self._mixed,
            self._log_sums,
            self._attended,
            tile_rows=self._tile_rows,
            programs=self._programs,
        )

    @staticmethod
    def _mlp(layer: StepLayer, normed: Tensor) -> Tensor:
        return layer.down(gate(layer.gate_up(normed), layer.activation, layer.gated))
