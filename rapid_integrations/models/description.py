"""A decoder described by data: which modules hold its weights, and what each layer computes with them.

`families` describes the models that are known. The C++ kernels and PyTorch's operators compute from the same
description (`fused_decoder.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

from rapid_integrations.kernels.layers import (
    INDEXED_COLUMNS,
    MAX_INDEXED,
    MAX_STREAMS,
    PLAIN,
    Activation,
    AttentionKind,
    Branches,
    Norm,
    Routing,
)


class NotDescribedError(Exception):
    """A model of a known family has a part that the description cannot express."""


@dataclass(frozen=True)
class RowsOf:
    """Some rows of a module's matrix, in the order in which this package computes with them.

    Attributes:
        module: the matrix (O, K). All descriptions of its rows together have each of them once.
        rows: (o,) int64, their numbers.
    """

    module: nn.Linear
    rows: Tensor

    @property
    def out_features(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def weight(self) -> Tensor:
        """The rows, (o, K)."""
        return self.module.weight[self.rows.to(self.module.weight.device)]

    @property
    def bias(self) -> Tensor | None:
        """Their biases, (o,); None: there are none."""
        bias = self.module.bias
        return None if bias is None else bias[self.rows.to(bias.device)]


@dataclass(frozen=True)
class Transposed:
    """A module whose matrix lies by columns: (K, O), as GPT-2's `Conv1D` has it."""

    module: Any
    out_features: int
    in_features: int

    @property
    def weight(self) -> Tensor:
        """The matrix, (O, K)."""
        rows: Tensor = self.module.weight.t()
        return rows

    @property
    def bias(self) -> Tensor | None:
        """Its biases, (O,); None: there are none."""
        bias: Tensor | None = self.module.bias
        return bias


OneMatrix: TypeAlias = nn.Linear | Transposed
"""A whole matrix."""

Inputs: TypeAlias = tuple[nn.Linear | RowsOf | Transposed, ...]
"""Matrices with the same input. Their outputs lie one behind the other."""


@dataclass(frozen=True)
class Rotation:
    """The angles of rotary embeddings.

    Attributes:
        inverse_frequencies: (pairs,) float32, the angle of each pair of numbers at position 1.
        scaling: factor on cosines and sines.
        long: the same as `inverse_frequencies`, for texts whose capacity exceeds `switch` tokens; None: there is none.
    """

    inverse_frequencies: Tensor
    scaling: float = 1.0
    long: Tensor | None = None
    switch: int = 0


@dataclass(frozen=True)
class Indexer:
    """A small attention of its own by which a row chooses the keys that it sees (DeepSeek-AI 2025, arXiv 2512.02556).

    Of head h, q_h is a query and w_h a weight, both of the row. Key k has the score sum_h w_h relu(q_h k / root of D) /
    root of H, and a row sees the keys with the best scores, of those before it and its own. Keys are cached.

    Attributes:
        query: (H * D, ...), which reads compressed queries, normalised.
        key: (D, E), which reads what the attention reads.
        key_norm: of keys, before they are rotated.
        weights: (H, E), never quantised.
        heads, dim: H and D.
        rotated: how many of the D numbers are rotated, from the first one on, with the attention's angles.
        interleaved: see `Rope`; the attention's own may differ.
    """

    query: nn.Linear
    key: nn.Linear
    key_norm: Norm
    weights: nn.Linear
    heads: int
    dim: int
    rotated: int
    interleaved: bool


@dataclass(frozen=True)
class Latent:
    """What multi-head latent attention has beside a plain one (DeepSeek-AI 2024, arXiv 2405.04434).

    A token's keys and values are linear in a vector that all heads share, the latent, and in one rotated key.

    Attributes:
        rank: numbers of the latent.
        plain, rotated: numbers of a head's query and key that are not rotated, and those that are.
        value: numbers of a head's value.
        norm: of the latent.
        up: the matrix behind it, (H * (plain + value), rank): of each head its keys and then its values.
        query_norm, query_up: of queries that are compressed, too; None: they are not.
        indexer: chooses the keys that a row sees; None: it sees all, or those that another layer has chosen.
        choice_of: number of the earlier layer whose choice it takes; None: it takes none.
        chosen: with one of these, how many keys a row sees.
    """

    rank: int
    plain: int
    rotated: int
    value: int
    norm: Norm
    up: nn.Linear
    query_norm: Norm | None = None
    query_up: nn.Linear | None = None
    indexer: Indexer | None = None
    choice_of: int | None = None
    chosen: int = 0


