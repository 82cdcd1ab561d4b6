"""What keeps a state in the place of keys and values, or beside them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description.matrix import Inputs


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
            and `gate_up` read. With `selection` there are none. Without any, Mamba2's rates are 1 (lightning attention,
            arXiv 2401.04658).
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
