"""What a description names: tensors, matrices, and settings beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from rapid_integrations.models.description.matrix import Stack, Transposed


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