@dataclass(frozen=True)
class Growth:
    """Factors on queries that grow with their position: 1 + scale * log(1 + floor((position + ahead) / every))."""

    every: int
    scale: float
    ahead: int = 1


@dataclass(frozen=True)
class Adapter:
    """A product of low rank beside one of which several layers share the weights: up(down(x)) (arXiv 2106.09685).

    Attributes:
        down: matrices (R, K), which read what those read beside which they stand.
        up: of each of them the matrix (o, R) behind it. What they give lies one behind the other.
    """

    down: tuple[nn.Linear, ...]
    up: tuple[nn.Linear, ...]


@dataclass(frozen=True)
class Attention:
    """An attention.

    Attributes:
        qkv: matrices of queries, keys and values, or one that holds all of them; of queries alone with `keys_of`. Of
            latent attention they are those of queries, or of what queries are computed from, and of the latent with the
            rotated key behind it.
        out: the matrix behind it.
        scale: of the scores.
        window: keys that a query sees, its own included; None: all.
        kind: what else it does.
        query, key: norms of queries and keys.
        rotation: index of the rotation; None: there is none.
        interleaved, norm_behind: see `Rope`.
        latent: of multi-head latent attention; None: it is another one.
        value: norm of values.
        kv_heads, head_dim: in place of the decoder's, if they differ.
        growth: of queries; None: there is none.
        gated: `qkv` has behind the values a gate for each head (H * D). Its sigmoid is a factor on what heads give.
        keys_of: number of the layer whose keys and values this one reads. Such layers come behind all others.
        factor: on what `out` gives, where a recurrence stands beside it.
        adapter: beside `qkv`; None: there is none.
    """

    qkv: Inputs
    out: OneMatrix
    scale: float
    window: int | None = None
    kind: AttentionKind = PLAIN
    query: Norm | None = None
    key: Norm | None = None
    rotation: int | None = 0
    interleaved: bool = False
    norm_behind: bool = False
    latent: Latent | None = None
    value: Norm | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    keys_of: int | None = None
    growth: Growth | None = None
    gated: bool = False
    factor: float = 1.0
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Selection:
    """What of a Mamba's row is computed of its convolved values: a step for each of them, a key and a query.

    Attributes:
        low: (R + 2 D_k, C), of convolved values: what steps are computed from, the key and the query.
        up: (C, R), behind the first of these, with the biases that `Recurrence.bias` names.
        norms: of the three; None: there is none.
    """

    low: nn.Linear
    up: nn.Linear
    norms: tuple[Norm | None, Norm | None, Norm | None] = (None, None, None)

    @property
    def rank(self) -> int:
        """R."""
        return self.up.in_features


@dataclass(frozen=True)
class GatedUnit:
    """The gates of an RG-LRU, each for a block of W channels, of convolved values.

    Attributes:
        values, values_bias: (blocks, W, W) and (blocks, W), behind whose sigmoid a value stands: x times a matrix.
        decays: (blocks, W, W), the same for decays, with the biases that `Recurrence.bias` names.
    """

    values: Tensor
    values_bias: Tensor
    decays: Tensor


