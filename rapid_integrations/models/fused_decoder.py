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
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear

from rapid_integrations.cache import KVCache, LayerRows, Rows
from rapid_integrations.cache.arena import Arena
from rapid_integrations.cache.levels import SCALE_BYTES
from rapid_integrations.config import KVDtype, Quantization
from rapid_integrations.errors import SharedResource
from rapid_integrations.kernels.cpu import (
    MAX_EXPERTS,
    MAX_ROWS,
    NativeDecoder,
    native_library,
    native_variant,
    prefill,
    why_not_native,
)
from rapid_integrations.kernels.cpu.matrices import AnyMatrix
from rapid_integrations.kernels.cpu.torchs_threads import on_torchs_threads
from rapid_integrations.kernels.cuda import why_not_cuda
from rapid_integrations.kernels.layers import Rope
from rapid_integrations.models.attention import attend
from rapid_integrations.models.block_linear import BlockLinear, BlockTable, bits_of
from rapid_integrations.models.decoder_layer import TakenLayer, add_and_norm, grown
from rapid_integrations.models.description import Decoder, Experts, LayerInputs, NotDescribedError, settings_of
from rapid_integrations.models.families import FAMILIES, describe, left_over
from rapid_integrations.models.given_states import GivenStates, wants_last
from rapid_integrations.models.gpu_steps import gpu_steps
from rapid_integrations.models.key_balance import PROBE_TOKENS, balance_of, probe_ids, with_queries
from rapid_integrations.models.linear import Linear, PlainLinear, make_linear
from rapid_integrations.models.norms import normalised
from rapid_integrations.models.not_a_number import numbers
from rapid_integrations.models.rotation import Rotations, Tables, spread_over_head, turned
from rapid_integrations.models.sparse_attention import BLOCK, DENSE_BLOCKS, STRIDE, sparse_attention
from rapid_integrations.models.taken_weights import Linears, empty, fill, lent

if TYPE_CHECKING:
    from rapid_integrations.kernels.cuda.steps import GraphSteps

__all__ = ["FAMILIES", "FusedDecoder"]

Masks: TypeAlias = "dict[Rows, dict[tuple[int | None, int | None], Tensor]]"
Written: TypeAlias = "dict[int, list[list[LayerRows]]]"  # what layers have that others read, by layer and text
"""Of the readers that read trees: for each window and chunk of a layer which keys a row sees."""

HEAD_QUANTIZATION: Final[Quantization] = "int8"


