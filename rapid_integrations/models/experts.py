"""Experts: MLPs of which each row takes a few, computed by PyTorch's operators.

The rows of a pass are grouped by the experts that they take, so that each expert's weights are read once, and those of
experts that nobody takes are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rapid_integrations.cache.arena import Arena
from rapid_integrations.config import Quantization
from rapid_integrations.kernels.cpu import NativeExperts, NativeMatrix
from rapid_integrations.kernels.layers import Branches, Routing
from rapid_integrations.models.description import Experts
from rapid_integrations.models.linear import Linear, PlainLinear, native_matrix
from rapid_integrations.models.taken_weights import fuse, take_stack


@dataclass(frozen=True)
class TakenExperts:
    """The experts of a layer, as products.

    Attributes:
        routing: which ones a row takes.
        router: (N, E), and the gate of a shared expert as its last row.
        router_bias: (N,) or None.
        gate_up, down: a product for each expert, the shared one last.
        branches: norms of experts that stand beside an MLP; None: they stand in its place.
    """

    routing: Routing
    router: Tensor
    router_bias: Tensor | None
    gate_up: Sequence[Linear]
    down: Sequence[Linear]
    branches: Branches | None = None

    @classmethod
    def of(cls, experts: Experts, quantization: Quantization | None, arena: Arena | None) -> TakenExperts:
        """Take the weights from their modules."""
        router, bias = experts.router
        gate_up = take_stack(experts.gate_up, quantization, arena)
        down = take_stack(experts.down, quantization, arena)
        if experts.shared is not None:
            gate_up.append(fuse(experts.shared.gate_up, quantization, arena))
            down.append(fuse([experts.shared.down], quantization, arena))
        if experts.shared_gate is not None:
            router = torch.cat([router, experts.shared_gate.weight])
        # Routes are chosen in the dtype of the model's weights, or in float32 if the model does so.
        routing = experts.routing
        if routing.correction is not None:
            routing = replace(routing, correction=routing.correction.detach().float().contiguous())
        if routing.factors is not None:
            routing = replace(routing, factors=routing.factors.detach().float().contiguous())
        return cls(routing, router.data, None if bias is None else bias.data, gate_up, down, branches=experts.branches)

    def native(self) -> NativeExperts:
        """Return them for the kernels; every product was made for them."""
        router = NativeMatrix(self.router.bfloat16().contiguous(), bias=self.router_bias)
        gate_up, down = ([native_matrix(each) for each in part] for part in (self.gate_up, self.down))
        return NativeExperts(self.routing, router, gate_up, down, branches=self.branches)

    @property
    def step_bytes(self) -> int:
        """Bytes that a step of one row reads."""
        each = [gate_up.step_bytes + down.step_bytes for gate_up, down in zip(self.gate_up, self.down, strict=True)]
        taken = self.routing.taken * each[0] + (each[-1] if self.routing.shared else 0)
        return taken + self.router.nbytes

    def __call__(
        self, x: Tensor, activated: Callable[[Tensor], Tensor], read_by_router: Tensor | None = None
    ) -> Tensor:
        """Return (T, E) for (T, E).

        Args:
            x: what the experts read.
            activated: what the layer does between the two products of an expert.
            read_by_router: (T, E) in place of `x`.
        """
        weights, taken = self.route(x if read_by_router is None else read_by_router)
        out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        order, ends = _by_expert(taken, len(self.down))
        factors = weights.flatten()[order, None]
        begin = 0
        for expert, end in enumerate(numbers_of(ends)):
            if begin == end:
                continue
            rows, own_factors = order[begin:end] // taken.shape[1], factors[begin:end]
            begin = end
            if self.routing.scales_inputs:
                read = (x[rows] * own_factors.to(x.dtype)).to(x.dtype)
                out.index_add_(0, rows, self.down[expert](activated(self.gate_up[expert](read))).float())
                continue
            own = self.down[expert](activated(self.gate_up[expert](x[rows])))
            out.index_add_(0, rows, own.float() * own_factors)
        return out.to(x.dtype)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights, float32, and numbers of the experts that each row takes, both (T, taken)."""
        routing = self.routing
        outputs = PlainLinear(self.router, self.router_bias)(x.to(self.router.dtype)).float()
        logits = (outputs[:, :-1] if routing.shared_gate else outputs) * routing.logit_scale
        if routing.logit_softcap is not None:
            logits = routing.logit_softcap * torch.tanh(logits / routing.logit_softcap)
        if routing.near is not None:
            return _one_after_another(logits, routing)
        scores = logits.sigmoid() if routing.sigmoid else logits.softmax(dim=-1)
        choice = logits if routing.by_outputs else scores
        choice = choice if routing.correction is None else choice + routing.correction
        if routing.groups > 1:
            choice = _best_groups(choice, routing)
        taken = choice.topk(routing.taken, dim=-1).indices
        weights = scores.gather(1, taken)
        if routing.normalised:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        weights = weights * routing.scale
        if routing.factors is not None:
            weights = weights * routing.factors[taken]
        if routing.shared:
            last = outputs[:, -1:].sigmoid() if routing.shared_gate else torch.ones_like(weights[:, :1])
            weights = torch.cat([weights, last * routing.shared_scale], dim=1)
            taken = torch.cat([taken, torch.full_like(taken[:, :1], len(self.down) - 1)], dim=1)
        return weights, taken


def _by_expert(taken: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Return the places of taken experts (T, taken), flat, those of each expert together and as they lie.

    The other result, (experts,), says where each expert's places end.
    """
    numbers, order = taken.flatten().sort(stable=True)
    return order, torch.searchsorted(numbers, torch.arange(experts, device=taken.device), right=True)


def numbers_of(ends: Tensor) -> list[int]:
    """Return where the places of experts end: here the host waits for a device, once in each layer."""
    numbers: list[int] = ends.tolist()
    return numbers


def _one_after_another(scores: Tensor, routing: Routing) -> tuple[Tensor, Tensor]:
    """Return what `route` does of scores (T, N) for SparseMixer; see `Routing.near`."""
    assert routing.near is not None
    left, weights, taken = scores, [], []
    for _ in range(routing.taken):
        best, index = left.max(dim=-1, keepdim=True)
        far = (best - scores) / scores.abs().clamp(min=best) > routing.near
        weights.append(left.masked_fill(far, float("-inf")).softmax(dim=-1).gather(1, index))
        taken.append(index)
        left = left.scatter(1, index, float("-inf"))
    return torch.cat(weights, dim=1) * routing.scale, torch.cat(taken, dim=1)


def _best_groups(choice: Tensor, routing: Routing) -> Tensor:
    grouped = choice.view(len(choice), routing.groups, -1)  # (T, groups, N / groups)
    sums = grouped.topk(min(routing.group_best, grouped.shape[2]), dim=-1).values.sum(dim=-1)
    kept = sums.topk(routing.groups_taken, dim=-1).indices
    mask = torch.zeros_like(sums, dtype=torch.bool).scatter_(1, kept, True)
    return grouped.masked_fill(~mask[..., None], float("-inf")).flatten(1)