@dataclass(frozen=True)
class Recurrence:
    """What stands in the place of an attention, or beside one.

    It is a gated delta net (arXiv 2412.06464), also with a decay for each number of a key (arXiv 2510.26692), a
    Mamba2 (arXiv 2405.21060), a Mamba (arXiv 2312.00752) or an RG-LRU (arXiv 2402.19427).

    Each head keeps a matrix S, (D_k, D_v), in place of keys and values. A token's key k, value v, decay a and rate b
    make S' = a S + k u^T of it, and its query q gets S'^T q. Queries, keys and values are convolved with the same
    numbers of the tokens before them.

    A gated delta net adds what is new, u = b (v - a S^T k). Its keys have the length 1, and its queries that of 1 over
    the root of D_k. What a head gives is normalised, and then a gate's SiLU is a factor. With `decay_up` each number
    of a key has a decay of its own, a factor on its row of S.

    Mamba2 adds u = b v, and to what a query gets it adds a multiple of v. Gates come before the norm, which takes some
    heads together, or behind it, or there is no norm. Mamba calls a query C, a key B and a value x, and a rate is its
    dt.

    A Mamba has one query and one key for all heads, and a rate and a multiple for each of its C = H_v D_v values. Each
    number of S has a decay of its own, exp(-exp(decay) rate). Values alone are convolved, and `selection` computes all
    else of them. Its heads are values that are computed together, no more.

    An RG-LRU has a number for each of its C values in place of S, and gives it: a times what it was, and the root of
    1 - a^2 times the gated value. A decay a is exp(-8 softplus(decay)) to the power of its gate, 0 to 1. Values are
    convolved, without SiLU, and before a text's first one there is nothing: it is added whole.

    Attributes:
        inputs: matrices of queries, keys, values, and of gates behind them: (2 H_k D_k + 2 H_v D_v, E). Of a Mamba
            they are those of values and gates.
        rates: of what rates and decays are computed from, never quantised: of a delta net (2 H_v, E), the rates first,
            of Mamba2 (H_v, E), as both are computed from the same; with `decay_up` rates (H_v, E), and then what that
            and `gate_up` read. With `selection` there are none.
        out: the matrix behind it, (E, H_v D_v).
        key_heads, value_heads, key_dim, value_dim: H_k, H_v, D_k and D_v. A query and key serve H_v / H_k heads.
        convolution: (2 H_k D_k + H_v D_v, 1, W), factors of a row and those before it, its own last; (C, 1, W).
        decay, bias: H_v numbers, of decays exp(-exp(decay) softplus(x + bias)). The softplus is Mamba2's rate. With
            `decay_up` there are H_v D_k biases. Of a Mamba they are (C, D_k) and (C,), of an RG-LRU (C,) and
            (blocks, W).
        norm: of what heads give; of Mamba2 its weights are (H_v D_v,), and None: there is none.
        skip: (H_v,), multiples of Mamba2's values, (C,) of a Mamba's; None: it is a gated delta net.
        convolution_bias: (2 H_k D_k + H_v D_v,), or None.
        order: which of the convolution's rows are those of queries, keys and values; None: all, as they are.
        together: numbers that Mamba2's norm takes together.
        tiled: which heads a key head serves: value head h has the key head h % H_k, and otherwise h // (H_v / H_k).
        gates_behind: Mamba2's gates come behind the norm.
        factors: on what the products give of queries, keys, values, gates and Mamba2's rates.
        least_rate: Mamba2's rates are at least so large.
        factor: on what `out` gives, where it stands beside an attention.
        rate_scale: factor on a delta net's rates, which are sigmoids.
        sigmoid_gates: a gate's sigmoid is a factor, and not its SiLU.
        decay_up, gate_up: matrices (H_v D_k, ...) and (H_v D_v, ...) behind those of `rates`, of decays and of gates,
            which `inputs` has not then; None: there are none.
        selection: of a Mamba; None: it is another one.
        unit: of an RG-LRU; None: it is another one.
        gelu_gates: a gate's GELU (tanh) is a factor, and not its SiLU.
    """

    inputs: Inputs
    rates: Inputs
    out: nn.Linear
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    convolution: Tensor
    decay: Tensor
    bias: Tensor
    norm: Norm | None
    skip: Tensor | None = None
    convolution_bias: Tensor | None = None
    order: Tensor | None = None
    together: int = 0
    tiled: bool = False
    gates_behind: bool = False
    factors: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    least_rate: float = 0.0
    factor: float = 1.0
    rate_scale: float = 1.0
    sigmoid_gates: bool = False
    decay_up: nn.Linear | None = None
    gate_up: nn.Linear | None = None
    selection: Selection | None = None
    unit: GatedUnit | None = None
    gelu_gates: bool = False

    @property
    def channels(self) -> int:
        """Numbers of a row that are convolved."""
        if self.selection is not None or self.unit is not None:
            return self.value_heads * self.value_dim
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    @property
    def recorded_rates(self) -> int:
        """Numbers that are kept of a row behind those."""
        if self.selection is not None:  # steps, the key and the query
            return self.channels + 2 * self.key_dim
        if self.unit is not None:  # decays, and what is added
            return 2 * self.channels
        if self.decay_up is None:
            return sum(each.out_features for each in self.rates)
        return self.value_heads + self.decay_up.out_features


