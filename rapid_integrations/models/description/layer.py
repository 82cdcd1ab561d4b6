"""One layer, made of what the other modules describe."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rapid_integrations.kernels.layers import Norm
from rapid_integrations.models.description.attention import Attention
from rapid_integrations.models.description.layer_inputs import LayerInput
from rapid_integrations.models.description.matrix import Inputs
from rapid_integrations.models.description.mlp import Experts, Mlp
from rapid_integrations.models.description.recurrence import Recurrence, ShortConvolution
from rapid_integrations.models.description.streams import Alternation, Laurel


@dataclass(frozen=True)
class NormedSums:
    """Sums of a layer whose parts add to what their norm gives, not to what it reads: kept * normed + added * given.

    Attributes:
        attention: kept and added, of the attention or what stands in its place.
        mlp: the same of the MLP or the experts.
    """

    attention: tuple[float, float]
    mlp: tuple[float, float]


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
        normed_sums: in place of `residual`: what the parts give is added to rows behind their norms; None: it is not.
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
    normed_sums: NormedSums | None = None

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
