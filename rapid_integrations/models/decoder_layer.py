"""One layer of a described decoder: its weights as products, and what PyTorch's operators compute with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rapid_integrations.cache.arena import Arena
from rapid_integrations.config import Quantization
from rapid_integrations.kernels.cpu import NativeAlternation, NativeInput, NativeLayer, prefill
from rapid_integrations.kernels.layers import PLAIN, Activation, AttentionKind, Rope, Xielu
from rapid_integrations.models.activation import activate
from rapid_integrations.models.adapter import TakenAdapter
from rapid_integrations.models.alternating import native_alternation, native_laurel, quantile, thinned
from rapid_integrations.models.description import Attention, Layer, Mlp, Recurrence, ShortConvolution
from rapid_integrations.models.experts import TakenExperts
from rapid_integrations.models.indexer import TakenIndexer
from rapid_integrations.models.latent_attention import TakenLatent
from rapid_integrations.models.linear import Linear, native_matrix
from rapid_integrations.models.norms import normalised_heads, normed_rows
from rapid_integrations.models.recurrence import TakenRecurrence
from rapid_integrations.models.rotation import Tables, turned
from rapid_integrations.models.short_convolution import TakenConvolution
from rapid_integrations.models.taken_weights import Linears, Matrices, SharedProducts, StackHolder, fuse


@dataclass(frozen=True)
class TakenLayer:
    """A layer whose weights were taken over.

    Attributes:
        described: the layer.
        rope: how its heads are rotated.
        qkv, out: products of the attention, or of what stands in its place. `qkv` has behind them the inputs of a
            recurrence beside the attention.
        mlp: the products of an MLP, gate and up first, or the experts in its place; None: there is neither.
        latent: what latent attention has beside these; None: it is another one.
        input: the products of an input of its own, the gate first.
        beside: experts beside the MLP.
        recurrence: what stands in the place of an attention or beside it; None: nothing does.
        recurred_out: the product behind a recurrence beside the attention.
        aside: the product of what a layer gives that gives nothing to the sum.
        adapters: beside `qkv` and beside the first product of the MLP.
    """

    described: Layer
    rope: Rope
    qkv: Linear
    out: Linear
    mlp: tuple[Linear, Linear] | TakenExperts | None
    latent: TakenLatent | None = None
    input: tuple[Linear, Linear] | None = None
    beside: TakenExperts | None = None
    recurrence: TakenRecurrence | TakenConvolution | None = None
    recurred_out: Linear | None = None
    aside: Linear | None = None
    adapters: tuple[TakenAdapter | None, TakenAdapter | None] = (None, None)

    @classmethod
    def of(
        cls,
        layer: Layer,
        rope: Rope,
        quantization: Quantization | None,
        arena: Arena | None,
        shared: SharedProducts | None = None,
    ) -> TakenLayer:
        """Take the weights of a layer from its modules. `shared`: those that other layers have, too."""
        attention, mlp, recurs = layer.attention, layer.mlp, layer.recurs
        if layer.aside is not None:
            assert isinstance(attention, Attention) and isinstance(mlp, Mlp)
            known = shared or SharedProducts()
            return cls(
                layer,
                rope,
                known.fuse(attention.qkv, quantization, arena),
                known.fuse((attention.out,), quantization, arena),
                (known.fuse(mlp.gate_up, quantization, arena), known.fuse((mlp.down,), quantization, arena)),
                aside=fuse([layer.aside], quantization, arena),
                adapters=(TakenAdapter.of(attention.adapter, arena), TakenAdapter.of(mlp.adapter, arena)),
            )
        recurrence: TakenRecurrence | TakenConvolution | None = None
        latent = own = recurred_out = None
        if isinstance(recurs, Recurrence):  # before its inputs, which may be rows of the same matrix as its rates
            recurrence = TakenRecurrence.of(recurs, arena)
        elif isinstance(recurs, ShortConvolution):
            recurrence = TakenConvolution.of(recurs)
        qkv, out = fuse(layer.inputs, quantization, arena), fuse([attention.out], quantization, arena)
        if layer.recurrence is not None:
            recurred_out = fuse([layer.recurrence.out], quantization, arena)
        if isinstance(attention, Attention) and attention.latent is not None:
            latent = TakenLatent.of(attention.latent, rope, quantization, arena)
        if layer.input is not None:
            own = fuse([layer.input.gate], quantization, arena), fuse([layer.input.projection], quantization, arena)
        if isinstance(mlp, Mlp):
            pair = fuse(mlp.gate_up, quantization, arena), fuse([mlp.down], quantization, arena)
            beside = None if layer.beside is None else TakenExperts.of(layer.beside, quantization, arena)
            return cls(layer, rope, qkv, out, pair, latent, own, beside, recurrence, recurred_out)
        experts = None if mlp is None else TakenExperts.of(mlp, quantization, arena)
        return cls(layer, rope, qkv, out, experts, latent, own, None, recurrence, recurred_out)

    @property
    def attends(self) -> bool:
        """Whether it has an attention."""
        return self.described.attends is not None

    @property
    def attention(self) -> Attention:
        """How the layer attends, which it does."""
        assert isinstance(self.described.attention, Attention)
        return self.described.attention

    @property
    def attention_rows(self) -> int:
        """How many of `qkv`'s rows are the attention's."""
        return sum(each.out_features for each in self.attention.qkv) if self.attends else 0

    @property
    def slot(self) -> bool:
        """Whether a cache holds keys and values of the layer's own."""
        return self.attends and self.attention.keys_of is None

    @property
    def indexer(self) -> TakenIndexer | None:
        """What chooses the keys that its rows see; None: they see all, or those that another layer has chosen."""
        return None if self.latent is None else self.latent.indexer

    @property
    def choice_of(self) -> int | None:
        """Number of the earlier layer whose choice of keys it takes; None: it takes none."""
        return None if self.latent is None else self.latent.described.choice_of

    @cached_property
    def kind(self) -> AttentionKind:
        """What the attention does, with sinks in float32."""
        kind = self.attention.kind if self.attends else PLAIN
        return kind if kind.sinks is None else replace(kind, sinks=kind.sinks.detach().float())

    @property
    def experts(self) -> TakenExperts | None:
        """The experts that it has in place of an MLP, or beside it."""
        return self.mlp if isinstance(self.mlp, TakenExperts) else self.beside

    @cached_property
    def alternation(self) -> NativeAlternation | None:
        """How it guesses and corrects streams of states, for the kernels; None: there is one."""
        own = self.described.alternation
        return None if own is None else native_alternation(own)

    @property
    def activation(self) -> Activation:
        """What the MLP or the experts do to their gate."""
        return "silu" if self.described.mlp is None else self.described.mlp.activation

    @cached_property
    def xielu(self) -> Xielu | None:
        """The numbers of the MLP's activation, if it is one of that name."""
        learned = self.described.mlp.xielu if isinstance(self.described.mlp, Mlp) else None
        return None if learned is None else learned.numbers

    @property
    def gated(self) -> bool:
        """Whether the MLP or the experts have a gate."""
        return self.described.mlp is None or self.described.mlp.gated

    @property
    def products(self) -> dict[str, Linear]:
        """All products by name."""
        named = {"qkv": self.qkv, "out": self.out} | ({} if self.latent is None else self.latent.products)
        if isinstance(self.recurrence, TakenRecurrence):
            named |= self.recurrence.products
        if self.recurred_out is not None:
            named["recurred_out"] = self.recurred_out
        if self.input is not None:
            named |= {"input.gate": self.input[0], "input.projection": self.input[1]}
        for name in ("gate_up", "down") if self.experts is not None else ():
            named |= {f"experts.{index}.{name}": each for index, each in enumerate(getattr(self.experts, name))}
        for where, adapter in zip(("qkv", "gate_up"), self.adapters, strict=True):
            if adapter is not None:
                named |= {f"{where}_adapter.{name}": each for name, each in adapter.products.items()}
        if self.aside is not None:
            named["aside"] = self.aside
        if self.mlp is None or isinstance(self.mlp, TakenExperts):
            return named
        return named | {"gate_up": self.mlp[0], "down": self.mlp[1]}

    @property
    def step_bytes(self) -> int:
        """Bytes that a step of one row reads."""
        own = self.qkv.step_bytes + self.out.step_bytes + (0 if self.latent is None else self.latent.step_bytes)
        if isinstance(self.recurrence, TakenRecurrence):
            own += sum(product.step_bytes for product in self.recurrence.products.values())
            own += sum(each.step_bytes for each in self.recurrence.gates)
        own += 0 if self.recurred_out is None else self.recurred_out.step_bytes
        own += sum(each.step_bytes for each in self.input or ())
        if (laurel := self.described.laurel) is not None:
            own += laurel.left.weight.nbytes + laurel.right.weight.nbytes
        own += 0 if self.experts is None else self.experts.step_bytes
        own += 0 if self.aside is None else self.aside.step_bytes
        adapters = (each for each in self.adapters if each is not None)
        own += sum(product.step_bytes for each in adapters for product in each.products.values())
        if self.mlp is None or isinstance(self.mlp, TakenExperts):
            return own
        return own + sum(product.step_bytes for product in self.mlp)

    def matrices(self, described: Layer) -> Matrices:
        """Return each product with the modules of `described` whose weights it holds: this layer, or a copy of it."""
        return [*self.mixing_matrices(described), *self.mlp_matrices(described)]

    def mixing_matrices(self, described: Layer) -> Matrices:
        """Return `matrices` but for those of the MLP or the experts."""
        attention, recurs = described.attention, described.recurs
        held: list[tuple[Any, Any]] = [(self.qkv, Linears(described.inputs)), (self.out, Linears([attention.out]))]
        if isinstance(recurs, Recurrence):
            assert isinstance(self.recurrence, TakenRecurrence)
            held += self.recurrence.matrices(recurs)
        if self.recurred_out is not None and recurs is not None:
            held.append((self.recurred_out, Linears([recurs.out])))
        if isinstance(attention, Attention) and self.adapters[0] is not None and attention.adapter is not None:
            held += self.adapters[0].matrices(attention.adapter)
        if isinstance(attention, Attention) and self.latent is not None and attention.latent is not None:
            held += self.latent.matrices(attention.latent)
        if self.input is not None and described.input is not None:
            held += zip(self.input, map(Linears, ([described.input.gate], [described.input.projection])), strict=True)
        return held

    def mlp_matrices(self, described: Layer) -> Matrices:
        """Return `matrices` of the MLP and the experts."""
        mlp = described.mlp
        held: list[tuple[Any, Any]] = []
        if isinstance(mlp, Mlp):
            assert isinstance(self.mlp, tuple)
            held += [(self.mlp[0], Linears(mlp.gate_up)), (self.mlp[1], Linears([mlp.down]))]
            if self.adapters[1] is not None and mlp.adapter is not None:
                held += self.adapters[1].matrices(mlp.adapter)
        if self.aside is not None and described.aside is not None:
            held.append((self.aside, Linears([described.aside])))
        if self.experts is None or described.experts is None:
            return held
        gate_up, down, shared = list(self.experts.gate_up), list(self.experts.down), described.experts.shared
        if shared is not None:
            held += [(gate_up.pop(), Linears(shared.gate_up)), (down.pop(), Linears([shared.down]))]
        return [*held, (gate_up, StackHolder(described.experts.gate_up)), (down, StackHolder(described.experts.down))]

    def mixed(self, normed: Tensor, x: Tensor, kernels: bool) -> Tensor:
        """Return what the MLP or the experts give, or both together, (T, E).

        Args:
            normed: rows as `before_mlp` leaves them, (T, E).
            x: the rows before it, for experts beside the MLP.
            kernels: whether the kernels compute what lies between products.
        """

        def activated(x: Tensor, quantile: float | None = None) -> Tensor:
            if kernels:
                return prefill.activated(x, self.activation, self.gated, quantile, self.xielu)
            return activate(x, self.activation, self.gated, self.xielu)

        if isinstance(self.mlp, TakenExperts):
            return self.mlp(normed, activated)
        mlp = self.described.mlp
        assert self.mlp is not None and isinstance(mlp, Mlp)
        gate_up = self.mlp[0](normed)
        if self.adapters[1] is not None:
            gate_up = gate_up + self.adapters[1](normed)
        if mlp.sparsity and not kernels:
            gate, up = gate_up.chunk(2, dim=-1)
            gate_up = torch.cat([thinned(gate, mlp.sparsity), up], dim=-1)
        if mlp.gate_factor != 1:
            gate, up = gate_up.chunk(2, dim=-1)
            gate_up = torch.cat([gate * mlp.gate_factor, up], dim=-1)
        given = _scaled(self.mlp[1](activated(gate_up, _quantile(mlp, x.dtype))), mlp.factor)
        if self.beside is None or self.beside.branches is None:
            return given
        norms = self.beside.branches
        read, by_router = normed_rows(norms.before, x, kernels), normed_rows(norms.router, x, kernels)
        of_experts = self.beside(read, activated, by_router)
        return normed_rows(norms.after_mlp, given, kernels) + normed_rows(norms.after, of_experts, kernels)

    def given(self, attended: Tensor | None, recurred: Tensor | None) -> Tensor:
        """Return what the attention and the recurrence give, or one of them, (T, E).

        Args:
            attended: (T, H * D), what the heads of the attention mix; None: there is none.
            recurred: (T, H_v * D_v), what the recurrence gives; None: there is none.
        """
        if recurred is None or attended is None:
            only = attended if recurred is None else recurred
            assert only is not None
            return _scaled(self.out(only), self.attention.factor if recurred is None else 1.0)
        beside = self.described.recurrence
        assert self.recurred_out is not None and beside is not None
        of_recurrence = _scaled(self.recurred_out(recurred), beside.factor)
        return of_recurrence + _scaled(self.out(attended), self.attention.factor)

    def projected(self, normed: Tensor) -> Tensor:
        """Return what `qkv` and an adapter beside it make of rows."""
        qkv = self.qkv(normed)
        return qkv if self.adapters[0] is None else qkv + self.adapters[0](normed)

    def given_aside(self, attended: Tensor, kernels: bool) -> Tensor:
        """Return what a layer that gives nothing to the sum adds to what the next one reads, (T, E)."""
        before = self.described.before_mlp
        assert self.aside is not None and before is not None
        read = normed_rows(before, attended, kernels)
        return self.aside(self.mixed(read, attended, kernels))

    def ended(self, x: Tensor, given: Tensor | None) -> Tensor:
        """Return what the layer gives, (T, E): `x` and what it makes of its own input, (T, P), scaled."""
        own = self.described
        if own.input is not None:
            assert given is not None
            x = x + self.of_input(x, given)
        return x if own.scale is None else x * own.scale

    def of_input(self, x: Tensor, given: Tensor, kernels: bool = False) -> Tensor:
        """Return what the layer makes of its own input, (T, P), for rows (T, E).

        `kernels`: whether they compute the norm behind it.
        """
        own = self.described.input
        assert self.input is not None and own is not None
        gate = activate(self.input[0](x), own.activation, gated=False)
        return normed_rows(own.norm, self.input[1](gate * given), kernels)

    def queries_and_keys(
        self, qkv: Tensor, heads: int, kv_heads: int, tables: Tables, spread: Tables, kernels: bool
    ) -> Tensor:
        """Return normalised and rotated queries and keys, (T, H + H_kv, D), of `qkv`, (T, H + 2 H_kv, D).

        `tables` and `spread` have the rows' cosines and sines, for the kernels and for `turned`.
        """
        norms = self.attention.query, self.attention.key
        if kernels:
            return prefill.rotate(qkv, heads, kv_heads, norms, self.rope, *tables)
        qk = qkv[:, : heads + kv_heads]
        if not self.rope.norm_behind:
            qk = normalised_heads(qk, heads, norms)
        if self.rope.pairs:
            qk = turned(qk, self.rope, *spread)
        return normalised_heads(qk, heads, norms) if self.rope.norm_behind else qk

    def native(self) -> NativeLayer:
        """Return the layer for the kernels; every product was made for them."""
        layer, own, sums = self.described, self.described.input, self.described.normed_sums
        added = None
        if own is not None and self.input is not None:
            gate, projection = map(native_matrix, self.input)
            added = NativeInput(gate, projection, own.activation, own.norm)
        pair = self.mlp if isinstance(self.mlp, tuple) else None
        factors = layer.mlp if isinstance(layer.mlp, Mlp) else None
        whole = NativeLayer(
            qkv=native_matrix(self.qkv),
            out=native_matrix(self.out),
            before_attention=layer.before_attention,
            before_mlp=layer.before_mlp,
            rope=self.rope,
            scale=1.0,
            gate_up=None if pair is None else native_matrix(pair[0]),
            down=None if pair is None else native_matrix(pair[1]),
            experts=None if self.experts is None else self.experts.native(),
            after_attention=layer.after_attention,
            after_mlp=layer.after_mlp,
            activation=self.activation,
            xielu=self.xielu,
            gated=self.gated,
            parallel=layer.parallel,
            residual=layer.residual,
            normed_sums=None if sums is None else (sums.attention, sums.mlp),
            input=added,
            scale_of_all=1.0 if layer.scale is None else float(layer.scale),
            gate_factor=1.0 if factors is None else factors.gate_factor,
            mlp_factor=1.0 if factors is None else factors.factor,
            quantile=None if factors is None else _quantile(factors, torch.bfloat16),
            laurel=None if layer.laurel is None else native_laurel(layer.laurel),
            alternation=self.alternation,
            aside=None if self.aside is None else native_matrix(self.aside),
            with_embedding=layer.with_embedding,
            qkv_adapter=None if self.adapters[0] is None else self.adapters[0].native(),
            gate_up_adapter=None if self.adapters[1] is None else self.adapters[1].native(),
        )
        if self.recurrence is not None:
            own_out = None if self.recurred_out is None else native_matrix(self.recurred_out)
            recurrence = replace(self.recurrence.native, first=self.attention_rows, out=own_out)
            whole = replace(whole, recurrence=recurrence)
        if not self.attends:
            return whole
        attention, growth = self.attention, self.attention.growth
        return replace(
            whole,
            scale=attention.scale,
            query=attention.query,
            key=attention.key,
            window=attention.window,
            kind=self.kind,
            latent=None if self.latent is None else self.latent.native(),
            indexer=None if self.indexer is None else self.indexer.native(),
            chosen=0 if self.latent is None else self.latent.described.chosen,
            value=attention.value,
            heads=attention.heads,
            kv_heads=attention.kv_heads,
            head_dim=attention.head_dim,
            keys_of=attention.keys_of,
            growth=None if growth is None else (growth.every, growth.scale, growth.ahead),
            output_gates=attention.gated,
            gate_of_head=attention.gate_of_head,
            softplus_gates=attention.softplus_gates,
            attention_factor=attention.factor,
        )


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor


def _quantile(mlp: Mlp, dtype: torch.dtype) -> float | None:
    return quantile(mlp.sparsity, dtype) if mlp.sparsity else None
