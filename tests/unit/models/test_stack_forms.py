"""Forms of experts' matrices: those that undo each other, and gates first."""

import torch

from rapid_integrations.models.stack_forms import FORMS, gate_first, halves, interleaved, transposed


def test_each_form_is_undone():
    stack = torch.randn(3, 5, 8)  # (N, K, O)
    assert torch.equal(interleaved(gate_first(stack)), stack)
    assert torch.equal(transposed(transposed(stack)), stack)


def test_gates_come_first():
    columns = torch.arange(8.0).expand(2, 5, 8)
    assert gate_first(columns)[0, :, 0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert halves(torch.arange(6.0).view(1, 6)).tolist() == [[0, 2, 4, 1, 3, 5]]


def test_forms_are_found_by_their_names():
    assert all(FORMS[name].__name__ == name for name in FORMS) and len(FORMS) == 4
