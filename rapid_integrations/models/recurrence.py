"""Gated delta nets, Mamba2, Mamba and RG-LRUs, which keep a state in place of keys and values.

What rows are computed of, convolved and gated by is here, and `state_changes` has what they do to a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, gelu, pad, silu, softplus

from rapid_integrations.cache import StatePass, StateShape
from rapid_integrations.cache.arena import Arena
from rapid_integrations.kernels.cpu import COLUMNS, NativeMatrix, NativeRecurrence, prefill
from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description import GatedUnit, Recurrence, RowsOf, Selection, ShortConvolution, Transposed
from rapid_integrations.models.linear import Linear, PlainLinear, native_matrix
from rapid_integrations.models.norms import normalised
from rapid_integrations.models.short_convolution import shape_of_convolutions
from rapid_integrations.models.state_changes import changed, changed_by_gates, changed_by_number, changed_selectively
from rapid_integrations.models.taken_weights import Linears, Matrices, fuse

_MOST_ROWS = 128  # of a prompt that are computed at a time; a multiple of the chunks of `state_changes`
_STEEPNESS = 8.0  # of the decays of an RG-LRU
_LEAST_SQUARE = 1e-6  # is added to the squared length of queries and keys


@dataclass(frozen=True)
class TakenRecurrence:
    """A recurrence whose weights were taken over; those of its inputs and its output are the layer's.

    Attributes:
        described: the recurrence.
        rates: the product that rates and decays are computed from; None: a Mamba's are computed of convolved values,
            and those of lightning attention are constant.
        taps: (W, C) float32, factors of the convolution.
        decay: (H_v,) float32, factors of softplus(x + bias), below 0; of a Mamba (H_v, D_k, D_v).
        bias: (H_v,) float32, or as the description has it.
        skip, tap_bias: float32 as the description has them, or None.
        decay_up, gate_up: the products behind `rates`, or None.
        low, up: the products of a Mamba's `selection`, or None.
        gates: of an RG-LRU for each block of W channels the product of values' gates and then of decays', (2 W, W).
    """

    described: Recurrence
    rates: Linear | None
    taps: Tensor
    decay: Tensor
    bias: Tensor
    skip: Tensor | None
    tap_bias: Tensor | None
    decay_up: Linear | None = None
    gate_up: Linear | None = None
    low: Linear | None = None
    up: Linear | None = None
    gates: tuple[PlainLinear, ...] = ()

    @classmethod
    def of(cls, recurrence: Recurrence, arena: Arena | None) -> TakenRecurrence:
        """Take the weights from their modules."""
        if recurrence.selection is not None:
            return cls._of_mamba(recurrence, recurrence.selection, arena)
        if recurrence.unit is not None:
            return cls._of_unit(recurrence, recurrence.unit)
        rates, inputs = ({_module(each) for each in part} for part in (recurrence.rates, recurrence.inputs))
        shared = rates & inputs
        taps, tap_bias = recurrence.convolution.detach()[:, 0].float(), _wide(recurrence.convolution_bias)
        if recurrence.order is not None:
            order = recurrence.order.to(taps.device)
            taps, tap_bias = taps[order], None if tap_bias is None else tap_bias[order]
        if any(factor != 1 for factor in recurrence.factors):  # a convolution is linear: they are factors on its taps
            keys, values = (recurrence.key_heads * recurrence.key_dim, recurrence.value_heads * recurrence.value_dim)
            widths = torch.tensor([keys, keys, values], device=taps.device)
            taps = taps * taps.new_tensor(recurrence.factors[:3]).repeat_interleave(widths)[:, None]
        return cls(
            recurrence,
            rates=fuse(recurrence.rates, None, arena, keep=bool(shared), numbers=True) if recurrence.rates else None,
            taps=taps.t().contiguous(),
            tap_bias=tap_bias,
            decay=-recurrence.decay.detach().float().flatten().exp(),
            bias=recurrence.bias.detach().float().contiguous(),
            skip=_wide(recurrence.skip),
            decay_up=None if recurrence.decay_up is None else fuse([recurrence.decay_up], None, arena, numbers=True),
            gate_up=None if recurrence.gate_up is None else fuse([recurrence.gate_up], None, arena, numbers=True),
        )

    @classmethod
    def _of_mamba(cls, recurrence: Recurrence, selection: Selection, arena: Arena | None) -> TakenRecurrence:
        decay = -recurrence.decay.detach().float().exp()  # (C, D_k)
        by_head = decay.view(recurrence.value_heads, recurrence.value_dim, recurrence.key_dim)
        return cls(
            recurrence,
            rates=None,
            taps=recurrence.convolution.detach()[:, 0].float().t().contiguous(),
            tap_bias=_wide(recurrence.convolution_bias),
            decay=by_head.transpose(1, 2).contiguous(),
            bias=recurrence.bias.detach().float().contiguous(),
            skip=_wide(recurrence.skip),
            low=fuse([selection.low], None, arena, numbers=True),
            up=fuse([selection.up], None, arena, biases_apart=True, numbers=True),  # which are float32 here
        )

    @classmethod
    def _of_unit(cls, recurrence: Recurrence, unit: GatedUnit) -> TakenRecurrence:
        weights = torch.cat([each.detach().transpose(1, 2) for each in (unit.values, unit.decays)], dim=1).contiguous()
        biases = torch.cat([unit.values_bias.detach(), recurrence.bias.detach()], dim=1)
        return cls(
            recurrence,
            rates=None,
            taps=recurrence.convolution.detach()[:, 0].float().t().contiguous(),
            tap_bias=_wide(recurrence.convolution_bias),
            decay=-_STEEPNESS * softplus(recurrence.decay.detach().float()),
            bias=recurrence.bias.detach().float().contiguous(),
            skip=None,
            gates=tuple(map(PlainLinear, weights, biases)),
        )

    @property
    def products(self) -> dict[str, Linear]:
        """All products by name."""
        held = {"rates": self.rates, "recurred_decays": self.decay_up, "recurred_gates": self.gate_up}
        held |= {"selected": self.low, "steps": self.up}
        return {name: product for name, product in held.items() if product is not None}

    def matrices(self, described: Recurrence) -> Matrices:
        """Return the products with the modules of `described` whose weights they hold."""
        held: list[tuple[Any, Any]] = [] if self.rates is None else [(self.rates, Linears(described.rates))]
        if (selection := described.selection) is not None:
            return [*held, (self.low, Linears([selection.low])), (self.up, Linears([selection.up]))]
        for product, linear in ((self.decay_up, described.decay_up), (self.gate_up, described.gate_up)):
            if product is not None and linear is not None:
                held.append((product, Linears([linear])))
        return held

    @cached_property
    def native(self) -> NativeRecurrence:
        """Return the recurrence for the kernels; its product was made for them."""
        own = self.described
        low = up = None
        norms: tuple[Norm | None, Norm | None, Norm | None] = (None, None, None)
        if own.selection is not None and self.low is not None and self.up is not None:
            low, norms = native_matrix(self.low), own.selection.norms
            # The kernels take multiples of some columns, which a small model's steps have not.
            up = NativeMatrix(pad(self.up.dense(), (0, -own.selection.rank % COLUMNS)).contiguous())
        return NativeRecurrence(
            gates=[native_matrix(each) for each in self.gates],
            gelu_gates=own.gelu_gates,
            selected=low,
            step_up=up,
            step_norm=norms[0],
            key_norm=norms[1],
            query_norm=norms[2],
            rates=None if self.rates is None else native_matrix(self.rates),
            taps=self.taps,
            decay=self.decay,
            bias=self.bias,
            skip=self.skip,
            channels=own.channels,
            tap_bias=self.tap_bias,
            together=own.together,
            norm=own.norm,
            gates_behind=own.gates_behind,
            gate_factor=own.factors[3],
            rate_factor=own.factors[4],
            least_rate=own.least_rate,
            rate_scale=own.rate_scale,
            sigmoid_gates=own.sigmoid_gates,
            decay_up=None if self.decay_up is None else native_matrix(self.decay_up),
            gate_up=None if self.gate_up is None else native_matrix(self.gate_up),
            factor=own.factor,
            key_heads=own.key_heads,
            value_heads=own.value_heads,
            key_dim=own.key_dim,
            value_dim=own.value_dim,
            tiled=own.tiled,
        )

    def read(self, index: int, inputs: Tensor, rates: Tensor | None, done: StatePass, kernels: bool) -> Tensor:
        """Return what the heads give for the new rows of a text, (T, H_v * D_v), and fill in its pass.

        Args:
            index: number of the recurrence among the model's.
            inputs: (T, C + H_v * D_v), the product's rows, gates behind; with `gate_up` (T, C).
            rates: (T, 2 H_v), (T, H_v), or with `decay_up` what that product and the other one read behind (T, H_v);
                None: it is a Mamba, an RG-LRU or lightning attention.
            done: the pass over this text's state.
            kernels: whether this package's kernels compute it.
        """
        own, recorded = self.described, done.recorded[index]
        given: list[Tensor] = []
        begin, whole = 0, len(recorded) + len(inputs)
        state, before = done.before.matrices[index], done.before.inputs[index]
        for end, after in (*zip(done.stops, done.states, strict=True), (whole, None)):
            into = None if after is None else after.matrices[index]
            while begin < end:
                # Few rows at a time: as float32 they take several times the memory of the product's.
                stop = min(end, begin + _MOST_ROWS)
                old, new = recorded[begin:stop], slice(max(begin - len(recorded), 0), max(stop - len(recorded), 0))
                last = torch.cat([before, old[:, : own.channels]])[len(old) :]
                first = done.of.position + len(recorded) + new.start == 0
                rows, gates = self._rows(inputs[new], None if rates is None else rates[new], last, first)
                if done.rows is not None:
                    done.rows[index, len(recorded) + new.start : len(recorded) + new.stop] = rows
                rows = torch.cat([old, rows]) if len(old) else rows
                if into is None and stop < end:
                    into = torch.empty_like(state)
                if kernels:
                    heads = prefill.recur(self.native, rows, before, state, into)
                    state = state if into is None else into
                else:
                    heads, state = self._by_operators(rows, before, state, into)
                if len(gates):  # some of the rows are new
                    given.append(self._gated(heads[len(old) :], gates, kernels))
                last = torch.cat([before, rows[max(len(rows) - len(before), 0) :, : own.channels]])
                before, begin = last[len(last) - len(before) :], stop
            if after is not None:
                after.inputs[index] = before
        return torch.cat(given)

    def _rows(self, inputs: Tensor, rates: Tensor | None, before: Tensor, first: bool) -> tuple[Tensor, Tensor]:
        """Return what is recorded of rows, (T, C + rates) float32, and their gates, (T, H_v * D_v).

        `before` has what was convolved last before them, (W - 1, C), and `first` says whether a text begins with them.
        """
        own = self.described
        convolved, gates = inputs[:, : own.channels], inputs[:, own.channels :]
        if rates is None:
            raw = convolved.float()
            if self.gates:
                return torch.cat([raw, self._gated_values(raw, before, inputs.dtype, first)], dim=1), gates
            if own.selection is None:
                return raw, gates
            return torch.cat([raw, self._selected(raw, before, inputs.dtype)], dim=1), gates
        parts = [convolved.float(), rates.float()]
        if self.decay_up is not None and self.gate_up is not None:
            low = [own.value_heads, *(each.in_features for each in (own.decay_up, own.gate_up) if each is not None)]
            rates, of_decays, of_gates = torch.split(rates, low, dim=1)
            parts[1:] = [rates.float(), self._decays(self.decay_up(of_decays))]
            gates = self.gate_up(of_gates)
        return torch.cat(parts, dim=1), gates

    def _selected(self, raw: Tensor, before: Tensor, dtype: torch.dtype) -> Tensor:
        """Return steps, keys and queries of a Mamba's rows, (T, C + 2 D_k) float32, of raw ones (T, C); see `_rows`."""
        own, selection = self.described, self.described.selection
        assert selection is not None and self.low is not None and self.up is not None
        if not len(raw):
            return raw.new_empty(0, own.recorded_rates)
        low = self.low(self._convolved(raw, before).to(dtype))
        parts = torch.split(low, [selection.rank, own.key_dim, own.key_dim], dim=1)
        steps, key, query = (normalised(norm, part) for norm, part in zip(selection.norms, parts, strict=True))
        return torch.cat([softplus(self.up(steps.contiguous()).float() + self.bias), key.float(), query.float()], dim=1)

    def _gated_values(self, raw: Tensor, before: Tensor, dtype: torch.dtype, first: bool) -> Tensor:
        """Return decays of an RG-LRU's rows and what is added to the state, (T, 2 C) float32; see `_selected`."""
        if not len(raw):
            return raw.new_empty(0, self.described.recorded_rates)
        values = self._convolved(raw, before)
        blocks = values.to(dtype).chunk(len(self.gates), dim=1)
        # Block by block: a row of PyTorch's products of many matrices at once has other bits in other company.
        found = [gate(block.contiguous()) for gate, block in zip(self.gates, blocks, strict=True)]
        gates = torch.sigmoid(torch.stack(found, dim=1).float())  # (T, blocks, 2 W)
        of_values, of_decays = (each.flatten(1) for each in gates.chunk(2, dim=2))
        log = self.decay * of_decays
        kept, share = log.exp(), (-torch.expm1(2 * log)).sqrt()
        if first:
            kept[0], share[0] = 0, 1
        return torch.cat([kept, values * of_values * share], dim=1)

    def _convolved(self, raw: Tensor, before: Tensor) -> Tensor:
        """Return convolved rows, (T, C), of raw ones (T, C) and those before them (W - 1, C), of a Mamba their SiLU."""
        joined = torch.cat([before, raw])
        sums = torch.zeros_like(raw) if self.tap_bias is None else self.tap_bias.expand_as(raw)
        for tap, factors in enumerate(self.taps):  # in one order for every row: it has the same bits in any company
            sums = sums + factors * joined[tap : tap + len(raw)]
        return silu(sums) if not self.gates else sums

    def _gated(self, heads: Tensor, gates: Tensor, kernels: bool) -> Tensor:
        """Return what heads give, (T, H_v, D_v), with their gates and the norm, (T, H_v * D_v)."""
        if kernels:
            return prefill.gate_heads(self.native, heads, gates)
        return gated(self.described, heads, gates.reshape(heads.shape)).to(gates.dtype).flatten(1)

    def _decays(self, x: Tensor) -> Tensor:
        """Return the decay of each number of a key, (T, H_v * D_k) float32."""
        heads = self.described.value_heads
        steps = softplus(x.float() + self.bias).view(len(x), heads, self.described.key_dim)
        return (self.decay[:, None] * steps).exp().flatten(1)

    def _by_operators(self, rows: Tensor, before: Tensor, state: Tensor, into: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what heads give, (T, H_v, D_v) float32, and the state behind it, which is written to `into`.

        Args:
            rows: (T, C + 2 H_v) float32; of Mamba2 (T, C + H_v) or, with constant rates, (T, C), with `decay_up`
                (T, C + H_v + H_v * D_k), and of a Mamba (T, 2 C + 2 D_k), of an RG-LRU (T, 3 C).
            before: (W - 1, C), what was convolved before them.
            state: (H_v, D_k, D_v).
            into: where the new state goes; None: it is not wanted.
        """
        own = self.described
        raw, rates = rows[:, : own.channels], rows[:, own.channels :]
        if own.selection is not None and self.skip is not None:
            values = self._convolved(raw, before)
            given, state = changed_selectively(values, rates, self.decay, state)
            if into is not None:
                into.copy_(state)
            return (given + self.skip * values).view(len(rows), own.value_heads, own.value_dim), state
        if self.gates:
            kept, added = rates.chunk(2, dim=1)
            given, state = changed_by_gates(kept, added, state)
            if into is not None:
                into.copy_(state)
            return given.view(len(rows), own.value_heads, own.value_dim), state
        if raw.device.type == "cpu":
            joined = torch.cat([before, raw]).t()[None]
            convolved = silu(conv1d(joined, self.taps.t()[:, None], self.tap_bias, groups=own.channels)[0].t())
        else:  # a GPU's library may round to fewer bits, and in another way for other numbers of rows
            convolved = self._convolved(raw, before)
        width = own.key_heads * own.key_dim
        query, key, value = torch.tensor_split(convolved, [width, 2 * width], dim=1)
        served = own.value_heads // own.key_heads
        heads = (each.reshape(-1, own.key_heads, own.key_dim) for each in (query, key))
        repeated = (each.repeat(1, served, 1) if own.tiled else each.repeat_interleave(served, dim=1) for each in heads)
        query, key = (each.transpose(0, 1) for each in repeated)
        value = value.reshape(-1, own.value_heads, own.value_dim).transpose(0, 1)
        if self.rates is None:  # every token adds its value, and decays are constant
            steps = self.decay.new_ones(own.value_heads, len(rows))
            log_decay = self.decay[:, None] * steps
        elif own.decay_up is None:
            steps = softplus(rates[:, -own.value_heads :] * own.factors[4] + self.bias).t()
            if own.least_rate:
                steps = steps.clamp(min=own.least_rate)
            log_decay = self.decay[:, None] * steps
        if self.skip is not None:
            given, state = changed(query, key, value, log_decay, steps, state, delta=False)
            given = given + self.skip[:, None, None] * value
        else:
            query, key = _of_length_1(query) * own.key_dim**-0.5, _of_length_1(key)
            rate = own.rate_scale * torch.sigmoid(rates[:, : own.value_heads]).t()
            if own.decay_up is None:
                given, state = changed(query, key, value, log_decay, rate, state, delta=True)
            else:
                kept = rates[:, own.value_heads :].view(len(rates), own.value_heads, -1).transpose(0, 1)
                given, state = changed_by_number(query, key, value, kept, rate, state)
        if into is not None:
            into.copy_(state)
        return given.transpose(0, 1), state


def gated(own: Recurrence, heads: Tensor, gates: Tensor) -> Tensor:
    """Return what heads give, (T, H, D) float32, with their gates (T, H, D) and the norm."""
    wide = gates.float() * own.factors[3]
    if own.gelu_gates:
        factors = gelu(wide, approximate="tanh")
    else:
        factors = torch.sigmoid(wide) if own.sigmoid_gates else silu(wide)
    if own.norm is None:
        return heads * factors
    if own.skip is None:
        return normalised(replace(own.norm, weight=_wide(own.norm.weight)), heads) * factors
    rows = (heads if own.gates_behind else heads * factors).reshape(len(heads), -1, own.together)
    whole = normalised(replace(own.norm, weight=None), rows).flatten(1)
    whole = whole if own.norm.weight is None else whole * own.norm.weight.float()
    return whole * factors.flatten(1) if own.gates_behind else whole


def state_shape(recurrences: Sequence[Recurrence | ShortConvolution], device: torch.device) -> StateShape | None:
    """Return the shape of a model's state, which is that of its first recurrence; None: no layer has one."""
    if not recurrences:
        return None
    own = recurrences[0]
    if isinstance(own, ShortConvolution):
        return shape_of_convolutions(len(recurrences), own, device)
    return StateShape(
        layers=len(recurrences),
        heads=own.value_heads,
        key_dim=own.key_dim,
        value_dim=own.value_dim,
        channels=own.channels,
        rates=own.recorded_rates,
        taps=own.convolution.shape[-1],
        device=device,
    )


def _wide(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.detach().float().contiguous()


def _module(rows: nn.Linear | RowsOf | Transposed) -> Any:
    return rows.module if isinstance(rows, (RowsOf, Transposed)) else rows


def _of_length_1(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + _LEAST_SQUARE)
