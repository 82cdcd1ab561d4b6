"""A decoder's parts for the kernels: weights as they read them, and the numbers beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rapid_integrations.kernels.cpu.matrices import AnyMatrix, NativeMatrix
from rapid_integrations.kernels.layers import PLAIN, Activation, AttentionKind, Branches, Norm, Rope, Routing, Xielu


@dataclass(frozen=True)
class NativeExperts:
    """The experts of a layer, the shared one last.

    `router` is (N, E), with the shared expert's gate as its last row if it has one. `branches` is None if they stand in
    place of an MLP.
    """

    routing: Routing
    router: AnyMatrix
    gate_up: Sequence[AnyMatrix]
    down: Sequence[AnyMatrix]
    branches: Branches | None = None


@dataclass(frozen=True)
class NativeLatent:
    """What multi-head latent attention has beside another one.

    `keys` and `values` have for each head (rank, plain) and (value, rank); `rotated` are the numbers of a rotated key.
    `query` and `query_up` are the norm and the matrix of compressed queries, and None if there are none.
    """

    rotated: int
    norm: Norm
    keys: Sequence[AnyMatrix]
    values: Sequence[AnyMatrix]
    query: Norm | None = None
    query_up: AnyMatrix | None = None


@dataclass(frozen=True)
class NativeIndexer:
    """What chooses the keys that a row of latent attention sees: see `description.Indexer`.

    `query` is (H * D, ...) and `key` (D, E). `weights` is bfloat16 (H, E).
    """

    heads: int
    dim: int
    query: AnyMatrix
    key: AnyMatrix
    weights: NativeMatrix
    norm: Norm
    rope: Rope


@dataclass(frozen=True)
class NativeRecurrence:
    """What stands in place of an attention; see `description.Recurrence` and `recurrence.h`.

    `rates` is (2 H_v, E), of Mamba2 (H_v, E); all else is float32: `taps` (W, C), `tap_bias` (C,), `decay`, `bias` and
    `skip` (H_v,). The layer's `qkv` has C rows that are convolved, and those of the gates behind them. A short
    convolution has no heads, and three rows for each channel. Beside an attention, its rows begin with number `first`,
    and it has an `out` of its own, with `factor` on what that gives. `gate_factor` and `rate_factor` are on what the
    products give of gates and rates, and `rate_scale` is on a delta net's rates themselves.

    With `decay_up` and `gate_up` each number of a key has a decay of its own; see `description.Recurrence`. `rates` has
    H_v rows, and then those that both read, and `bias` one number for each row of `decay_up`.

    With `selected` and `step_up` it is a Mamba: see `description.Selection`. `decay` is (H_v, D_k, D_v) then, `bias`
    and `skip` are (C,), and the norms are of what `selected` gives. `step_up` may have columns of zeros at its end.

    With `gates` it is an RG-LRU: see `description.GatedUnit`. Each of them is (2 W, W) with its biases, for a block of
    W channels: what gates values, and then what gates decays, of which `decay` has the logarithms, (C,).
    """

    channels: int
    taps: Tensor
    tap_bias: Tensor | None = None
    rates: AnyMatrix | None = None
    decay: Tensor | None = None
    bias: Tensor | None = None
    skip: Tensor | None = None
    norm: Norm | None = None
    key_heads: int = 0
    value_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    together: int = 0
    tiled: bool = False
    gates_behind: bool = False
    gate_factor: float = 1.0
    rate_factor: float = 1.0
    least_rate: float = 0.0
    rate_scale: float = 1.0
    sigmoid_gates: bool = False
    decay_up: AnyMatrix | None = None
    gate_up: AnyMatrix | None = None
    selected: AnyMatrix | None = None
    step_up: AnyMatrix | None = None
    step_norm: Norm | None = None
    key_norm: Norm | None = None
    query_norm: Norm | None = None
    gates: Sequence[AnyMatrix] = ()
    gelu_gates: bool = False
    first: int = 0
    out: AnyMatrix | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class NativeAdapter:
    """A product of low rank beside a matrix of which several layers share the weights: see `description.Adapter`.

    `down` is (parts * R, K) and `up` has a matrix (o, R) for each part, all bfloat16.
    """

    down: AnyMatrix
    up: Sequence[AnyMatrix]


@dataclass(frozen=True)
class NativeInput:
    """What a layer adds at its end: norm(projection(activation(gate(x)) * its input)); see `NativeInputs`."""

    gate: AnyMatrix
    projection: AnyMatrix
    activation: Activation
    norm: Norm


@dataclass(frozen=True)
class NativeInputs:
    """Inputs of every layer, P numbers each: (norm(projection_scale * projection(x)) + scale * row of table) * factor.

    `table` is (tokens, layers * P) bfloat16; other tokens have row 0. `projection` is (layers * P, E).
    """

    table: Tensor
    projection: AnyMatrix
    norm: Norm
    scale: float
    projection_scale: float
    factor: float


@dataclass(frozen=True)
class NativeLaurel:
    """A learned augmented residual of what an attention reads, y: y + norm(right(left(y))). Both are bfloat16."""

    left: NativeMatrix
    right: NativeMatrix
    norm: Norm


@dataclass(frozen=True)
class NativeAlternation:
    """How a layer guesses and corrects n streams of states; see `description.Alternation` and `alternation.h`.

    `router` is (n, E), `prediction` (n * n, n), `correction` (n, n) and `output` (E,), all bfloat16.
    """

    router: NativeMatrix
    norm: Norm
    scale: float
    prediction: Tensor
    correction: Tensor
    output: Tensor | None = None


@dataclass(frozen=True)
class NativeStreams:
    """How streams of states are made of embedded rows, and one of them: matrices (E, E) of each but the first."""

    spread: Sequence[NativeMatrix]
    merged: Sequence[NativeMatrix]
    active: int


@dataclass(frozen=True)
class NativeLayer:
    """One decoder layer. Weights and biases of norms are bfloat16.

    `gate_up` and `down` are None if `experts` stand in their place, or nothing does. `window` is None if a query sees
    everything. With `chosen`, a row of latent attention sees so many keys: those that `indexer` chooses, or that it has
    chosen in the newest layer before that has one. `latent` is None if the attention is not latent, which it is in all
    layers or in none. `heads`, `kv_heads` and `head_dim` are None if the layer has the decoder's. `keys_of` is the
    number of the earlier layer whose keys and values it reads; `qkv` has queries alone then. With `recurrence` there is
    no attention, unless it has an `out` of its own. With `output_gates`, `qkv` has gates behind the values, for each
    number of a head or one for a head (`gate_of_head`), of which the sigmoid is a factor, or the softplus. With
    `normed_sums`, ((k, a), (k, a)), what attention and MLP give are added, a times, to k times what their norms gave.
    `xielu` has the numbers of that activation. `attention_factor` and `mlp_factor` are on what they add, beside
    `residual`, and `gate_factor` is on the MLP's gate. If `growth` is (n, s, a), queries are multiplied with 1 + s
    log(1 + floor((position + a) / n)). `scale_of_all` is a factor on all that the layer gives. With a `quantile` (of
    the standard normal distribution) only what of an MLP's gate is above that of its own row is taken, less it. All
    layers have an `alternation` or none.

    With `aside` the layer gives nothing to the sum: its MLP reads what its attention gives, and the next layer, which
    there is, reads `aside` of what the MLP gives, added to the rows. With `with_embedding`, `before_attention` and
    `qkv` read 2 E numbers: a row, and behind it the embedded one. Adapters stand beside `qkv` and `gate_up`, the latter
    only in a layer with `aside`.
    """

    qkv: AnyMatrix
    out: AnyMatrix
    before_attention: Norm | None
    before_mlp: Norm | None
    rope: Rope
    scale: float
    gate_up: AnyMatrix | None = None
    down: AnyMatrix | None = None
    experts: NativeExperts | None = None
    after_attention: Norm | None = None
    after_mlp: Norm | None = None
    query: Norm | None = None
    key: Norm | None = None
    window: int | None = None
    kind: AttentionKind = PLAIN
    activation: Activation = "silu"
    xielu: Xielu | None = None
    gated: bool = True
    parallel: bool = False
    residual: float = 1.0
    normed_sums: tuple[tuple[float, float], tuple[float, float]] | None = None
    latent: NativeLatent | None = None
    value: Norm | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    keys_of: int | None = None
    growth: tuple[int, float, int] | None = None
    input: NativeInput | None = None
    scale_of_all: float = 1.0
    recurrence: NativeRecurrence | None = None
    output_gates: bool = False
    gate_of_head: bool = False
    softplus_gates: bool = False
    attention_factor: float = 1.0
    gate_factor: float = 1.0
    mlp_factor: float = 1.0
    quantile: float | None = None
    laurel: NativeLaurel | None = None
    alternation: NativeAlternation | None = None
    aside: AnyMatrix | None = None
    with_embedding: bool = False
    qkv_adapter: NativeAdapter | None = None
    gate_up_adapter: NativeAdapter | None = None
    indexer: NativeIndexer | None = None
    chosen: int = 0
