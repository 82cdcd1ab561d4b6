"""A forward pass of a described decoder with PyTorch's products: of any rows, on any device, in any dtype.

It is the reference of the kernels. Prompts are read by it, too, with kernels for norms, rotations and attention where
those serve.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import embedding, softplus

from rapid_integrations.cache import KVCache, LayerRows, Rows, StatePass
from rapid_integrations.kernels.cpu import NativeDecoder, alternation, prefill
from rapid_integrations.kernels.layers import Rope
from rapid_integrations.models import alternating
from rapid_integrations.models.attention import attend
from rapid_integrations.models.block_linear import BlockTable
from rapid_integrations.models.cache_layout import CacheLayout
from rapid_integrations.models.decoder_layer import TakenLayer
from rapid_integrations.models.description import Attention, Decoder, LayerInputs
from rapid_integrations.models.given_states import GivenStates, wants_last
from rapid_integrations.models.indexer import Choice, IndexRows, TakenIndexer
from rapid_integrations.models.linear import Linear, PlainLinear
from rapid_integrations.models.norms import add_and_norm, normalised, normed_rows
from rapid_integrations.models.not_a_number import numbers
from rapid_integrations.models.recurrence import TakenRecurrence
from rapid_integrations.models.rotation import Rotations, Tables, grown, spread_over_head
from rapid_integrations.models.short_convolution import TakenConvolution
from rapid_integrations.models.sparse_attention import sparse_attention

_ROOT_OF_2 = 2**0.5

Masks: TypeAlias = "dict[Rows, dict[tuple[int | None, int | None], Tensor]]"
Written: TypeAlias = "dict[int, list[list[LayerRows]]]"  # what layers have that others read, by layer and text
"""Of the readers that read trees: for each window and chunk of a layer which keys a row sees."""


class OperatorsPass:
    """What of a decoder reads rows with PyTorch's products. `FusedDecoder` fills its parts in.

    Attributes:
        sparse_prefill: the threshold of the attention with which prompts are read, None if it is dense.
    """

    sparse_prefill: float | None
    _described: Decoder
    _layers: list[TakenLayer]
    _layout: CacheLayout
    _embed: Any
    _head: Linear
    _rotations: Rotations
    _balance: list[Tensor | None] | None  # see `key_balance`; of each layer (H + H_kv, D)
    _native: NativeDecoder | None

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
        x: Tensor = self._embedded(token_ids, rows)  # (T of all, E)
        inputs = None if described.inputs is None else self._inputs(described.inputs, token_ids, x)
        kernels = self._native is not None and prefill.serves_prefill(x)
        tables = self._tables_of(rows)
        any_latent = any(each.latent is not None for each in self._layers)
        spreads = {} if kernels and not any_latent else self._spread(tables, x.dtype)
        sights = {(each.attention.window, each.kind.chunk) for each in self._layers if each.attends}
        masks = {each: {sight: each.visible(*sight) for sight in sights} for each in rows if each.parents is not None}
        paths = described.streams
        streams = x[None] if paths is None else alternating.spread(paths, x)
        more: Tensor | None = None  # what the layer before adds to x
        aside: Tensor | None = None  # and what only the next layer reads
        embedded = x.clone() if any(each.described.with_embedding for each in self._layers) else x
        factor = 1.0
        # Behind the last layer that has keys or a state of its own, only rows go on that are asked for.
        cut = max(index for index, layer in enumerate(self._layers) if layer.slot or layer.recurrence is not None)
        if cut + 1 < len(self._layers) and any(each.wanted_states for each in rows):
            ended = counts
        keys_of = (layer.attention.keys_of for layer in self._layers if layer.attends)
        written: Written = {each: [] for each in keys_of if each is not None}
        choices: dict[int, list[Choice]] = {}  # by layer and text
        recurrent = 0
        states = [each.state_pass() for each in rows]
        for index, layer in enumerate(self._layers):
            own = layer.described
            if paths is not None and own.alternation is not None:
                if kernels and layer.alternation is not None:
                    streams = alternation.predicted(layer.alternation, paths.active, streams)
                else:
                    streams = alternating.predicted(own.alternation, paths.active, streams)
                x = streams[paths.active]
            if own.with_embedding or aside is not None:
                x, _ = add_and_norm(x, more, factor, None, kernels)
                read = torch.cat([x, embedded], dim=1) if own.with_embedding else x
                read = read if aside is None else read + aside
                normed = read if own.before_attention is None else normed_rows(own.before_attention, read, kernels)
                more = aside = None
            else:
                x, normed = add_and_norm(x, more, factor, own.before_attention, kernels)
            given.add(index, x)
            factor = own.residual
            if (sums := own.normed_sums) is not None:
                x, factor = normed * sums.attention[0], sums.attention[1]
            first = [each.count - asked if index >= cut else 0 for each, asked in zip(rows, ended, strict=True)]
            qkv = layer.projected(normed)
            spread = spreads[layer.rope, self._layout.shape(layer)[1]] if spreads and layer.attends else tables
            recurred, attended = None, None
            if layer.recurrence is not None:
                own_rows = layer.attention_rows
                behind = qkv[:, own_rows:]
                recurred = _recurred(layer.recurrence, recurrent, behind, normed, states, counts, first, kernels)
                recurrent += 1
                qkv = qkv[:, :own_rows]
            if layer.latent is not None:
                attended = self._attended_latents(index, qkv, normed, rows, first, spread, spreads, masks, choices)
            elif layer.attends:
                attended = self._attended(index, qkv, rows, counts, first, tables, spread, masks, written, kernels)
            if index == cut:
                if not (recurred or attended):
                    break
                x, normed = (_last_rows(each, counts, ended) for each in (x, normed))
                if paths is not None:
                    streams = torch.stack([_last_rows(each, counts, ended) for each in streams])
                inputs = None if inputs is None else _last_rows(inputs, counts, ended)
                if index < len(self._layers) - 1:  # others follow, which have no keys of their own
                    tables = _last_rows(tables[0], counts, ended), _last_rows(tables[1], counts, ended)
                    spreads = {} if kernels else self._spread(tables, x.dtype)
                    counts = ended
            more = layer.given(*(None if each is None else _joined(each).flatten(1) for each in (attended, recurred)))
            if layer.aside is not None:
                aside, more = layer.given_aside(more, kernels), None
                continue
            if own.parallel:
                if own.norms_apart and own.before_mlp is not None:
                    normed = normed_rows(own.before_mlp, x, kernels)
                more = more + layer.mixed(normed, x, kernels)
                continue
            if own.after_attention is not None:
                more = normed_rows(own.after_attention, more, kernels)
            if own.laurel is not None:
                x, more = (x + more + alternating.augmented(own.laurel, normed, kernels)) / _ROOT_OF_2, None
            if own.mlp is None:
                continue
            x, normed = add_and_norm(x, more, factor, own.before_mlp, kernels)
            if sums is not None:
                x, factor = normed * sums.mlp[0], sums.mlp[1]
            more = layer.mixed(normed, x, kernels)
            if own.after_mlp is not None:
                more = normed_rows(own.after_mlp, more, kernels)
            if paths is not None:
                assert inputs is not None
                streams, more = self._updated(layer, streams, x + more, inputs[:, index], kernels), None
            elif own.input is not None or own.scale is not None:
                x = layer.ended(
                    add_and_norm(x, more, factor, None, kernels)[0], None if inputs is None else inputs[:, index]
                )
                more = None
        else:
            if paths is not None:
                x = alternating.merged(paths, streams)
            normed = add_and_norm(x, more, factor, described.norm, kernels)[1]
            given.hand_over(torch.split(normed, ended))
            asked_for = normed if ended == kept else _last_rows(normed, ended, kept)
            if len(asked_for):
                logits = numbers(self.logits_of(asked_for), check=any(each.check for each in rows))
                _end(states)
                return list(torch.split(logits, kept))
            _end(states)
            return [x.new_empty(0, 0, dtype=torch.float32) for _ in rows]
        given.hand_over(None)
        _end(states)
        return [x.new_empty(0, 0, dtype=torch.float32) for _ in rows]

    def _updated(self, layer: TakenLayer, guesses: Tensor, x: Tensor, given: Tensor, kernels: bool) -> Tensor:
        """Return the streams (n, T, E) behind a layer that has computed the active one, and meets its own input."""
        own, described = layer.described.alternation, self._described.streams
        assert own is not None and described is not None
        if kernels and layer.alternation is not None:
            streams, scaled = alternation.corrected(layer.alternation, described.active, guesses, x)
            streams[1:] += layer.of_input(scaled, given, kernels)
            return streams
        streams = alternating.corrected(own, described.active, guesses, x)
        active = streams[described.active]
        added = layer.of_input(active if own.output is None else active * own.output, given)
        return torch.cat([streams[:1], streams[1:] + added])

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
        layer = self._layers[index]
        attention, slot, heads = layer.attention, self._layout.slots[index], self._heads_of(layer)
        assert slot is not None
        kv_heads, head_dim = self._layout.shape(layer)
        if attention.keys_of is not None:
            kv_heads = 0
        width = (heads + 2 * kv_heads) * head_dim
        qkv, gates = qkv[:, :width].view(-1, heads + 2 * kv_heads, head_dim), qkv[:, width:]
        qk = layer.queries_and_keys(qkv, heads, kv_heads, tables, spread, kernels)
        values = qkv[:, heads + kv_heads :]
        if attention.value is not None:
            values = normalised(attention.value, values)
        attended = []
        split = (torch.split(each, counts) for each in (qk, values, gates))
        for reader, (each, begin, own_qk, own_v, own_gates) in enumerate(zip(rows, first, *split, strict=True)):
            if self._balance is not None:  # powers of two: nothing is rounded
                balance = self._balance[index]
                assert balance is not None
                own_qk = (own_qk * balance[: own_qk.shape[1]]).to(own_qk.dtype)
            if attention.growth is not None:
                own_qk = grown(own_qk, heads, attention.growth, each)
            by_head = own_qk.transpose(0, 1)[None]  # (1, H + H_kv, T, D)
            if attention.keys_of is None:
                query = by_head[:, :heads, begin:]
                segments = each.cache.write(slot, by_head[:, heads:], own_v.transpose(0, 1)[None])
                if index in written:
                    written[index].append(segments)
            else:
                query, segments = by_head, written[attention.keys_of][reader]
            if begin == each.count:
                continue
            if self.sparse_prefill is not None and each.of_prompt and each.parents is None:
                dense = partial(attend, scale=attention.scale, window=None, kind=layer.kind)
                mixed = sparse_attention(query, segments, attention.scale, self.sparse_prefill, dense)[0]
            else:
                seen = None if each.parents is None else masks[each][attention.window, layer.kind.chunk][begin:]
                mixed = attend(query, segments, attention.scale, attention.window, layer.kind, seen)[0]
            attended.append(gated_heads(mixed, own_gates[begin:], attention) if attention.gated else mixed)
        return attended

    def _attended_latents(
        self,
        index: int,
        qkv: Tensor,
        normed: Tensor,
        rows: Sequence[Rows],
        first: Sequence[int],
        spread: Tables,
        spreads: dict[tuple[Rope, int], Tables],
        masks: Masks,
        choices: dict[int, list[Choice]],
    ) -> list[Tensor]:
        """Do `_attended` for a layer whose attention is latent. What its indexer chooses is put into `choices`."""
        layer = self._layers[index]
        slot = self._layout.slots[index]
        assert layer.latent is not None and slot is not None
        balance = None if self._balance is None else self._balance[index]
        index_spread = None if layer.indexer is None else spreads[layer.indexer.rope, layer.indexer.described.dim]
        new = layer.latent.rows(qkv, layer.rope, spread, balance, normed, index_spread)
        if layer.indexer is not None and new.index is not None:
            choices[index] = self._choices(index, layer.indexer, new.index, rows, first)
        chosen = choices.get(index if layer.choice_of is None else layer.choice_of)
        attended, end = [], 0
        for reader, (each, begin) in enumerate(zip(rows, first, strict=True)):
            start, end = end, end + each.count
            keys, latents = (part[start:end].transpose(0, 1)[None] for part in (new.keys, new.latents))
            segments = each.cache.write(slot, keys, latents)
            if begin < each.count:
                plain, rotated = (part[start:end] for part in (new.plain, new.rotated))
                if (growth := layer.attention.growth) is not None:
                    plain, rotated = (grown(part, part.shape[1], growth, each) for part in (plain, rotated))
                plain, rotated = plain[begin:], rotated[begin:]
                seen = None if each.parents is None else masks[each][None, None][begin:]
                scale = layer.attention.scale
                if chosen is None:
                    attended.append(layer.latent.attend(plain, rotated, segments, scale, seen))
                else:
                    choice = chosen[reader].behind(begin)
                    attended.append(layer.latent.attend_chosen(plain, rotated, segments, scale, seen, choice))
        return attended

    def _choices(
        self, index: int, indexer: TakenIndexer, new: IndexRows, rows: Sequence[Rows], first: Sequence[int]
    ) -> list[Choice]:
        """Write the rows of an indexer's keys; return which keys each text's rows see, those from `first` on."""
        slot = self._layout.index_slots[index]
        assert slot is not None
        halves, choices, end = new.halves, [], 0
        for each, begin in zip(rows, first, strict=True):
            start, end = end, end + each.count
            segments = each.cache.write(slot, *(half[start:end].transpose(0, 1)[None] for half in halves))
            own = IndexRows(*(part[start:end] for part in (new.queries, new.keys, new.weights)))
            choices.append(indexer.choice(own, segments, each.parents, begin))
        return choices

    def _embedded(self, token_ids: Tensor, readers: Sequence[Rows]) -> Tensor:
        described = self._described
        rows = self.embedded(token_ids)
        rows = rows if described.embedding_scale == 1 else rows * described.embedding_scale
        if described.positions is not None:
            rows = rows + embedding(_positions_of(readers), described.positions.table)
        return rows if described.embedding_norm is None else normalised(described.embedding_norm, rows)

    def _inputs(self, described: LayerInputs, token_ids: Tensor, x: Tensor) -> Tensor:
        """Return the inputs of all layers, (T, layers, P), for tokens and their rows (T, E)."""
        token_ids = token_ids.where(token_ids < len(described.embedding.weight), 0)  # the table may be the shorter one
        rows = (embedding(token_ids, described.embedding.weight) * described.scale).view(len(x), len(self._layers), -1)
        projected = PlainLinear(described.projection.weight.data)(x) * described.projection_scale
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
            if each.parents is not None:
                own = (own[0].index_select(0, each.depths_there), own[1].index_select(0, each.depths_there))
            parts.append(own)
        return _joined([cos for cos, _ in parts]), _joined([sin for _, sin in parts])

    def _heads_of(self, layer: TakenLayer) -> int:
        """Return how many heads of queries a layer has."""
        return layer.attention.heads or self._described.heads

    def _spread(self, tables: Tables, dtype: torch.dtype) -> dict[tuple[Rope, int], Tables]:
        ropes = {(layer.rope, self._layout.shape(layer)[1]) for layer in self._layers if layer.attends}
        indexers = (layer.indexer for layer in self._layers)
        ropes |= {(each.rope, each.described.dim) for each in indexers if each is not None}
        return {each: spread_over_head(tables, *each, dtype) for each in ropes}


def gated_heads(mixed: Tensor, gates: Tensor, attention: Attention) -> Tensor:
    """Return what heads give, (T, H, D), times their gates, of (T, H) or (T, H * D)."""
    factors = softplus(gates.float()).to(gates.dtype) if attention.softplus_gates else torch.sigmoid(gates)
    return mixed * factors.view(len(mixed), mixed.shape[1], -1)


def _recurred(
    recurrence: TakenRecurrence | TakenConvolution,
    index: int,
    inputs: Tensor,
    normed: Tensor,
    passes: Sequence[StatePass | None],
    counts: list[int],
    first: Sequence[int],
    kernels: bool,
) -> list[Tensor]:
    """Return what each text's rows from `first` on get from a recurrence; texts without such rows are left out."""
    given = []
    rates = None if recurrence.rates is None else torch.split(recurrence.rates(normed), counts)
    parts = zip(torch.split(inputs, counts), rates or [None] * len(counts), passes, first, strict=True)
    for own, own_rates, done, begin in parts:
        assert done is not None
        heads = recurrence.read(index, own, own_rates, done, kernels)[begin:]
        given += [heads] if len(heads) else []
    return given


def _positions_of(readers: Sequence[Rows]) -> Tensor:
    """Return the position of every row, (T of all,) int64."""
    return _joined([own.depths_there + own.cache.position for own in readers])


def _end(passes: Sequence[StatePass | None]) -> None:
    for each in passes:
        if each is not None:
            each.end()


def _last_rows(x: Tensor, counts: list[int], kept: list[int]) -> Tensor:
    return _joined([own[len(own) - keep :] for own, keep in zip(torch.split(x, counts), kept, strict=True)])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