@dataclass(frozen=True)
class ShortConvolution:
    """What stands in the place of an attention in LFM2: a convolution of a few rows between two gates.

    The product's row is b, c and x, each (E,), and the result c * convolution(b * x).

    Attributes:
        inputs: matrices of b, c and x, (3 E, E).
        out: the matrix behind it, (E, E).
        convolution: (E, 1, W), factors of a row and those before it, its own last.
        convolution_bias: (E,), or None.
    """

    inputs: Inputs
    out: nn.Linear
    convolution: Tensor
    convolution_bias: Tensor | None = None


@dataclass(frozen=True)
class Mlp:
    """down(activation(gate) * up), or down(activation(up)) if it is not `gated`.

    Attributes:
        sparsity: share of the gate's numbers that are to become 0; see `alternating.thinned`.
        gate_factor: on the gate before its activation.
        factor: on what `down` gives.
        adapter: beside `gate_up`, of a layer with `Layer.aside`; None: there is none.
    """

    gate_up: Inputs
    down: OneMatrix
    activation: Activation
    gated: bool = True
    sparsity: float = 0.0
    gate_factor: float = 1.0
    factor: float = 1.0
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Stack:
    """One matrix for each expert, in one parameter of a module.

    Attributes:
        module, name: whose parameter, (N, O, K) unless `taken` says how it becomes that.
        bias: name of the parameter (N, O) of biases; None: there are none.
        taken, given: from the model's form to (N, O, K) and back; None: it has this form already.
        taken_bias: the same for biases.
    """

    module: nn.Module
    name: str
    bias: str | None = None
    taken: Callable[[Tensor], Tensor] | None = None
    given: Callable[[Tensor], Tensor] | None = None
    taken_bias: Callable[[Tensor], Tensor] | None = None

    @property
    def parameters(self) -> list[Tensor]:
        """What it holds of the module."""
        return [getattr(self.module, name) for name in (self.name, self.bias) if name is not None]


@dataclass(frozen=True)
class Experts:
    """MLPs of which each row takes a few.

    Attributes:
        router: (N, E) with its bias (N,), or None.
        shared_gate: the matrix (1, E) behind whose sigmoid the shared expert stands.
        shared: the MLP that every row takes.
        inner: intermediate numbers of one expert.
        gated: they have a gate, as an `Mlp` does; the shared one, too.
        branches: norms of experts that stand beside an MLP with the same activation; None: they stand in its place.
    """

    router: tuple[Tensor, Tensor | None]
    routing: Routing
    gate_up: Stack
    down: Stack
    activation: Activation
    shared: Mlp | None = None
    shared_gate: nn.Linear | None = None
    inner: int = 0
    gated: bool = True
    branches: Branches | None = None


@dataclass(frozen=True)
class LayerInput:
    """What a layer adds at its end: norm(projection(activation(gate(x)) * input)); see `LayerInputs`."""

    gate: nn.Linear
    projection: nn.Linear
    activation: Activation
    norm: Norm


@dataclass(frozen=True)
class LayerInputs:
    """Inputs of every layer, (T, layers, P): (norm(projection_scale * projection(x)) + scale * row of table) * factor.

    Attributes:
        embedding: the module that holds the table (V, layers * P).
        projection: of the rows of the decoder's own table.
    """

    embedding: Any
    scale: float
    projection: nn.Linear
    projection_scale: float
    norm: Norm
    factor: float


@dataclass(frozen=True)
class Laurel:
    """A learned augmented residual: x + norm(right(left(x))) of what the attention reads; see `alternating`."""

    left: nn.Linear
    right: nn.Linear
    norm: Norm


@dataclass(frozen=True)
class Alternation:
    """How a layer guesses and corrects n streams of states; see `alternating`.

    Attributes:
        prediction, correction: (n * n, n) and (n, n), of what the router says.
        router: (n, E), of the active stream, which is normalised and scaled.
        output: (E,), factors on the active stream before the layer's own input meets it; None: 1.
    """

    prediction: nn.Linear
    correction: nn.Linear
    router: nn.Linear
    norm: Norm
    scale: float
    output: Tensor | None


