"""The C structs of a decoder's parts. They hold bare addresses: whoever has them keeps the parts alive."""

from __future__ import annotations

import ctypes

from rapid_integrations.kernels.cpu.interface import (
    Act,
    Adapter,
    Alternation,
    Experts,
    Indexer,
    Latent,
    Laurel,
    Layer,
    LayerInput,
    LayerInputs,
    Matrix,
    Recurrence,
    Sight,
    Streams,
)
from rapid_integrations.kernels.cpu.interface import Branches as BranchesStruct
from rapid_integrations.kernels.cpu.interface import Norm as NormStruct
from rapid_integrations.kernels.cpu.interface import Rope as RopeStruct
from rapid_integrations.kernels.cpu.matrices import address_of, matrix_of
from rapid_integrations.kernels.cpu.native_layers import (
    NativeAdapter,
    NativeAlternation,
    NativeExperts,
    NativeInputs,
    NativeLatent,
    NativeLayer,
    NativeRecurrence,
    NativeStreams,
)
from rapid_integrations.kernels.layers import ACTIVATIONS, NORM_SCOPES, Activation, AttentionKind, Norm, Rope, Xielu


def norm_struct(norm: Norm | None) -> NormStruct:
    """Return a norm as the kernels read it. It holds the addresses of the weights."""
    if norm is None:
        return NormStruct()
    return NormStruct(
        kind=2 if norm.centred else 1,
        scope=NORM_SCOPES.index(norm.scope),
        eps=norm.eps,
        offset=norm.offset,
        weight=address_of(norm.weight),
        bias=address_of(norm.bias),
    )


def rope_struct(rope: Rope) -> RopeStruct:
    """Return a rotation as the kernels read it."""
    return RopeStruct(**vars(rope))


def sight_struct(scale: float, window: int | None, kind: AttentionKind) -> Sight:
    """Return what a query sees, as the kernels read it."""
    return Sight(window=window or 0, chunk=kind.chunk or 0, scale=scale, softcap=kind.softcap or 0.0)


def act_struct(activation: Activation, xielu: Xielu | None = None) -> Act:
    """Return an activation as the kernels read it. `xielu`: the numbers of one of that name."""
    return Act(kind=ACTIVATIONS.index(activation), **({} if xielu is None else vars(xielu)))


_SPARSE_MIXER = 2  # as in interface.h
_NORMS = ("before_attention", "after_attention", "before_mlp", "after_mlp", "query", "key", "value")


def inputs_struct(inputs: NativeInputs, layers: int) -> LayerInputs:
    """Return the inputs of so many layers."""
    tokens, columns = inputs.table.shape
    return LayerInputs(
        width=columns // layers,
        tokens=tokens,
        table=address_of(inputs.table),
        projection=matrix_of(inputs.projection),
        norm=norm_struct(inputs.norm),
        scale=inputs.scale,
        projection_scale=inputs.projection_scale,
        factor=inputs.factor,
    )


def streams_struct(streams: NativeStreams, kept: list[object]) -> Streams:
    """Return a model's streams of states. What it points to is put into `kept`."""
    count = len(streams.spread)
    spread, merged = ((Matrix * count)(*map(matrix_of, part)) for part in (streams.spread, streams.merged))
    kept += [spread, merged]
    return Streams(count=count + 1, active=streams.active, spread=spread, merged=merged)


def alternation_struct(alternation: NativeAlternation) -> Alternation:
    """Return how a layer guesses and corrects streams, as the kernels read it. It holds its addresses."""
    own = alternation
    return Alternation(
        router=matrix_of(own.router),
        norm=norm_struct(own.norm),
        scale=own.scale,
        prediction=address_of(own.prediction),
        correction=address_of(own.correction),
        output=address_of(own.output),
    )