class FusedDecoder(SharedResource):
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
        self._dtype: torch.dtype = model.dtype
        self._rotations = Rotations(described.rotations, model.device)
        on_gpu = not why_not_cuda(model.device)  # or in the interpreter, for tests
        suits = model.dtype == torch.bfloat16 and model.device.type == "cpu" and not on_gpu
        library = native_library() if suits else None
        native = library is not None and NativeDecoder.serves(
            library, columns_of(described), described.head_dim, rank_of(described)
        )
        native = native and not described.beyond_kernels
        self.kernels = native_variant() if native else f"none ({_why_not_native(model, suits, described)})"
        arena = Arena() if native else None
        self._layers = [
            TakenLayer.of(layer, self._rotations.rope(layer.attention), quantization, arena)
            for layer in described.layers
        ]
        self._head = self._take_head(quantization, arena)
        self.kv_dtype: KVDtype | None = None
        self.sparse_prefill: float | None = None
        self._balance: list[Tensor] | None = None  # see `key_balance`; of each layer (H + H_kv, D)
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
        other._native = None if self._native is None else self._native.part(layers)
        if other._gpu is not None:
            other._gpu, other.kernels = None, "none (PyTorch's operators read a part of a model)"
        return other

    @property
    def windows(self) -> list[int | None]:
        """The number of keys that a query sees in each layer, or of its chunk; None means all."""
        attentions = [layer.described.attention for layer in self._layers]
        return [attention.window or attention.kind.chunk for attention in attentions]

    @property
    def weight_bytes(self) -> int:
        """Bytes that one decode step reads: the matrices that a row takes, and one row of the embedding table."""
        return sum(layer.step_bytes for layer in self._layers) + self._head.step_bytes

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
        own = sum(layer.described.attention.keys_of is None for layer in self._layers)
        cache = KVCache(own, capacity, variant, kv_dtype=self.kv_dtype)
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
            with_queries(balance_of(cache.layer(_slot(index, layer))[0], layer.rope), self._described.heads)
            for index, layer in enumerate(self._layers)
        ]
        self.kv_dtype = "int8"
        if self._native is not None:
            self._native.store_in_eight_bits(self._balance)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that one token's keys and values take in all layers."""
        own = [layer for layer in self._layers if layer.described.attention.keys_of is None]
        width, more = (1, SCALE_BYTES) if self.kv_dtype == "int8" else (self._dtype.itemsize, 0)
        total = 0
        for layer in own:
            kv_heads, head_dim = self._shape(layer)
            of_a_value = head_dim if layer.latent is None else layer.latent.described.rank
            total += kv_heads * ((head_dim + of_a_value) * width + 2 * more)
        return total

    @property
    def has_parts(self) -> bool:
        """Whether layers may be left out: not if others read their keys, or have inputs by their number."""
        return self._described.uniform

    def _shape(self, layer: TakenLayer) -> tuple[int, int]:
        """Return how many heads of keys a layer has, and how many numbers each has."""
        own = layer.described.attention
        return own.kv_heads or self._described.kv_heads, own.head_dim or self._described.head_dim

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
            if self._balance is not None:
                yield f"fused.{index}.balance", self._balance[index]
        yield "fused.head", bits_of(self._head)
        if isinstance(self._embed, BlockTable):
            yield "fused.embedding", self._embed.stored.raw
            self._embed.stored.release()

    def give_back(self, model: Any) -> None:
        """Fill a copy of the model with the weights that were taken over, with the values used in products here."""
        described = describe(model)
        for layer, own in zip(self._layers, described.layers, strict=True):
            for product, holder in layer.matrices(own):
                holder.fill(product)
        fill([described.head], self._head)

    def lend(self, model: Any) -> AbstractContextManager[None]:
        """Let the model itself compute within the block, with the weights as they take part in the products here.

        Each layer has its weights only while it runs, so that little memory is needed.
        """
        described = describe(model)
        parts = [
            (module, layer.matrices(own))
            for layer, own, module in zip(self._layers, described.layers, described.modules, strict=True)
        ]
        return lent([*parts, (described.head, [(self._head, Linears([described.head]))])])

    def forward(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Read further tokens of one or several texts; see `CausalLM.forward`.

        The caches are written, and their lengths left for the caller to advance.

        Raises:
            FloatingPointError: a logit is NaN.
        """
        filled = all(each.cache.filled_layers == each.cache.layers for each in rows)
        few = sum(each.count for each in rows) <= MAX_ROWS and not any(each.of_prompt for each in rows)
        # The kernels compute nothing of the last layer for rows whose logits nobody wants.
        few = few and all(each.keep == each.count or not wants_last(each) for each in rows)
        if self._native is not None and filled and few:
            return self._native.forward(rows, self._tables(rows))
        if self._gpu is not None and filled and few and not any(each.wanted_states for each in rows):
            return self._gpu.forward(rows, self._tables(rows))
        with on_torchs_threads():
            logits = self._read(rows)
        for each in rows:
            if each.of_prompt and each.cache.sparse_rows == each.cache.length:
                each.cache.sparse_rows = (each.cache.length + each.count) // BLOCK * BLOCK
        return logits

    def _tables(self, rows: Sequence[Rows]) -> list[Tables]:
        """Return for each reader the cosines and sines of at least its first length + T positions."""
        longest = max(each.cache.position + each.count for each in rows)
        return [self._rotations.tables(longest, self._is_long(each.cache)) for each in rows]

    @staticmethod
    def _is_long(cache: KVCache) -> bool:
        return cache.variant == 1

    @torch.inference_mode()
    def _read(self, rows: Sequence[Rows]) -> list[Tensor]:
        """Do `forward` with PyTorch's products."""
        described = self._described
        counts = [each.count for each in rows]
        # Rows of which the last layer's output is wanted, and those of them whose logits are.
        ended = [each.count if wants_last(each) else each.keep for each in rows]
        kept = [each.keep for each in rows]
        given = GivenStates(rows)
        token_ids = _joined([each.token_ids for each in rows])
        x: Tensor = self._embedded(token_ids)  # (T of all, E)
        inputs = None if described.inputs is None else self._inputs(described.inputs, token_ids, x)
        kernels = self._native is not None and prefill.serves_prefill(x)
        tables = self._tables_of(rows)
        any_latent = any(each.latent is not None for each in self._layers)
        spreads = {} if kernels and not any_latent else self._spread(tables, x.dtype)
        sights = {(each.described.attention.window, each.kind.chunk) for each in self._layers}
        masks = {each: {sight: each.visible(*sight) for sight in sights} for each in rows if each.parents is not None}
        more: Tensor | None = None  # what the layer before adds to x
        factor = 1.0
        # Behind the last layer that has keys of its own, only rows go on that are asked for.
        cut = max(index for index, layer in enumerate(self._layers) if layer.described.attention.keys_of is None)
        if cut + 1 < len(self._layers) and any(each.wanted_states for each in rows):
            ended = counts
        keys_of = (layer.described.attention.keys_of for layer in self._layers)
        written: Written = {each: [] for each in keys_of if each is not None}
        for index, layer in enumerate(self._layers):
            own = layer.described
            x, normed = add_and_norm(x, more, factor, own.before_attention, kernels)
            given.add(index, x)
            factor = own.residual
            first = [each.count - asked if index >= cut else 0 for each, asked in zip(rows, ended, strict=True)]
            qkv = layer.qkv(normed)
            spread = spreads[layer.rope, self._shape(layer)[1]] if spreads else tables
            if layer.latent is not None:
                attended = self._attended_latents(index, qkv, rows, first, spread, masks)
            else:
                attended = self._attended(index, qkv, rows, counts, first, tables, spread, masks, written, kernels)
            if index == cut:
                if not attended:
                    break
                x, normed = (_last_rows(each, counts, ended) for each in (x, normed))
                if index < len(self._layers) - 1:  # others follow, which have no keys of their own
                    inputs = None if inputs is None else _last_rows(inputs, counts, ended)
                    tables = _last_rows(tables[0], counts, ended), _last_rows(tables[1], counts, ended)
                    spreads = {} if kernels else self._spread(tables, x.dtype)
                    counts = ended
            more = layer.out(_joined(attended).reshape(x.shape[0], -1))
            if own.parallel:
                more = more + layer.mixed(normed, kernels)
                continue
            if own.after_attention is not None:
                more = _after(own.after_attention, more, kernels)
            x, normed = add_and_norm(x, more, factor, own.before_mlp, kernels)
            more = layer.mixed(normed, kernels)
            if own.after_mlp is not None:
                more = _after(own.after_mlp, more, kernels)
            if own.input is not None or own.scale is not None:
                x = layer.ended(
                    add_and_norm(x, more, factor, None, kernels)[0], None if inputs is None else inputs[:, index]
                )
                more = None
        else:
            normed = add_and_norm(x, more, factor, described.norm, kernels)[1]
            given.hand_over(torch.split(normed, ended))
            asked_for = normed if ended == kept else _last_rows(normed, ended, kept)
            if len(asked_for):
                return list(
                    torch.split(numbers(self.logits_of(asked_for), check=any(each.check for each in rows)), kept)
                )
            return [x.new_empty(0, 0, dtype=torch.float32) for _ in rows]
        given.hand_over(None)
        return [x.new_empty(0, 0, dtype=torch.float32) for _ in rows]

    def _attended(
        self,
        index: int,
        qkv: Tensor,
        rows: Sequence[Rows],
        counts: list[int],
        first: Sequence[int],
        tables: Tables,
        spread: Tables,
        masks: Masks,
        written: Written,
        kernels: bool,
    ) -> list[Tensor]:
        """Write the rows of a layer's keys and values; return what each text's rows from `first` on attend to.

        What a text attends to is (T, H, D). Texts of which nothing is asked for are left out. `qkv` has `counts` rows
        of them: all, or those from `first` on if the layer reads the keys of another one, which are in `written`.
        """
        layer, heads = self._layers[index], self._described.heads
        attention = layer.described.attention
        kv_heads, head_dim = self._shape(layer)
        if attention.keys_of is not None:
            kv_heads = 0
        qkv = qkv.view(-1, heads + 2 * kv_heads, head_dim)
        qk = layer.queries_and_keys(qkv, heads, kv_heads, tables, spread, kernels)
        values = qkv[:, heads + kv_heads :]
        if attention.value is not None:
            values = normalised(attention.value, values)
        attended = []
        parts = zip(rows, first, torch.split(qk, counts), torch.split(values, counts), strict=True)
        for reader, (each, begin, own_qk, own_v) in enumerate(parts):
            if self._balance is not None:  # powers of two: nothing is rounded
                own_qk = (own_qk * self._balance[index][: own_qk.shape[1]]).to(own_qk.dtype)
            if attention.growth is not None:
                own_qk = grown(own_qk, heads, attention.growth, each)
            by_head = own_qk.transpose(0, 1)[None]  # (1, H + H_kv, T, D)
            if attention.keys_of is None:
                query = by_head[:, :heads, begin:]
                segments = each.cache.write(index, by_head[:, heads:], own_v.transpose(0, 1)[None])
                if index in written:
                    written[index].append(segments)
            else:
                query, segments = by_head, written[attention.keys_of][reader]
            if begin == each.count:
                continue
            if self.sparse_prefill is not None and each.of_prompt and each.parents is None:
                dense = partial(attend, scale=attention.scale, window=None, kind=layer.kind)
                attended.append(sparse_attention(query, segments, attention.scale, self.sparse_prefill, dense)[0])
                continue
            seen = None if each.parents is None else masks[each][attention.window, layer.kind.chunk][begin:]
            attended.append(attend(query, segments, attention.scale, attention.window, layer.kind, seen)[0])
        return attended

    def _attended_latents(
        self, index: int, qkv: Tensor, rows: Sequence[Rows], first: Sequence[int], spread: Tables, masks: Masks
    ) -> list[Tensor]:
        """Do `_attended` for a layer whose attention is latent."""
        layer = self._layers[index]
        assert layer.latent is not None
        balance = None if self._balance is None else self._balance[index]
        new = layer.latent.rows(qkv, layer.rope, spread, balance)
        attended, end = [], 0
        for each, begin in zip(rows, first, strict=True):
            start, end = end, end + each.count
            keys, latents = (part[start:end].transpose(0, 1)[None] for part in (new.keys, new.latents))
            segments = each.cache.write(index, keys, latents)
            if begin < each.count:
                plain, rotated = (part[start + begin : end] for part in (new.plain, new.rotated))
                seen = None if each.parents is None else masks[each][None, None][begin:]
                scale = layer.described.attention.scale
                attended.append(layer.latent.attend(plain, rotated, segments, scale, seen))
        return attended

    def _embedded(self, token_ids: Tensor) -> Tensor:
        rows = self.embedded(token_ids)
        scale = self._described.embedding_scale
        return rows if scale == 1 else rows * scale

    def _inputs(self, described: LayerInputs, token_ids: Tensor, x: Tensor) -> Tensor:
        """Return the inputs of all layers, (T, layers, P), for tokens and their rows (T, E)."""
        rows = (embedding(token_ids, described.embedding.weight) * described.scale).view(len(x), len(self._layers), -1)
        projected = linear(x, described.projection.weight) * described.projection_scale
        return (normalised(described.norm, projected.view(rows.shape)) + rows) * described.factor

    def embedded(self, token_ids: Tensor) -> Tensor:
        """Return tokens' rows of the embedding table, (T, E)."""
        table = self._embed
        rows: Tensor = table(token_ids) if isinstance(table, BlockTable) else embedding(token_ids, table.weight)
        return rows

    def logits_of(self, states: Tensor) -> Tensor:
        """Return what the head makes of states behind the final norm: (T, V) of (T, E)."""
        return self._finished(self._head(states))

    def _finished(self, logits: Tensor) -> Tensor:
        scale, cap = self._described.logit_scale, self._described.logit_softcap
        if scale != 1:
            logits = logits * scale
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _tables_of(self, rows: Sequence[Rows]) -> Tables:
        """Return cosines and sines of every row's position, (T of all, pairs) float32."""
        parts = []
        for each, (cos, sin) in zip(rows, self._tables(rows), strict=True):
            behind = slice(each.cache.position, each.cache.position + each.count)
            own = (cos[behind], sin[behind])
            parts.append(own if each.parents is None else (own[0][each.depths], own[1][each.depths]))
        return _joined([cos for cos, _ in parts]), _joined([sin for _, sin in parts])

    @property
    def moves_keys(self) -> bool:
        """Whether a cached key can be moved: not if it was normalised behind its rotation, or by a text's capacity."""
        return self.switch is None and not any(layer.rope.norm_behind for layer in self._layers)

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

    def _spread(self, tables: Tables, dtype: torch.dtype) -> dict[tuple[Rope, int], Tables]:
        ropes = {(layer.rope, self._shape(layer)[1]) for layer in self._layers}
        return {each: spread_over_head(tables, *each, dtype) for each in ropes}

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


def rank_of(described: Decoder) -> int | None:
    """Return how many numbers the latents of a decoder's attention have; None: it is not latent."""
    latent = described.layers[0].attention.latent
    return None if latent is None else latent.rank


def columns_of(described: Decoder) -> Iterator[int]:
    """Yield the width of every row of numbers that a step computes with."""
    yield described.embedding.weight.shape[1]
    if rank_of(described) is None:
        yield described.heads * described.head_dim
    for layer in described.layers:
        if (latent := layer.attention.latent) is not None:
            yield from (latent.plain, described.heads * latent.value)
            if latent.query_up is not None:
                yield latent.query_up.in_features
        if isinstance(layer.mlp, Experts):
            yield 0 if layer.mlp.router[0].shape[0] <= MAX_EXPERTS else 1  # more of them are not served
            yield layer.mlp.inner
            if layer.mlp.shared is not None:
                yield layer.mlp.shared.down.in_features
        else:
            yield layer.mlp.down.in_features


def _slot(index: int, layer: TakenLayer) -> int:
    """Return which of a cache's keys and values a layer reads."""
    source = layer.described.attention.keys_of
    return index if source is None else source


def _why_not_native(model: Any, suits: bool, described: Decoder) -> str:
    if not suits:
        return f"they serve bfloat16 on the processor, not {model.dtype} on {model.device}"
    return why_not_native() or described.beyond_kernels or "its matrices or heads have widths that they do not serve"


def _native_head(head: Linear) -> AnyMatrix:
    matrix = head.native()
    assert matrix is not None  # every weight was made for the kernels
    return matrix


def _after(norm: Any, more: Tensor, kernels: bool) -> Tensor:
    return prefill.add_and_norm(more, None, norm) if kernels else normalised(norm, more)


def _last_rows(x: Tensor, counts: list[int], kept: list[int]) -> Tensor:
    return _joined([own[len(own) - keep :] for own, keep in zip(torch.split(x, counts), kept, strict=True)])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