@dataclass(frozen=True)
class Streams:
    """How a decoder makes n streams of states of its embedding's rows, and one of them before the head.

    Attributes:
        spread, merged: a matrix for each stream but the first.
        active: number of the stream that the layers compute.
    """

    spread: Inputs
    merged: Inputs
    active: int


@dataclass(frozen=True)
class Layer:
    """One layer. A norm that is None is not there.

    Attributes:
        attention: or what stands in its place.
        mlp: or experts in its place; None: there is neither.
        before_attention, before_mlp: norms of what attention and MLP read.
        after_attention, after_mlp: norms of what they give, before it is added.
        parallel: both read the same rows, each behind its own norm, or both behind the same.
        residual: factor on what they add.
        input: what the layer adds at its end.
        scale: (1,), factor on all that the layer gives; None: 1.
        alternation: of the decoder's streams; None: there is one.
        laurel: a further summand beside the attention; the sum is divided by the root of 2. None: there is none.
        beside: experts beside the MLP, with `Experts.branches`.
        recurrence: stands beside the attention: both read the same rows, and the sum of what they give is added.
        aside: (E, E): the layer, an attention and an MLP, gives nothing to the sum. The MLP reads what the attention
            gives, and the next layer reads this of what the MLP gives, added to the rows; what that one gives is added
            to the rows alone. Such layers may share modules' weights. None: it is another layer.
        with_embedding: `before_attention` and what stands behind it read (2 E,): the row, and behind it the embedded
            one.
    """

    attention: Attention | Recurrence | ShortConvolution
    mlp: Mlp | Experts | None
    before_attention: Norm | None = None
    before_mlp: Norm | None = None
    after_attention: Norm | None = None
    after_mlp: Norm | None = None
    parallel: bool = False
    residual: float = 1.0
    input: LayerInput | None = None
    scale: Tensor | None = None
    alternation: Alternation | None = None
    laurel: Laurel | None = None
    beside: Experts | None = None
    recurrence: Recurrence | None = None
    aside: nn.Linear | None = None
    with_embedding: bool = False

    @property
    def experts(self) -> Experts | None:
        """The experts that it has in place of an MLP, or beside it."""
        return self.mlp if isinstance(self.mlp, Experts) else self.beside

    @property
    def norms_apart(self) -> bool:
        """Whether attention and MLP stand beside each other, and each reads rows behind a norm of its own."""
        norms = self.before_attention, self.before_mlp
        return self.parallel and len({id(each.weight) for each in norms if each is not None}) > 1

    @property
    def attends(self) -> Attention | None:
        """The attention, if it has one."""
        return self.attention if isinstance(self.attention, Attention) else None

    @property
    def recurs(self) -> Recurrence | ShortConvolution | None:
        """What stands in place of an attention or beside it and keeps a state, if something does."""
        return self.recurrence if isinstance(self.attention, Attention) else self.attention

    @property
    def inputs(self) -> Inputs:
        """The matrices that read what `before_attention` gives, but for those of rates."""
        own = self.attention.qkv if isinstance(self.attention, Attention) else self.attention.inputs
        return own if self.recurrence is None else (*own, *self.recurrence.inputs)


@dataclass(frozen=True)
class Positions:
    """Learned positions, which are added to embedded rows.

    Attributes:
        embedding: the module that holds the table (positions, E).
        first: the row of position 0.
    """

    embedding: Any
    first: int = 0

    @property
    def table(self) -> Tensor:
        """The rows from position 0 on."""
        rows: Tensor = self.embedding.weight.data[self.first :]
        return rows


