"""Experts by operators: the same bits as one expert after another, and one wait of the host in a pass."""

import pytest
import torch
from torch.nn.functional import silu

from rapid_integrations.kernels.layers import Routing
from rapid_integrations.models import experts as module
from rapid_integrations.models.experts import TakenExperts
from rapid_integrations.models.linear import PlainLinear

WIDTH, INNER, COUNT = 16, 24, 7


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(**routing):
    shared = int(routing.get("shared", False))
    gate_up = [PlainLinear(weight) for weight in drawn(COUNT + shared, INNER, WIDTH, seed=1)]
    down = [PlainLinear(weight) for weight in drawn(COUNT + shared, WIDTH, INNER, seed=2)]
    router = drawn(COUNT + bool(routing.get("shared_gate")), WIDTH, seed=3)
    return TakenExperts(Routing(**routing), router, None, gate_up, down)


def one_by_one(experts, x):
    weights, taken = experts.route(x)
    out = torch.zeros(x.shape)
    for expert in range(len(experts.down)):
        rows, slots = torch.where(taken == expert)
        if len(rows):
            factors = weights[rows, slots, None]
            read = x[rows] * factors if experts.routing.scales_inputs else x[rows]
            own = experts.down[expert](silu(experts.gate_up[expert](read)))
            out.index_add_(0, rows, own if experts.routing.scales_inputs else own * factors)
    return out


@pytest.mark.parametrize("rows", [1, 2, 40])
@pytest.mark.parametrize(
    "routing",
    [{"taken": 2}, {"taken": 1, "scales_inputs": True}, {"taken": 3, "shared": True, "shared_gate": True}],
    ids=str,
)
def test_rows_are_grouped_by_experts_with_one_wait(monkeypatch, routing, rows):
    experts, x = made(**routing), drawn(rows, WIDTH)
    waits = []
    monkeypatch.setattr(module, "numbers_of", lambda ends: waits.append(ends) or ends.tolist())
    assert torch.equal(experts(x, silu), one_by_one(experts, x))
    assert len(waits) == 1 and waits[0][-1] == rows * (routing["taken"] + routing.get("shared", 0))


def test_experts_that_nobody_takes_are_not_multiplied():
    experts = made(taken=2)
    x = drawn(1, WIDTH)
    taken = set(experts.route(x)[1].flatten().tolist())
    asked = []
    products = [lambda y, own=own, at=at: asked.append(at) or own(y) for at, own in enumerate(experts.gate_up)]
    object.__setattr__(experts, "gate_up", products)
    experts(x, silu)
    assert set(asked) == taken and len(asked) == 2
