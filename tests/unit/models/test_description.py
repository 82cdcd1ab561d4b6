"""What a description names: every part of it by the package, every tensor of a model by the description."""

import pkgutil
from dataclasses import is_dataclass
from importlib import import_module

import pytest
import torch
from torch import nn

from rapid_integrations.models import description
from rapid_integrations.models.description import Mlp, RowsOf, Stack, Transposed, matrices, parameters, settings_of

MODULES = [import_module(each.name) for each in pkgutil.iter_modules(description.__path__, f"{description.__name__}.")]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_package_names_every_part(module):
    # `kept_model` writes and reads those parts alone that the package names.
    named = {name: each for name, each in vars(module).items() if not name.startswith("_")}
    own = {name for name, each in named.items() if getattr(each, "__module__", "") == module.__name__}
    assert own and own <= set(description.__all__)
    assert all(getattr(description, name) is getattr(module, name) for name in own)


def test_no_two_parts_have_one_name():
    parts = [each for module in MODULES for each in vars(module).values() if isinstance(each, type)]
    own = {each for each in parts if is_dataclass(each) and each.__module__.startswith(description.__name__)}
    assert len({each.__name__ for each in own}) == len(own) > 20


class Matrix(nn.Module):
    """(K, O), as `Conv1D` of transformers has it."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2))


@pytest.fixture(scope="module")
def mlp():
    gate_up = nn.Linear(3, 4, bias=False)
    rows = tuple(RowsOf(gate_up, torch.arange(first, 4, 2)) for first in (0, 1))
    return Mlp(rows, Transposed(Matrix(), 2, 3), "silu", factor=0.5)


def test_every_tensor_and_every_matrix_is_found(mlp):
    found = {id(each) for each in parameters(mlp)}
    assert {id(each) for each in (mlp.gate_up[0].module.weight, *mlp.down.module.parameters())} <= found
    assert list(matrices(mlp)) == [rows.module for rows in mlp.gate_up]  # a matrix by columns is none by rows


def test_rows_and_columns_are_read_as_they_lie(mlp):
    even, odd = mlp.gate_up
    assert torch.equal(torch.stack((even.weight, odd.weight), 1).flatten(0, 1), even.module.weight)
    assert (even.bias, even.out_features) == (None, 2)
    assert torch.equal(mlp.down.weight, mlp.down.module.weight.t()) and mlp.down.bias is mlp.down.module.bias


def test_a_stack_names_its_weights_and_biases():
    module = nn.ParameterDict({"up": torch.randn(2, 3, 4), "up_bias": torch.randn(2, 3)})
    assert [tuple(each.shape) for each in Stack(module, "up", bias="up_bias").parameters] == [(2, 3, 4), (2, 3)]
    assert list(parameters(Stack(module, "up"))) == [module.up]


def test_settings_hold_what_no_weight_does(mlp):
    settings = settings_of(mlp)
    assert settings["factor"] == 0.5 and settings["gated"] is True and settings["adapter"] is None
    assert settings["gate_up"] == [{"module": None, "rows": None}] * 2