@dataclass(frozen=True)
class Decoder:
    """A whole decoder.

    Attributes:
        heads, kv_heads, head_dim: of every attention. Latent ones have one key head, of the rotated numbers.
        embedding: the module that holds the table (V, E).
        embedding_scale: factor on its rows.
        layers: from the first to the last.
        modules: those of the model whose forward computes one layer each, or two where another one computes its MLP.
        norm: before the head.
        head: the matrix of the logits.
        logit_scale, logit_softcap: logits become softcap * tanh(scale * logit / softcap).
        rotations: what `Attention.rotation` counts.
        inputs: of every layer; None: there are none.
        streams: of states; None: there is one.
        positions: that are learned; None: there are none.
        embedding_norm: of embedded rows, with their positions; None: there is none.
    """

    heads: int
    kv_heads: int
    head_dim: int
    embedding: Any
    layers: Sequence[Layer]
    modules: Sequence[nn.Module | tuple[nn.Module, nn.Module]]
    norm: Norm
    head: nn.Linear
    rotations: Sequence[Rotation]
    embedding_scale: float = 1.0
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    inputs: LayerInputs | None = None
    streams: Streams | None = None
    positions: Positions | None = None
    embedding_norm: Norm | None = None

    @property
    def attentions(self) -> list[Attention]:
        """The attentions of all layers that have one."""
        return [each for each in (layer.attends for layer in self.layers) if each is not None]

    @property
    def recurrences(self) -> list[Recurrence | ShortConvolution]:
        """What keeps states, of all layers where something does."""
        return [each for each in (layer.recurs for layer in self.layers) if each is not None]

    @property
    def uniform(self) -> bool:
        """Whether all layers have keys and values of their own in heads of one shape, and no inputs of their own."""
        if self.streams is not None or any(layer.input is not None or layer.scale is not None for layer in self.layers):
            return False
        return not self.recurrences and not any(
            each is not None for own in self.attentions for each in (own.value, own.kv_heads, own.head_dim, own.keys_of)
        )

    @property
    def indexers(self) -> list[Indexer]:
        """What chooses keys, of all layers that have one."""
        latents = [each.latent for each in self.attentions]
        return [each.indexer for each in latents if each is not None and each.indexer is not None]

    @property
    def beyond_kernels(self) -> str:
        """What the kernels for processors do not compute of it; empty if they compute all."""
        for each in self.indexers:
            if each.dim % INDEXED_COLUMNS or each.dim > MAX_INDEXED:
                return (
                    f"the keys of its indexers have {each.dim} numbers; the kernels serve multiples of "
                    f"{INDEXED_COLUMNS} up to {MAX_INDEXED}"
                )
        if self.streams is not None and len(self.streams.spread) >= MAX_STREAMS:
            return f"its layers have more than {MAX_STREAMS} streams of states"
        return ""

    @property
    def beyond_gpus(self) -> str:
        """What the kernels for GPUs do not compute of it, beside experts and latents; empty if they compute all."""
        if self.recurrences:
            return "its layers have recurrent states"
        if any(attention.gated for attention in self.attentions):
            return "its heads have gates"
        if any(layer.norms_apart for layer in self.layers):
            return "attention and MLP stand beside each other, each behind a norm of its own"
        if not self.uniform:
            return "its layers have heads of several shapes, inputs of their own or the keys of other layers"
        if any(attention.growth is not None for attention in self.attentions):
            return "its queries grow with their position"
        if self.positions is not None or self.embedding_norm is not None:
            return "its positions are learned, or its embedded rows normalised"
        return ""


def parameters(described: Any) -> Iterator[Tensor]:
    """Yield every tensor and parameter that a description names."""
    if isinstance(described, Tensor):
        yield described
    elif isinstance(described, Stack):
        yield from described.parameters
    elif isinstance(described, nn.Module):
        yield from described.parameters(recurse=False)
    elif is_dataclass(described):
        for field in fields(described):
            if field.name != "modules":
                yield from parameters(getattr(described, field.name))
    elif isinstance(described, (list, tuple)):
        for each in described:
            yield from parameters(each)


def matrices(described: Any) -> Iterator[nn.Module]:
    """Yield every module that holds a matrix by rows."""
    if isinstance(described, nn.Module):
        yield described
    elif is_dataclass(described) and not isinstance(described, (Stack, Transposed)):
        for field in fields(described):
            if field.name not in ("modules", "embedding"):
                yield from matrices(getattr(described, field.name))
    elif isinstance(described, (list, tuple)):
        for each in described:
            yield from matrices(each)


def settings_of(described: Any) -> Any:
    """Return, as JSON, what the logits depend on beside the weights and the rotations' angles."""
    if isinstance(described, (Tensor, nn.Module, Stack)):
        return None
    if is_dataclass(described):
        own = {field.name: getattr(described, field.name) for field in fields(described)}
        return {name: settings_of(value) for name, value in own.items() if name != "modules"}
    if isinstance(described, (list, tuple)):
        return [settings_of(each) for each in described]
    return described