def layer_struct(layer: NativeLayer, heads: int, kv_heads: int, head_dim: int, kept: list[object]) -> Layer:
    """Return the struct of a layer. What it points to is put into `kept`."""
    every, growth, ahead = layer.growth or (0, 0.0, 0)
    of_attention, of_mlp = layer.normed_sums or (None, None)
    filled = Layer(
        qkv=matrix_of(layer.qkv),
        out=matrix_of(layer.out),
        **{name: norm_struct(getattr(layer, name)) for name in _NORMS},
        rope=rope_struct(layer.rope),
        sight=sight_struct(layer.scale, layer.window, layer.kind),
        sinks=address_of(layer.kind.sinks),
        activation=act_struct(layer.activation, layer.xielu),
        gated=layer.gated,
        parallel=layer.parallel,
        attention_residual=(layer.residual if of_attention is None else of_attention[1]) * layer.attention_factor,
        mlp_residual=(layer.residual if of_mlp is None else of_mlp[1]) * layer.mlp_factor,
        attention_kept=0.0 if of_attention is None else of_attention[0],
        mlp_kept=0.0 if of_mlp is None else of_mlp[0],
        gate_factor=layer.gate_factor,
        heads=layer.heads or heads,
        kv_heads=layer.kv_heads or kv_heads,
        head_dim=layer.head_dim or head_dim,
        output_gates=layer.output_gates and (1 if layer.gate_of_head else layer.head_dim or head_dim),
        softplus_gates=layer.softplus_gates,
        growth_every=every,
        growth_ahead=ahead,
        growth_scale=growth,
        scale=layer.scale_of_all,
        sparse=layer.quantile is not None,
        quantile=layer.quantile or 0.0,
        with_embedding=layer.with_embedding,
        chosen=layer.chosen,
    )
    if layer.aside is not None:
        filled.aside = matrix_of(layer.aside)
    for name in ("qkv_adapter", "gate_up_adapter"):
        if (beside := getattr(layer, name)) is not None:
            adapter = _adapter(beside, kept)
            kept.append(adapter)
            setattr(filled, name, ctypes.pointer(adapter))
    if layer.laurel is not None:
        laurel = Laurel(matrix_of(layer.laurel.left), matrix_of(layer.laurel.right), norm_struct(layer.laurel.norm))
        kept.append(laurel)
        filled.laurel = ctypes.pointer(laurel)
    if layer.alternation is not None:
        alternation = alternation_struct(layer.alternation)
        kept.append(alternation)
        filled.alternation = ctypes.pointer(alternation)
    if layer.input is not None:
        own = layer.input
        added = LayerInput(
            gate=matrix_of(own.gate),
            projection=matrix_of(own.projection),
            norm=norm_struct(own.norm),
            activation=act_struct(own.activation),
        )
        kept.append(added)
        filled.input = ctypes.pointer(added)
    if layer.recurrence is not None:
        recurrence = recurrence_struct(layer.recurrence)
        recurrence.factor *= layer.residual
        kept.append(recurrence)
        filled.recurrence = ctypes.pointer(recurrence)
    if layer.gate_up is not None and layer.down is not None:
        filled.gate_up, filled.down = matrix_of(layer.gate_up), matrix_of(layer.down)
    if layer.experts is not None:
        experts = _experts(layer.experts, kept)
        kept.append(experts)
        filled.experts = ctypes.pointer(experts)
    if layer.latent is not None:
        latent = _latent(layer.latent, kept)
        kept.append(latent)
        filled.latent = ctypes.pointer(latent)
    if layer.indexer is not None:
        own_keys = layer.indexer
        indexer = Indexer(
            heads=own_keys.heads,
            dim=own_keys.dim,
            query=matrix_of(own_keys.query),
            key=matrix_of(own_keys.key),
            weights=matrix_of(own_keys.weights),
            norm=norm_struct(own_keys.norm),
            rope=rope_struct(own_keys.rope),
        )
        kept.append(indexer)
        filled.indexer = ctypes.pointer(indexer)
    return filled


def recurrence_struct(recurrence: NativeRecurrence) -> Recurrence:
    """Return a recurrence as the kernels read it. It holds the addresses of its numbers."""
    own = recurrence
    return Recurrence(
        **{
            name: getattr(own, name)
            for name in (
                *("key_heads", "value_heads", "key_dim", "value_dim", "channels", "together", "tiled", "gates_behind"),
                *(
                    "first",
                    "sigmoid_gates",
                    "gelu_gates",
                    "gate_factor",
                    "rate_factor",
                    "least_rate",
                    "rate_scale",
                    "factor",
                ),
            )
        },
        taps=len(own.taps),
        blocks=len(own.gates),
        gates=(Matrix * len(own.gates))(*map(matrix_of, own.gates)) if own.gates else None,
        **{
            name: Matrix() if (matrix := getattr(own, name)) is None else matrix_of(matrix)
            for name in ("out", "rates", "decay_up", "gate_up", "selected", "step_up")
        },
        **{name: norm_struct(getattr(own, name)) for name in ("step_norm", "key_norm", "query_norm")},
        norm=norm_struct(own.norm),
        tap=address_of(own.taps),
        tap_bias=address_of(own.tap_bias),
        skip=address_of(own.skip),
        decay=address_of(own.decay),
        bias=address_of(own.bias),
    )


def _adapter(adapter: NativeAdapter, kept: list[object]) -> Adapter:
    up = (Matrix * len(adapter.up))(*map(matrix_of, adapter.up))
    kept.append(up)
    return Adapter(down=matrix_of(adapter.down), up=up, parts=len(up))


def _latent(latent: NativeLatent, kept: list[object]) -> Latent:
    keys, values = ((Matrix * len(part))(*map(matrix_of, part)) for part in (latent.keys, latent.values))
    kept += [keys, values]
    filled = Latent(
        rank=latent.values[0].columns,
        plain=latent.keys[0].columns,
        rotated=latent.rotated,
        value=latent.values[0].rows,
        query=norm_struct(latent.query),
        latent=norm_struct(latent.norm),
        keys=keys,
        values=values,
    )
    if latent.query_up is not None:
        filled.query_up = matrix_of(latent.query_up)
    return filled


def _experts(experts: NativeExperts, kept: list[object]) -> Experts:
    routing, count = experts.routing, len(experts.gate_up)
    gate_up, down = ((Matrix * count)(*map(matrix_of, part)) for part in (experts.gate_up, experts.down))
    kept += [gate_up, down]
    filled = Experts(
        count=count - routing.shared,
        taken=routing.taken,
        routing=routing.sigmoid if routing.near is None else _SPARSE_MIXER,
        near=routing.near or 0.0,
        normalised=routing.normalised,
        groups=routing.groups,
        groups_taken=routing.groups_taken,
        group_best=routing.group_best,
        widest=max(matrix.columns for matrix in experts.down),
        shared=(2 if routing.shared_gate else 1) if routing.shared else 0,
        scale=routing.scale,
        scales_inputs=routing.scales_inputs,
        router=matrix_of(experts.router),
        correction=address_of(routing.correction),
        gate_up=gate_up,
        down=down,
        logit_scale=routing.logit_scale,
        logit_softcap=routing.logit_softcap or 0.0,
        by_outputs=routing.by_outputs,
        shared_scale=routing.shared_scale,
        factors=address_of(routing.factors),
    )
    if (norms := experts.branches) is not None:
        branches = BranchesStruct(**{name: norm_struct(norm) for name, norm in vars(norms).items()})
        kept.append(branches)
        filled.branches = ctypes.pointer(branches)
    return filled
