"""The forward pass of a described decoder, in a few large operations that work directly on this package's cache.

A transformers layer makes some forty small calls per token. Each costs microseconds, whatever the model's size. Here a
layer makes a dozen. One matrix product gives query, key and value, and another gives gate and up. Rotary embedding is
applied to queries and keys at once, and weights are stored in the fastest form (`linear.py`). The last layer skips rows
whose logits are not requested.

`families` says what is known of which architecture. `HuggingFaceLM` compares the result with the model's own eager
forward pass before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from rapid_integrations.cache import KVCache, Rows
from rapid_integrations.cache.arena import Arena
from rapid_integrations.config import KVDtype, Quantization
from rapid_integrations.errors import CacheError, SharedResource
from rapid_integrations.kernels.cpu import (
    MAX_ROWS,
    NativeDecoder,
    NativeInputs,
    NativeMatrix,
    native_library,
    native_variant,
    why_not_native,
)
from rapid_integrations.kernels.cpu.matrices import AnyMatrix
from rapid_integrations.kernels.cpu.torchs_threads import on_torchs_threads
from rapid_integrations.kernels.cuda import why_not_cuda
from rapid_integrations.models.alternating import native_streams
from rapid_integrations.models.block_linear import BlockLinear, BlockTable, bits_of
from rapid_integrations.models.cache_layout import CacheLayout
from rapid_integrations.models.decoder_layer import TakenLayer
from rapid_integrations.models.decoder_widths import columns_of, head_dims_of, rank_of
from rapid_integrations.models.description import Decoder, LayerInputs, NotDescribedError, settings_of
from rapid_integrations.models.families import FAMILIES, describe, left_over
from rapid_integrations.models.given_states import wants_last
from rapid_integrations.models.gpu_steps import gpu_steps
from rapid_integrations.models.indexer import TakenIndexer
from rapid_integrations.models.key_balance import PROBE_TOKENS, balance_of, probe_ids, with_queries
from rapid_integrations.models.latent_attention import UpHolder
from rapid_integrations.models.linear import Linear, PlainLinear, make_linear
from rapid_integrations.models.operators_pass import OperatorsPass
from rapid_integrations.models.recurrence import state_shape
from rapid_integrations.models.rotation import Rotations, spread_over_head, turned
from rapid_integrations.models.sparse_attention import BLOCK, DENSE_BLOCKS, STRIDE
from rapid_integrations.models.taken_weights import Linears, Matrices, SharedProducts, empty, fill, lent

if TYPE_CHECKING:
    from rapid_integrations.kernels.cuda.steps import GraphSteps

__all__ = ["FAMILIES", "FusedDecoder"]

HEAD_QUANTIZATION: Final[Quantization] = "int8"


class FusedDecoder(OperatorsPass, SharedResource):
    """Computes the same logits as the model it was built from.

    The decoder takes over the model's matrices. If they are packed or quantised, the model is left without them.
    Otherwise the model keeps views of the fused ones.

    `kernels` says which kernels compute its decode steps, "none (reason)" if PyTorch's operators do.

    Args:
        model: a transformers model that `serves` accepts, or a `Skeleton`.
        quantization: applies to every matrix but the embedding table and routers. The head keeps at least eight bits,
            because four raise SmolLM2's perplexity by 7%.
    """

    def __init__(self, model: Any, quantization: Quantization | None = None) -> None:
        self._described = described = describe(model)
        self._embed: Any = described.embedding
        self._rotations = Rotations(described.rotations, model.device)
        on_gpu = not why_not_cuda(model.device)  # or in the interpreter, for tests
        suits = model.dtype == torch.bfloat16 and model.device.type == "cpu" and not on_gpu
        library = native_library() if suits else None
        native = library is not None and NativeDecoder.serves(
            library, columns_of(described), *head_dims_of(described), rank=rank_of(described)
        )
        native = native and not described.beyond_kernels
        self.kernels = native_variant() if native else f"none ({_why_not_native(model, suits, described)})"
        arena = Arena() if native else None
        shared = SharedProducts()
        self._layers = [
            TakenLayer.of(layer, self._rotations.rope(layer.attends), quantization, arena, shared)
            for layer in described.layers
        ]
        state = state_shape(described.recurrences, model.device)
        self._layout = CacheLayout(described, self._layers, model.dtype, state)
        self._head = self._take_head(quantization, arena)
        self.sparse_prefill: float | None = None
        self._balance: list[Tensor | None] | None = None  # see `key_balance`; of each layer (H + H_kv, D)
        self._native = None
        self._gpu: GraphSteps | None = None
        if on_gpu or model.device.type == "cuda":
            self._gpu, reason = gpu_steps(described, self._layers, self._head, self._rotations.pairs)
            self.kernels = f"none ({reason})" if reason else "triton"
        if library is not None and native:
            self._native = NativeDecoder(
                library,
                [layer.native() for layer in self._layers],
                self._embed.native() if isinstance(self._embed, BlockTable) else self._embed.weight.data,
                described.norm,
                _native_head(self._head),
                heads=described.heads,
                kv_heads=described.kv_heads,
                head_dim=described.head_dim,
                turned=self._rotations.pairs,
                embedding_scale=described.embedding_scale,
                logit_scale=described.logit_scale,
                logit_softcap=described.logit_softcap,
                inputs=_native_inputs(described.inputs),
                streams=None if described.streams is None else native_streams(described.streams),
                positions=None if described.positions is None else described.positions.table,
                embedding_norm=described.embedding_norm,
            )

    @staticmethod
    def serves(model: Any) -> bool:
        """Return whether this decoder can compute every part of the model."""
        if len({parameter.device for parameter in model.parameters()}) != 1:
            return False
        if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
            return False
        try:
            return not left_over(model, describe(model))
        except NotDescribedError:
            return False

    @property
    def layers(self) -> int:
        """The number of layers."""
        return len(self._layers)

    def part(self, layers: Sequence[int]) -> FusedDecoder:
        """Return a decoder of some of the layers, which shares every weight with this one.

        On a GPU it computes with PyTorch's operators, as graphs of steps are captured for whole caches.
        """
        other = object.__new__(FusedDecoder)
        other.__dict__.update(self.__dict__)
        other._layers = [self._layers[each] for each in layers]
        other._layout = replace(self._layout, layers=other._layers)
        other._native = None if self._native is None else self._native.part(layers)
        if other._gpu is not None:
            other._gpu, other.kernels = None, "none (PyTorch's operators read a part of a model)"
        return other

    @property
    def indexers(self) -> list[TakenIndexer]:
        """What chooses the keys that rows see, of the layers that have one."""
        return [layer.indexer for layer in self._layers if layer.indexer is not None]

    def index_scores(self, number: int, normed: Tensor, compressed: Tensor) -> Tensor:
        """Return the scores (T, T) float32 that an indexer gives the keys of a text's first T rows.

        Args:
            number: of the indexer.
            normed, compressed: see `TakenIndexer.rows`.
        """
        indexer, count = self.indexers[number], len(normed)
        cos, sin = (table[:count] for table in self._rotations.tables(count))
        spread = spread_over_head((cos, sin), indexer.rope, indexer.described.dim, normed.dtype)
        new = indexer.rows(normed, compressed, spread)
        return indexer.scores(new, range(count), new.keys[:, 0].float())

    @property
    def windows(self) -> list[int | None]:
        """The number of keys that a query sees in each layer, or of its chunk; None means all."""
        return self._layout.windows

    @property
    def windowed(self) -> tuple[int, int]:
        """The widest window of the layers that free rows, and the bytes of a token's rows in them; zeros: none."""
        return self._layout.windowed

    @property
    def kv_dtype(self) -> KVDtype | None:
        """How new caches store keys and values; None: in the model's dtype."""
        return self._layout.kv_dtype

    @property
    def weight_bytes(self) -> int:
        """Bytes that one decode step reads: the matrices that a row takes, and one row of the embedding table."""
        inputs, streams = self._described.inputs, self._described.streams
        own = sum(layer.step_bytes for layer in self._layers) + self._head.step_bytes
        own += 0 if inputs is None else inputs.projection.weight.nbytes
        return own + (0 if streams is None else sum(each.weight.nbytes for each in (*streams.spread, *streams.merged)))

    @property
    def prompts_together(self) -> bool:
        """Whether a prompt's row has the same bits beside others' rows: not where PyTorch multiplies by heads."""
        return self._native is not None and all(layer.latent is None for layer in self._layers)

    @property
    def switch(self) -> int | None:
        """Capacity in tokens above which a text has other rotations; None: all have the same."""
        return self._rotations.switch

    def settings(self) -> dict[str, Any]:
        """Return what the logits depend on beside the weights and the rotation, as JSON."""
        settings: dict[str, Any] = dict(settings_of(self._described))
        if self.kv_dtype is not None:
            settings["kv_dtype"] = self.kv_dtype
        if self.sparse_prefill is not None:
            settings["sparse_prefill"] = [self.sparse_prefill, BLOCK, STRIDE, DENSE_BLOCKS]
        return settings

    def new_cache(self, capacity: int, variant: int = 0) -> KVCache:
        """Return an empty cache with room for `capacity` tokens."""
        cache = self._layout.empty(capacity, variant)
        cache.sparse_rows = None if self.sparse_prefill is None else 0
        return cache

    def read_prompts_sparsely(self, threshold: float) -> None:
        """Let prompts be read with sparse attention; see `sparse_attention`.

        Raises:
            NotDescribedError: the model does not run on a processor, or a layer's attention is not plain and full.
        """
        if self._embed.weight.device.type != "cpu":
            raise NotDescribedError(f"it runs on {self._embed.weight.device}, and a sparse prefill on the processor")
        kinds = [layer.kind for layer in self._layers]
        limited = any(window is not None for window in self.windows) or not self._described.uniform
        latent = any(layer.latent is not None for layer in self._layers)
        if limited or latent or any(kind.softcap is not None or kind.sinks is not None for kind in kinds):
            raise NotDescribedError(
                "some layers have windows, chunks, sinks, capped scores, latent keys or those of other layers"
            )
        self.sparse_prefill = threshold

    @property
    def _tokens(self) -> int:
        table = self._embed
        return int(table.stored.shape[0] if isinstance(table, BlockTable) else table.weight.shape[0])

    def store_in_eight_bits(self) -> None:
        """Let new caches store their rows in eight bits.

        The model reads a short text first, to learn which dimensions of its keys are large (`levels.balance_of`).
        """
        ids, cache = probe_ids(self._tokens, self._embed.weight.device), self.new_cache(PROBE_TOKENS)
        self._read([Rows(ids, cache, 0, of_prompt=True)])
        cache.advance(len(ids))
        self._balance = [
            None if slot is None else with_queries(balance_of(cache.layer(slot)[0], layer.rope), self._heads_of(layer))
            for slot, layer in zip(self._layout.slots, self._layers, strict=True)
        ]
        self._layout = replace(self._layout, kv_dtype="int8")
        if self._native is not None:
            self._native.store_in_eight_bits(self._balance)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token's keys and values take in all layers, and the keys of indexers."""
        return self._layout.bytes_per_token

    @property
    def state_bytes(self) -> int:
        """Bytes of the recurrent states of all layers behind one position."""
        state = self._layout.state
        return 0 if state is None else state.nbytes

    @property
    def has_parts(self) -> bool:
        """Whether layers may be left out: not if others read their keys, or have inputs by their number.

        Nor if there are indexers, whose keys lie behind those of all layers in a cache.
        """
        return self._described.uniform and not self._described.indexers

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield, one by one, the matrices that the model itself no longer holds, and the rotation of two positions."""
        positions = torch.tensor([1, 8191], device=self._embed.weight.device)
        for long in (False, True) if self.switch else (False,):
            yield f"fused.rotation.{long}", torch.cat(self._rotations.of(positions, long))
        for index, layer in enumerate(self._layers):
            for name, product in layer.products.items():
                yield f"fused.{index}.{name}", bits_of(product)
            if layer.described.scale is not None:
                yield f"fused.{index}.scale", layer.described.scale
            if self._balance is not None and (balance := self._balance[index]) is not None:
                yield f"fused.{index}.balance", balance
        yield "fused.head", bits_of(self._head)
        if isinstance(self._embed, BlockTable):
            yield "fused.embedding", self._embed.stored.raw
            self._embed.stored.release()

    def give_back(self, model: Any) -> None:
        """Fill a copy of the model with the weights that were taken over, with the values used in products here."""
        described = describe(model)
        filled: dict[int, tuple[Any, Any]] = {}  # parameters that several layers share, with those in their place
        for layer, own in zip(self._layers, described.layers, strict=True):
            for product, holder in layer.matrices(own):
                before = holder.weights()
                if not before or any(id(each) not in filled for each in before.values()):
                    holder.fill(product)
                    filled |= {id(each): (each, getattr(*place)) for place, each in before.items()}
        for other in model.modules():
            if isinstance(other, nn.Linear) and id(other.weight) in filled:
                other.weight = filled[id(other.weight)][1]
        fill([described.head], self._head)

    @contextmanager
    def latents_lent(self, model: Any) -> Iterator[None]:
        """Let the model hold the matrices behind latents within the block, which lie in parts here."""
        held: list[tuple[UpHolder, Any]] = []
        if any(layer.latent is not None for layer in self._layers):
            for layer, own in zip(self._layers, describe(model).layers, strict=True):
                for product, holder in layer.matrices(own):
                    if isinstance(holder, UpHolder):
                        held.append((holder, holder.up.weight))
                        holder.fill(product)
        try:
            yield
        finally:
            for holder, weight in held:
                holder.up.weight = weight

    def lend(self, model: Any) -> AbstractContextManager[None]:
        """Let the model itself compute within the block, with the weights as they take part in the products here.

        Each layer has its weights only while it runs, so that little memory is needed.
        """
        described = describe(model)
        parts: list[tuple[nn.Module, Matrices]] = []
        for layer, own, module in zip(self._layers, described.layers, described.modules, strict=True):
            if isinstance(module, tuple):
                parts += zip(module, (layer.mixing_matrices(own), layer.mlp_matrices(own)), strict=True)
            else:
                parts.append((module, layer.matrices(own)))
        return lent([*parts, (described.head, [(self._head, Linears([described.head]))])])

    def forward(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Read further tokens of one or several texts; see `CausalLM.forward`.

        The caches are written, and their lengths left for the caller to advance.

        Raises:
            FloatingPointError: a logit is NaN.
        """
        if len(rows) > 1 and sum(each.count for each in rows) > MAX_ROWS and not any(each.of_prompt for each in rows):
            # A long draft, which target and drafter read: beyond `MAX_ROWS`, a row would not have the bits of a step.
            return [logits for group in _few_together(rows) for logits in self.forward(group)]
        filled = all(each.cache.filled_layers == each.cache.layers for each in rows)
        few = sum(each.count for each in rows) <= MAX_ROWS and not any(each.of_prompt for each in rows)
        if self._described.positions is not None:
            self._require_positions(rows, len(self._described.positions.table))
        if self._gpu is not None and few:
            return self._stepped(self._gpu, rows)
        # The kernels compute nothing of the last layer for rows whose logits nobody wants.
        few = few and all(each.keep == each.count or not wants_last(each) for each in rows)
        if self._native is not None and filled and few:
            return self._native.forward(rows, self._tables(rows))
        with on_torchs_threads():
            logits = self._read(rows)
        for each in rows:
            if each.of_prompt and each.cache.sparse_rows == each.cache.length:
                each.cache.sparse_rows = (each.cache.length + each.count) // BLOCK * BLOCK
        return logits

    def _stepped(self, steps: GraphSteps, rows: Sequence[Rows]) -> list[Tensor]:
        """Read few rows on a GPU: by its kernels, and what they do not serve by operators.

        Those read in a pass of their own: whoever shares a pass with them has the bits that it has alone.
        """
        served = [steps.serves(each) for each in rows]
        if all(served):
            return steps.forward(rows, self._tables(rows))
        others = iter(self._read([each for each, own in zip(rows, served, strict=True) if not own]))
        mine = [each for each, own in zip(rows, served, strict=True) if own]
        logits = iter(steps.forward(mine, self._tables(mine)) if mine else ())
        return [next(logits if own else others) for own in served]

    @staticmethod
    def _require_positions(rows: Sequence[Rows], known: int) -> None:
        for each in rows:
            depth = each.count - 1 if each.parents is None else max(each.depths, default=-1)
            last = each.cache.position + depth
            if last >= known:
                raise CacheError(
                    f"a row has position {last:,}, and the model has learned {known:,}. Read shorter texts: its context"
                    " window says how many tokens there may be"
                )

    @property
    def moves_keys(self) -> bool:
        """Whether cached keys can be moved.

        Not if they were normalised behind their rotation, or rotated by a text's capacity, or if windows free some. Nor
        if there are states, which hold what was read in its order, or if positions are learned, or if indexers choose:
        what a row then has depends on all of the text before it, by a choice and not by a little.
        """
        if self._layout.state is not None or self._described.positions is not None or self._described.indexers:
            return False
        moved_by_rotation = self.switch is None and not any(layer.rope.norm_behind for layer in self._layers)
        return moved_by_rotation and not any(self.windows)

    def shifted(self, layer: int, keys: Tensor, by: int) -> Tensor:
        """Return a layer's keys (1, H_kv, T, D) as they are `by` positions further on; see `MovesKeys`."""
        rope = self._layers[layer].rope
        if by == 0 or not rope.pairs:
            return keys
        cos, sin = self._rotations.tables(abs(by) + 1)
        # Some models scale both tables. A difference of positions must not scale keys once more.
        step = cos[abs(by)][None] / cos[0], sin[abs(by)][None] / cos[0] * (1 if by > 0 else -1)
        spread = spread_over_head(step, rope, keys.shape[-1], torch.float32)
        return turned(keys[0].float(), rope, *spread).to(keys.dtype)[None]

    def _take_head(self, quantization: Quantization | None, arena: Arena | None) -> Linear:
        module = self._described.head
        bias = None if module.bias is None else module.bias.data
        if (stored := getattr(module, "stored", None)) is not None:
            return BlockLinear(stored, bias, arena)
        tied = module.weight is self._embed.weight
        head = make_linear(module.weight.data, bias, quantization and HEAD_QUANTIZATION, arena=arena)
        if isinstance(head, PlainLinear):
            module.weight.data = head.dense()  # this also sets the embedding table if it is tied to the head
        elif not tied:
            empty(module)
        return head


def _few_together(rows: Sequence[Rows]) -> list[list[Rows]]:
    """Return groups of readers, in their order, that want at most `MAX_ROWS` rows; one that wants more is alone."""
    groups: list[list[Rows]] = []
    held = 0
    for each in rows:
        if not groups or held + each.count > MAX_ROWS:
            groups.append([])
            held = 0
        groups[-1].append(each)
        held += each.count
    return groups


def _native_inputs(inputs: LayerInputs | None) -> NativeInputs | None:
    if inputs is None:
        return None
    return NativeInputs(
        inputs.embedding.weight.data,
        NativeMatrix(inputs.projection.weight.data),
        inputs.norm,
        inputs.scale,
        inputs.projection_scale,
        inputs.factor,
    )


def _native_head(head: Linear) -> AnyMatrix:
    matrix = head.native()
    assert matrix is not None  # every weight was made for the kernels
    return matrix


def _why_not_native(model: Any, suits: bool, described: Decoder) -> str:
    if not suits:
        return f"they serve bfloat16 on the processor, not {model.dtype} on {model.device}"
    return why_not_native() or described.beyond_kernels or "its matrices or heads have widths that they do not serve"
